"""h2spec's 146 cases against real servers, direct and through l7proxy: none may end worse with the proxy.

Two do, and cannot but (`UNLIKE`). All others pass with nghttpd behind l7proxy, which alone fails one; and all but three
with nginx, which alone fails 27. (Of the three, one updates the window of a stream that is over by then, and
two cannot be tried: a frame larger than nginx takes would be larger than any frame can be.)
"""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests import netns
from tests.e2e.common import from_app, http, policy
from tests.lab import Lab

pytestmark = [pytest.mark.privileged, pytest.mark.slow]
H2SPEC = Path(sys.executable).with_name("h2spec")
CASES = 146
PORTS = {"nghttpd": 8001, "nginx": 8002}
UNLIKE = {
    # The limit that l7proxy has told the client is 0, and h2spec has acknowledged it; it sends an update to 128 all the
    # same, without having looked. That is a connection error (RFC 7541, sections 4.2 and 6.3), as another case, an
    # update to the limit + 1, demands: no server that tells 0 passes both.
    "generic/5: Sends a dynamic table size update": "Connection closed",
    # These bytes are a malformed request of HTTP/1.1, which l7proxy takes on the same port. It answers 400 in that
    # protocol and closes; h2spec wants no answer but the end.
    "http2/3.5: Sends invalid connection preface": "unexpected EOF",
}
"""Cases in which the proxy differs from a server alone, and what h2spec says that it gets."""
LEFT = {"nghttpd": 0, "nginx": 3}
"""How many of the server's own faults reach the client through the proxy."""
INVALID = b"INVALID CONNECTION PREFACE\r\n\r\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client's pod and a server's, l7proxy between them with a rule that allows all of HTTP."""
    with Lab() as made:
        made.pod("client")
        server = made.pod("server")
        for name, port in PORTS.items():
            process = made.popen(server.ns, command(name, made.folder / name, port))
            made.wait(partial(answers, server.ns, server.v4, port), 20, f"{name}, status {process.poll()}")
        rules = [{**from_app("client"), "toPorts": [http({}, port=port) for port in PORTS.values()]}]
        made.start_l7proxy(policy("all", "server", ingress=rules))
        yield made


def command(name: str, folder: Path, port: int) -> list[str]:
    """How a server is started: one page of a few TCP segments, in a folder of its own."""
    www = folder / "www"
    www.mkdir(parents=True)
    (www / "index.html").write_text("l7proxy\n" * 350)
    if name == "nghttpd":
        return ["nghttpd", "--no-tls", "--htdocs", str(www), str(port)]
    text = (Path(__file__).parent / "nginx.conf").read_text().replace("@DIR@", str(folder))
    (folder / "nginx.conf").write_text(text.replace("@PORT@", str(port)))
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    return [binary, "-e", str(folder / "nginx.err"), "-c", str(folder / "nginx.conf")]


def answers(ns: str, host: str, port: int) -> bool:
    """True if the port accepts a connection from the namespace."""
    try:
        netns.connect(ns, (host, port), timeout=1).close()
    except OSError:
        return False
    return True


def h2spec(lab: Lab, pod: str, port: int, seconds: int) -> dict[str, str]:
    """Every case, strict ones too, by its name: empty if it passed, else what was expected and what came.

    `seconds` is how long a case waits for its answer.
    """
    report = lab.folder / f"{pod}-{port}.xml"
    words = ["--strict", "--timeout", str(seconds), "-j", str(report), "-h", lab.pods["server"].v4, "-p", str(port)]
    lab.run(lab.pods[pod].ns, [str(H2SPEC), *words], timeout=250, check=False)
    cases = ElementTree.parse(report).iter("testcase")  # noqa: S314  (h2spec's own file)
    found = {f"{case.get('package')}: {case.get('classname')}": outcome(case) for case in cases}
    assert len(found) == CASES
    return found


def outcome(case: ElementTree.Element) -> str:
    """Empty if the case passed."""
    return " / ".join(f"{part.tag}: {(part.text or '').strip()}".replace("\n", ", ") for part in case)


@pytest.mark.parametrize("server", PORTS)
def test_no_case_is_worse_than_direct(lab: Lab, server: str) -> None:
    """Direct is from within the server's own pod, where no policy is between the two."""
    port = PORTS[server]
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(h2spec, lab, "server", port, 1), pool.submit(h2spec, lab, "client", port, 4)
        direct, proxied = (run.result() for run in running)
    assert sum(not got for got in direct.values()) > 100, "the server itself is at fault"
    worse = {case: got for case, got in proxied.items() if got and not direct[case]}
    assert not {case: got for case, got in worse.items() if case not in UNLIKE}
    left = [case for case, got in proxied.items() if got and direct[case]]
    if len(left) > LEFT[server]:
        # A server that answers and resets a stream before its body has come leaves nothing to be refused: which of the
        # two comes first is chance, so what is left has to be left twice.
        again = h2spec(lab, "client", port, 4)
        left = [case for case in left if again[case]]
    assert len(left) <= LEFT[server]
    for case, ending in UNLIKE.items():
        assert proxied[case].endswith(ending)


def test_an_invalid_preface_is_answered_as_what_it_is(lab: Lab) -> None:
    answer = b""
    with netns.connect(lab.pods["client"].ns, (lab.pods["server"].v4, PORTS["nginx"])) as connection:
        connection.sendall(INVALID)
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
