"""Ordinary HTTP/2: nghttp, h2load, curl, httpx and the JDK's client, before nginx, nghttpd and hypercorn."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests import netns
from tests.e2e.common import DENIED
from tests.grpc import common
from tests.grpc.web import LARGE, PORTS, Net, assert_served, start_all, web_policy
from tests.lab import Lab

pytestmark = pytest.mark.privileged
EVERY = pytest.mark.parametrize("kind", PORTS)
THREE = pytest.mark.parametrize("kind", ["nginx", "nghttpd", "hypercorn"])
"""lighttpd does not do without the table, nor with more than 8 KiB of fields."""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Lab() as lab:
        front, web = lab.pod("front"), lab.pod("web")
        servers = start_all(lab, web)
        java = common.java()
        node = lab.start_l7proxy(web_policy())
        for port in PORTS.values():
            lab.wait(lambda port=port: _serves(web.ns, port), 20, what=f"a server on port {port}")
        yield Net(lab, node, front, web, servers, java)


def _serves(namespace: str, port: int) -> bool:
    try:
        netns.connect(namespace, ("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def _forget(net: Net) -> None:
    for server in net.servers.values():
        if server.log.exists():
            server.forget()


def curl(net: Net, url: str, *words: str) -> tuple[str, list[str]]:
    """What curl shows, and its last line: the words of --write-out.

    One URL a run: curl 7.88, which is Debian 12's, cannot use a connection twice that has begun with HTTP/2.
    """
    argv = ["curl", "-sSg", "--http2-prior-knowledge", "-w", "\n%{http_version} %{http_code} %{size_download}"]
    body, _, last = net.run(*argv, *words, url).rpartition("\n")
    return body, last.split()


@EVERY
def test_curl(net: Net, kind: str) -> None:
    for v6 in (False, True):
        assert curl(net, net.url(kind, "/public/a", v6=v6))[1][:2] == ["2", "200"]
        assert curl(net, net.url(kind, "/secret/a", v6=v6)) == (DENIED, ["2", "403", str(len(DENIED))])
    assert_served(net, kind, Counter({("GET", "/public/a"): 2}))


@pytest.mark.parametrize("kind", ["hypercorn", "lighttpd"])
def test_http1_on_the_same_port(net: Net, kind: str) -> None:
    argv = ["curl", "-sS", "--http1.1", "-w", "%{http_version} %{http_code}\n"]
    urls = [net.url(kind, f"/{place}/a") for place in ("public", "secret", "public")]
    shown = net.run(*argv, *(word for url in urls for word in ("-o", "/dev/null", url)))
    assert shown.split("\n")[:3] == ["1.1 200", "1.1 403", "1.1 200"]
    assert_served(net, kind, Counter({("GET", "/public/a"): 2}))


@EVERY
def test_uploads(net: Net, kind: str) -> None:
    body = net.lab.folder / "body"
    body.write_bytes(bytes(3 << 20))
    words = ["--data-binary", f"@{body}", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
    argv = ["curl", "-sSg", "--http2-prior-knowledge", *words, net.url(kind, "/public/up")]
    done = net.lab.run(net.front.ns, argv, check=False)
    # 92: to curl 7.88 an answer that is whole is none, if it comes before curl has noticed that it has sent all.
    assert done.returncode in (0, 92) and done.stdout == "2 200", done
    refused = net.run("nghttp", "-v", "-n", f"--data={body}", net.url(kind, "/secret/up"))
    assert ":status: 403" in refused and refused.count("send DATA") < 100
    assert_served(net, kind, Counter({("POST", "/public/up"): 1}))


@EVERY
@pytest.mark.parametrize("size", [60_000, 1 << 20])
def test_an_upload_that_is_refused_has_its_answer(net: Net, kind: str, size: int) -> None:
    body = net.lab.folder / "upload"
    body.write_bytes(bytes(size))
    for words in (["-T", str(body)], ["--data-binary", f"@{body}"]):
        assert curl(net, net.url(kind, "/secret/up"), *words) == (DENIED, ["2", "403", str(len(DENIED))])
    assert_served(net, kind, Counter())


@THREE
def test_a_large_answer(net: Net, kind: str) -> None:
    assert curl(net, net.url(kind, "/public/large"), "-o", "/dev/null")[1] == ["2", "200", str(LARGE)]


@EVERY
def test_a_head_request_is_refused_without_a_body(net: Net, kind: str) -> None:
    shown, counts = curl(net, net.url(kind, "/secret/a"), "-I")
    assert shown.startswith("HTTP/2 403") and DENIED not in shown and counts[1] == "403"
    assert_served(net, kind, Counter())


NGHTTP = {
    "plain": [],
    "small windows": ["--window-bits=10", "--connection-window-bits=10"],
    "no table": ["--header-table-size=0", "--encoder-header-table-size=0"],
    "table of 64": ["--header-table-size=64", "--encoder-header-table-size=64"],
    "table that shrinks": ["--header-table-size=4096", "--header-table-size=0", "--encoder-header-table-size=16384"],
    "padding": ["--padding=100"],
    "continuation": ["--continuation"],
    "many fields": [f"-Hx-field-{number}: {'v' * 300}" for number in range(40)],
    "no priorities": ["--no-dep"],
}


@THREE
@pytest.mark.parametrize("words", NGHTTP.values(), ids=NGHTTP)
def test_nghttp(net: Net, kind: str, words: list[str]) -> None:
    places = ["public", "secret", "secret", "public", "public", "secret", "public"]
    urls = [net.url(kind, f"/{place}/a?{number}") for number, place in enumerate(places)]
    shown = net.run("nghttp", "-v", "-n", *words, *urls)
    codes = dict(re.findall(r"recv \(stream_id=(\d+)\) :status: (\d+)", shown))
    assert [codes[stream] for stream in sorted(codes, key=int)] == [
        "200" if place == "public" else "403" for place in places
    ], shown
    assert "GOAWAY" not in shown.replace("send GOAWAY", "") or "NO_ERROR" in shown
    assert_served(net, kind, Counter({("GET", f"/public/a?{n}"): 1 for n, p in enumerate(places) if p == "public"}))


@pytest.mark.parametrize("kind", ["nghttpd", "hypercorn"])  # nginx takes no trailers
def test_nghttp_sends_a_body_and_trailers(net: Net, kind: str) -> None:
    body = net.lab.folder / "small"
    body.write_bytes(b"x" * 100_000)
    for place, code in (("secret", "403"), ("public", "200"), ("secret", "403")):
        words = ["-v", "-n", f"--data={body}", "--trailer=x-sum: 1", net.url(kind, f"/{place}/up")]
        assert f":status: {code}" in net.run("nghttp", *words)
    assert_served(net, kind, Counter({("POST", "/public/up"): 1}))


@pytest.mark.parametrize("kind", ["nginx", "nghttpd"])
def test_h2load(net: Net, kind: str) -> None:
    urls = [net.url(kind, f"/{place}/a") for place in ("public", "secret", "public")]
    shown = net.run("h2load", "-n3000", "-c4", "-m16", *urls)
    assert "requests: 3000 total, 3000 started, 3000 done, 2000 succeeded, 1000 failed, 0 errored" in shown, shown
    assert "status codes: 2000 2xx, 0 3xx, 1000 4xx, 0 5xx" in shown
    assert_served(net, kind, Counter({("GET", "/public/a"): 2000}))


@THREE
def test_httpx(net: Net, kind: str) -> None:
    shown = json.loads(net.run(sys.executable, str(common.CLIENTS / "httpx_client.py"), net.url(kind)))
    missing = 404 if kind == "nghttpd" else 200
    assert shown["one by one"] == [missing, 403] * 10 + [200, 403] * 5 + [403]
    assert shown["at once"] == {str(missing): 200, "403": 100}
    expected = Counter({("GET", f"/public/{number}"): 1 for number in range(10)} | {("POST", "/public/up"): 5})
    assert_served(net, kind, expected + Counter(("GET", f"/public/{n}") for n in range(300) if n % 3))


def test_nothing_is_pushed_that_was_not_asked_for(net: Net) -> None:
    """nghttpd would push /secret/a beside /public/a; it is told that the client wants no push."""
    shown = net.run("nghttp", "-v", "-n", net.url("nghttpd", "/public/a"), net.url("nghttpd", "/secret/a"))
    assert ":status: 200" in shown and ":status: 403" in shown and "PUSH_PROMISE" not in shown
    assert_served(net, "nghttpd", Counter({("GET", "/public/a"): 1}))


def test_the_upgrade_of_the_jdks_client(net: Net) -> None:
    shown = json.loads(net.run(*net.java, "Upgrading", net.url("lighttpd")))
    # Its first request is refused before the server is asked, so it is the second that upgrades the connection.
    assert shown["first"] == ["HTTP_1_1 403 denied", "HTTP_2 200", "HTTP_2 403 denied", "HTTP_2 200"]
    assert shown["then"] == {"public HTTP_2 200": 200, "secret HTTP_2 403 denied": 100}
    expected = Counter(("POST" if n % 2 else "GET", f"/public/{n}") for n in range(300) if n % 3)
    assert_served(net, "lighttpd", expected + Counter([("GET", "/public/first"), ("GET", "/public/second")]))


@pytest.mark.parametrize("argv", [["curl", "-sS", "--http2"], ["nghttp", "-u"]], ids=["curl", "nghttp"])
def test_other_upgrades(net: Net, argv: list[str]) -> None:
    paths = ["/public/a?1", "/secret/a?2", "/public/a?3"]
    shown = net.run(*argv, *(net.url("hypercorn", path) for path in paths))
    assert shown.count("served /public/a") == 2 and shown.count("Access denied") == 1
    assert_served(net, "hypercorn", Counter({("GET", path): 1 for path in paths[::2]}))
    assert {event["version"] for event in net.servers["hypercorn"].requests()} == {"2"}
