"""Web servers that speak HTTP/2 in clear text, and the network they stand in."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.common import from_app, http, policy
from tests.grpc import common
from tests.lab import Lab, Pod, Server
from tests.node import NodeHandle

PORTS = {"nginx": 8001, "nghttpd": 8002, "hypercorn": 8003, "lighttpd": 8004}
LARGE = 8 << 20
"""Bytes of /public/large."""
_RECEIVED = re.compile(r"recv \(stream_id=(\d+)[^)]*\) :(method|path): (.*)")
_ANSWER = r"""printf "Content-Type: text/plain\r\n\r\nserved $REQUEST_URI\n"; cat >/dev/null"""


def web_policy() -> str:
    """What below /public may be asked for, at every server."""
    entries = [http(port=port) for port in PORTS.values()]
    return policy("web", "web", ingress=[{**from_app("front"), "toPorts": entries}])


class Nghttpd(Server):
    """Its journal is what ``nghttpd -v`` prints: every header field received."""

    def seen(self) -> list[tuple[str, str]]:
        text = self.log.read_text()
        fields = [match.groups() for line in text.splitlines() if (match := _RECEIVED.search(line))]
        methods = [value for _, name, value in fields if name == "method"]
        return list(zip(methods, [value for _, name, value in fields if name == "path"], strict=True))


class Lighttpd(Server):
    """It has the target only within the request line, and notes the client's preface as a request."""

    def seen(self) -> list[tuple[str, str]]:
        words = [event["line"].split() for event in self.requests()]
        return [(method, target) for method, target, _ in words if method != "PRI"]


@dataclass
class Net:
    lab: Lab
    node: NodeHandle
    front: Pod
    web: Pod
    servers: dict[str, Server]
    java: list[str]

    def url(self, kind: str, path: str = "", *, v6: bool = False) -> str:
        """The URL of a path at a kind of server."""
        address = f"[{self.web.v6}]" if v6 else self.web.v4
        return f"http://{address}:{PORTS[kind]}{path}"

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command of the client prints, errors included."""
        done = self.lab.run(self.front.ns, argv, timeout=60, check=check)
        return done.stdout + done.stderr


def nginx(lab: Lab, pod: Pod, folder: Path) -> Server:
    argv = ["nginx", "-e", str(folder / "error.log"), "-c", str(_configured(folder, "nginx"))]
    return Server(lab.popen(pod.ns, argv), _log(folder))


def nghttpd(lab: Lab, pod: Pod, folder: Path) -> Server:
    log = folder / "output"
    (folder / "secret").mkdir()
    (folder / "secret/a").write_text("secret\n")
    argv = ["nghttpd", "--verbose", "--no-tls", "--echo-upload", "-p/public/a=/secret/a", "-d", str(folder)]
    argv.append(str(PORTS["nghttpd"]))
    with log.open("ab") as output:
        return Nghttpd(lab.popen(pod.ns, ["stdbuf", "-oL", *argv], stdout=output, stderr=output), log)


def hypercorn(lab: Lab, pod: Pod, folder: Path) -> Server:
    environment = os.environ | {"JOURNAL": str(_log(folder)), "PYTHONPATH": str(common.HERE)}
    argv = [sys.executable, "-m", "hypercorn", "--bind", f"[::]:{PORTS['hypercorn']}", "--log-level", "CRITICAL"]
    return Server(lab.popen(pod.ns, [*argv, "web_app:application"], env=environment), _log(folder))


def lighttpd(lab: Lab, pod: Pod, folder: Path) -> Server:
    (folder / "public/answer.sh").write_text(_ANSWER)
    return Lighttpd(lab.popen(pod.ns, ["lighttpd", "-D", "-f", str(_configured(folder, "lighttpd"))]), _log(folder))


def start_all(lab: Lab, pod: Pod) -> dict[str, Server]:
    """Each server, with a folder of its own that it serves."""
    lab.folder.chmod(0o755)
    servers = {}
    for start in (nginx, nghttpd, hypercorn, lighttpd):
        folder = lab.folder / start.__name__
        (folder / "public").mkdir(parents=True)
        (folder / "public/a").write_text("a\n")
        (folder / "public/large").write_bytes(bytes(LARGE))
        servers[start.__name__] = start(lab, pod, folder)
    return servers


def _log(folder: Path) -> Path:
    return folder / "requests.jsonl"


def _configured(folder: Path, name: str) -> Path:
    text = (common.HERE / f"conf/{name}.conf").read_text().replace("@DIR@", str(folder))
    file = folder / f"{name}.conf"
    file.write_text(text.replace("@LOG@", str(_log(folder))).replace("@PORT@", str(PORTS[name])))
    return file


def assert_served(net: Net, kind: str, expected: Counter[tuple[str, str]]) -> None:
    """The server has seen these requests, and no others."""
    server = net.servers[kind]
    net.lab.wait(lambda: len(server.seen()) >= expected.total(), what=f"{expected}, not {Counter(server.seen())}")
    assert Counter(server.seen()) == expected
