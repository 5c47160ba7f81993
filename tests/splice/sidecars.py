"""The common layout of a mesh: two pods, each with a sidecar that its traffic is redirected to.

::

    pod "a"                                          pod "b"
    app -> REDIRECT -> sidecar 127.0.0.1:15001       REDIRECT -> sidecar eth0:15006 -> app 127.0.0.1:8080
                               |                         ^
                               +---- eth0 - node - eth0 -+

What the sidecars themselves send is not redirected: they have a user of their own. Past the sidecars, the app is at
port 8090 of its pod. App and sidecar of each pod are in cgroups of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import colon, envoy_command
from tests import netns
from tests.lab import Lab, Pod, Server
from tests.splice.envoy import configuration

TEMPLATES = Path(__file__).parent / "conf"
OUTBOUND, INBOUND, APP, PLAIN, ECHO = 15001, 15006, 8080, 8090, 8081
LOOPBACK = "127.0.0.1"
USER = 1337
"""Of the sidecars, as in Istio."""
SIZES = (64, 1 << 10, 16 << 10, 1 << 20, 64 << 20)
"""Of the bodies at /body/SIZE."""
_SEED = os.urandom(1 << 20)


@dataclass(frozen=True)
class Place:
    """Where a sidecar stands: it takes from `listen` and gives to `upstream`; `folder` holds its files."""

    pod: Pod
    listen: tuple[str, int]
    upstream: tuple[str, int]
    folder: Path

    @property
    def log(self) -> Path:
        """One line for each request (or connection, of a sidecar that does not look inside)."""
        return self.folder / "traffic.log"

    @property
    def outbound(self) -> bool:
        """Whether it is the one beside the client."""
        return self.listen[1] == OUTBOUND


def _envoy(mode: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        config = place.folder / "envoy.json"
        app = None if place.outbound else place.upstream
        config.write_text(configuration(mode, place.listen, app, str(place.log)))
        return envoy_command(config)

    return command


def _nginx(place: Place) -> list[str]:
    return nginx_command(fill("nginx.conf", place.folder, _ways(place)))


def _haproxy(mode: str, *options: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        values = {"MODE": mode, "OPTIONS": "\n".join(f"  {option}" for option in options)}
        return ["haproxy", "-db", "-f", str(fill("haproxy.cfg", place.folder, _ways(place) | values))]

    return command


def _ways(place: Place) -> dict[str, str]:
    return {"LISTEN": colon(place.listen), "UPSTREAM": colon(place.upstream)}


KINDS: dict[str, Callable[[Place], list[str]]] = {
    "envoy": _envoy("http"),
    "envoy-tcp": _envoy("tcp"),
    "nginx": _nginx,
    "haproxy": _haproxy("http", "http-reuse always"),
    "haproxy-tcp": _haproxy("tcp"),
    "haproxy-splice": _haproxy("tcp", "option splice-auto"),
}
"""The sidecars there are; the last one moves bytes with splice(2)."""


class Sidecars:
    """The layout. Use it as a context manager; `start` puts sidecars of a kind, and the app, into it."""

    def __init__(self, *, log_bodies: bool = True) -> None:
        self.log_bodies = log_bodies
        self.lab = Lab()
        self.folder = self.lab.folder / "started"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Sidecars:
        self.lab.__enter__()
        try:
            self.a, self.b = self.lab.pod("a"), self.lab.pod("b")
            names = ("a-app", "a-sidecar", "b-app", "b-sidecar")
            self.cgroups = {name: self.lab.cgroup(name) for name in names}
            self._redirect()
            self._write_bodies()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End and remove everything."""
        self.stop()
        self.lab.close()

    def _redirect(self) -> None:
        for pod, chain, words in (
            (self.a, "OUTPUT", ["-m", "owner", "!", "--uid-owner", str(USER), "!", "-d", "127.0.0.0/8"]),
            (self.b, "PREROUTING", ["-i", "eth0"]),
        ):
            table = ["iptables", "-w", "-t", "nat", "-A", chain, "-p", "tcp"]
            port = str(OUTBOUND if pod is self.a else INBOUND)
            self.lab.run(pod.ns, [*table, "--dport", str(PLAIN), "-j", "RETURN"])
            self.lab.run(pod.ns, [*table, *words, "-j", "REDIRECT", "--to-ports", port])

    def _write_bodies(self) -> None:
        self.bodies.mkdir()
        for size in SIZES:
            with self.body(size).open("wb") as file:
                for _ in range(max(1, size // len(_SEED))):
                    file.write(_SEED[:size])

    @property
    def bodies(self) -> Path:
        """The folder of the app's bodies."""
        return self.lab.folder / "bodies"

    def body(self, size: int) -> Path:
        """The file that the app serves at /body/SIZE."""
        return self.bodies / str(size)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self, kind: str | None) -> None:
        """Start the app and, in each pod, a sidecar of that kind of KINDS (None: no sidecars, the app is at PLAIN
        only); they listen when this returns."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        app = (LOOPBACK, APP)
        self.places = {
            "a": self._place("a", self.a, (LOOPBACK, OUTBOUND), (self.b.v4, APP)),
            "b": self._place("b", self.b, (self.b.v4, INBOUND), app),
        }
        self._start(self.b, "b-app", self._app(app), APP, self.folder / "app.out")
        if kind is None:
            return
        for name, place in self.places.items():
            argv = [*_as_user(), *KINDS[kind](place)]
            # HAProxy logs to its standard output.
            output = place.log if kind.startswith("haproxy") else place.folder / "output"
            self._start(place.pod, f"{name}-sidecar", argv, place.listen[1], output)

    def _place(self, name: str, pod: Pod, listen: tuple[str, int], upstream: tuple[str, int]) -> Place:
        folder = self.folder / name
        folder.mkdir()
        return Place(pod, listen, upstream, folder)

    def _app(self, address: tuple[str, int]) -> list[str]:
        values = {
            "LISTEN": colon(address),
            "PLAIN": colon((self.b.v4, PLAIN)),
            "ECHO": colon((LOOPBACK, ECHO)),
            "BODIES": str(self.bodies),
            "BODY_LOG": f"{self.folder}/seen.log seen" if self.log_bodies else "off",
        }
        return nginx_command(fill("app.conf", self.folder, values))

    def _start(self, pod: Pod, cgroup: str, argv: list[str], port: int, output: Path) -> None:
        with output.open("w") as file:
            process = self.lab.popen(pod.ns, argv, cgroup=self.cgroups[cgroup], stdout=file, stderr=file)
        self._processes.append(process)

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{argv}: status {process.returncode}\n{output.read_text()[-2000:]}")
            return _listens(pod.ns, port)

        self.lab.wait(ready, 30.0, f"port {port} of {pod.ns}")

    def stop(self) -> None:
        """End the app and the sidecars."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self._processes.clear()

    def echo(self) -> Server:
        """Start the server that /echo leads to (tests/servers/echo.py, which writes down what reached it)."""
        return self.lab.serve(self.b.ns, ECHO, host=LOOPBACK, cgroup=self.cgroups["b-app"])

    # -- use -------------------------------------------------------------------------------------------------------

    def url(self, path: str, *, port: int = APP) -> str:
        """The app's URL as its client in pod "a" knows it; with port PLAIN, past the sidecars."""
        return f"http://{colon((self.b.v4, port))}{path}"

    def run(self, argv: list[str], timeout: float = 60.0) -> str:
        """What a command of the client's printed. Raises AssertionError if it fails."""
        return self.lab.run(self.a.ns, argv, timeout=timeout, cgroup=self.cgroups["a-app"]).stdout

    def seen(self) -> list[list[str]]:
        """What the app has seen since `start`: peer's address, method, target, status and bytes of each request."""
        return [line.split() for line in _lines(self.folder / "seen.log")]

    def traffic(self, name: str) -> list[str]:
        """The lines that the sidecar of pod `name` has written since `start`."""
        return [line for line in _lines(self.places[name].log) if line.startswith("{")]

    def cpu_seconds(self) -> float:
        """Processor time of both sidecars, since the layout was made."""
        return sum(_cpu_seconds(self.cgroups[f"{name}-sidecar"]) for name in ("a", "b"))


def fill(template: str, folder: Path, values: dict[str, str]) -> Path:
    """A template of conf/ filled in, as a file in the folder."""
    text = (TEMPLATES / template).read_text()
    for key, value in {"DIR": str(folder), **values}.items():
        text = text.replace(f"@{key}@", value)
    file = folder / template
    file.write_text(text)
    return file


def nginx_command(config: Path) -> list[str]:
    """How nginx is started."""
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-e", str(config.with_suffix(".err")), "-c", str(config)]


def _as_user() -> list[str]:
    # The user must reach the files of a checkout, and of the lab, wherever they are.
    override = "+dac_override"
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return ["setpriv", *user, f"--inh-caps={override}", f"--ambient-caps={override}"]


def _listens(namespace: str, port: int) -> bool:
    """Whether something listens on the port. (A trial connection would leave another one behind, to the upstream.)"""
    text = netns.call(namespace, Path("/proc/thread-self/net/tcp").read_text)
    rows = [line.split() for line in text.splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def _lines(path: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return path.read_text().splitlines()
    return []


def _cpu_seconds(cgroup: Path) -> float:
    fields = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"]) / 1e6
