"""Real HTTP servers, each in a process of its own on loopback, which write down every request they execute."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PROGRAMS, CONF = HERE / "programs", HERE / "conf"
_APACHE_MODULES = "/usr/lib/apache2/modules"
_GUARD = 'while read -r group; do groups="$groups -$group"; done; kill -s KILL -- $groups; rm -rf "$1"'
"""Reads process groups until its input ends, as it does when the tests are killed too, and ends them all."""
_REFUSALS = frozenset(("400", "408", "413", "414", "417", "421", "431", "494", "499", "501", "505", "0", "-1"))
"""Statuses by which a server says that it did not understand the request or would not begin with it."""
PYTHON_KINDS = (
    "gunicorn",
    "uvicorn-h11",
    "uvicorn-httptools",
    "aiohttp",
    "waitress",
    "cheroot",
    "gevent",
    "hypercorn",
    "http.server",
)


class Ran(NamedTuple):
    """One executed request: raw target as it came, path as the server resolved it, host as the server sees it."""

    method: str
    target: str
    path: str
    host: str


@dataclass
class Place:
    """What a kind of server is started with."""

    folder: Path
    port: int

    @property
    def journal(self) -> Path:
        """The file the server writes to."""
        return self.folder / "journal"

    def configure(self, name: str) -> str:
        """A template of conf/ filled in; returns the path of the file."""
        text = (CONF / name).read_text().replace("@DIR@", str(self.folder)).replace("@JOURNAL@", str(self.journal))
        file = self.folder / name
        file.write_text(text.replace("@PORT@", str(self.port)).replace("@MODULES@", _APACHE_MODULES))
        return str(file)


def _nginx(place: Place) -> list[str]:
    return ["nginx", "-e", str(place.folder / "error.log"), "-c", place.configure("nginx.conf")]


def _apache(place: Place) -> list[str]:
    (place.folder / "ok.txt").write_text("ran\n")
    return ["apache2", "-D", "FOREGROUND", "-f", place.configure("apache.conf")]


def _lighttpd(place: Place) -> list[str]:
    """It answers no POST by itself and closes: an nginx behind it does, whose journal nobody reads."""
    backend = Place(place.folder / "backend", _free_port())
    backend.folder.mkdir()
    file = Path(place.configure("lighttpd.conf"))
    file.write_text(file.read_text().replace("@BACKEND@", str(backend.port)))
    script = 'config=$1; shift; "$@" & exec lighttpd -D -f "$config"'
    return ["sh", "-c", script, "sh", str(file), *_nginx(backend)]


def _haproxy(place: Place) -> list[str]:
    return ["haproxy", "-db", "-f", place.configure("haproxy.cfg")]


def _node(place: Place) -> list[str]:
    return ["node", str(PROGRAMS / "server.js"), str(place.port), str(place.journal)]


def _lenient_node(place: Place) -> list[str]:
    return ["node", "--insecure-http-parser", str(PROGRAMS / "server.js"), str(place.port), str(place.journal)]


def _go(place: Place) -> list[str]:
    binary = place.folder / "server"
    build = ["go", "build", "-o", str(binary), str(PROGRAMS / "server.go")]
    subprocess.run(build, check=True, timeout=110, cwd=place.folder, env=os.environ | {"GOTOOLCHAIN": "local"})
    return [str(binary), str(place.port), str(place.journal)]


def _python(kind: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [sys.executable, str(PROGRAMS / "python_server.py"), kind, str(place.port)]

    return command


KINDS: dict[str, Callable[[Place], list[str]]] = {
    "nginx": _nginx,
    "apache": _apache,
    "lighttpd": _lighttpd,
    "haproxy": _haproxy,
    **{kind: _python(kind) for kind in PYTHON_KINDS},
}
"""What `make install` brings, and what therefore has to run everywhere."""
IF_PRESENT = {
    "node": {"node": _node, "node-insecure": _lenient_node},
    "go": {"go": _go},
}
"""By command: servers that are started where that command is there."""


class RealServer:
    """A running server of one kind."""

    def __init__(self, kind: str, place: Place, process: subprocess.Popen[bytes]) -> None:
        self.kind, self.place, self.process = kind, place, process
        self.address = ("127.0.0.1", place.port)

    def ran(self) -> list[Ran]:
        """All it has executed since it was started, in the order of its journal."""
        text = self.place.journal.read_text("latin-1") if self.place.journal.exists() else ""
        lines = [line.split("\t") for line in text[: text.rfind("\n") + 1].splitlines()]
        return [_ran(fields) for fields in lines if len(fields) == 5 and fields[4] not in _REFUSALS]

    def wait_ready(self, timeout: float = 40.0) -> None:
        """Until it accepts connections. Raises AssertionError with what it has said."""
        end = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(self.address, timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{self.kind} does not serve:\n{self.output()}") from None
                time.sleep(0.05)

    def output(self) -> str:
        """What it wrote to standard error and to its error log."""
        logs = [path for name in ("stderr", "error.log") if (path := self.place.folder / name).exists()]
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs)

    def stop(self) -> None:
        """End it and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def _ran(fields: list[str]) -> Ran:
    method, raw, path, host, _ = fields
    if raw.startswith(method + " ") and raw.rfind(" HTTP/") > 0:  # Apache and lighttpd write the whole request line
        raw = raw[len(method) + 1 : raw.rfind(" HTTP/")]
    return Ran(method, raw, path, host)


class Farm:
    """All servers, started at once. A context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="realservers-"))
        self.folder.chmod(0o755)
        self.servers: dict[str, RealServer] = {}
        guard = ["sh", "-c", _GUARD, "sh", str(self.folder)]
        self.guard = subprocess.Popen(guard, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self.missing = [command for command in IF_PRESENT if shutil.which(command) is None]

    def __enter__(self) -> Farm:
        try:
            kinds = dict(KINDS)
            for command, more in IF_PRESENT.items():
                kinds |= {} if command in self.missing else more
            for kind, command_of in kinds.items():
                self.servers[kind] = self._start(kind, command_of)
            for server in self.servers.values():
                server.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, kind: str, command_of: Callable[[Place], list[str]]) -> RealServer:
        folder = self.folder / kind
        folder.mkdir(mode=0o755)
        place = Place(folder, _free_port())
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        environment = os.environ | {"JOURNAL": str(place.journal), "PYTHONPATH": str(PROGRAMS), "PATH": path}
        argv = command_of(place)
        with (folder / "stderr").open("wb") as errors, place.journal.open("ab") as journal:
            out = journal if kind == "haproxy" else errors
            process = subprocess.Popen(
                argv, stdout=out, stderr=errors, cwd=folder, env=environment, start_new_session=True
            )
        assert self.guard.stdin is not None
        self.guard.stdin.write(b"%d\n" % process.pid)
        self.guard.stdin.flush()
        return RealServer(kind, place, process)

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.stop()
        self.guard.kill()
        self.guard.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
