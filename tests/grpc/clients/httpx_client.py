"""httpx over HTTP/2 with prior knowledge: ``httpx_client.py URL``; prints what came of it as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import httpx

DENIED = "Access denied\r\n"
BODY = b"x" * 65_536
"""More than a stream's window, and no more than `http.drain_body`: httpcore reads no answer before it has sent all."""


def one_by_one(base: str) -> list[int]:
    """Requests by turns on one connection."""
    with httpx.Client(http1=False, http2=True, timeout=20) as client:
        answers = [client.get(f"{base}/{place}/{n}") for n in range(10) for place in ("public", "secret")]
        answers += [client.post(f"{base}/{place}/up", content=BODY) for _ in range(5) for place in ("public", "secret")]
        answers.append(client.head(f"{base}/secret/head"))
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert all(a.text == DENIED for a in answers if a.status_code == 403 and a.request.method != "HEAD")
    return [answer.status_code for answer in answers]


async def at_once(base: str) -> dict[int, int]:
    """300 requests at once on one connection, every third refused."""
    async with httpx.AsyncClient(http1=False, http2=True, timeout=30) as client:
        places = ["secret" if n % 3 == 0 else "public" for n in range(300)]
        answers = await asyncio.gather(*(client.get(f"{base}/{place}/{n}") for n, place in enumerate(places)))
    wrong = [
        a.status_code for a, place in zip(answers, places, strict=True) if (a.status_code == 403) != (place == "secret")
    ]
    return Counter([answer.status_code for answer in answers] + [-1 for _ in wrong])


if __name__ == "__main__":
    print(json.dumps({"one by one": one_by_one(sys.argv[1]), "at once": asyncio.run(at_once(sys.argv[1]))}))
