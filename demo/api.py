"""The demo's API server: it answers everything, refuses nothing, and writes down what it was asked."""

from __future__ import annotations

import json

from aiohttp import web

GOODS = {"/public/menu": ["espresso", "cortado", "flat white"], "/admin/users": ["root", "alice"]}


async def answer(request: web.Request) -> web.Response:
    """Answer any path, and note method, target and the client's address."""
    body = await request.read()
    if request.path != "/public/ping":
        print(json.dumps([request.method, request.raw_path, len(body), request.remote]), flush=True)
    return web.json_response(GOODS.get(request.path, f"done: {request.method} {request.path}"))


def main() -> None:
    """Serve on port 80 of every address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    web.run_app(app, host="0.0.0.0", port=80, access_log=None, print=lambda *_: print("ready", flush=True))  # noqa: S104


if __name__ == "__main__":
    main()
