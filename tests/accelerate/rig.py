"""Cgroups with programs in them, and `l7proxy accelerate` beside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sockmap.cgroups import cgroup_root
from tests import netns
from tests.node import COMMAND

HERE = Path(__file__).parent
TIMEOUT = 60.0


class Agent:
    """tests/accelerate/agent.py: sockets made by a program of that name."""

    def __init__(self, rig: Rig, name: str, cgroup: Path, namespace: str | None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = rig.popen([sys.executable, str(HERE / "agent.py"), name], cgroup, namespace, stdin=theirs)
        theirs.close()
        self._control.settimeout(20)
        assert self._control.recv(100) == b"ready"

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
        """A listener."""
        return self._ask("listen", host, port)

    def connect(self, listener: socket.socket, host: str | None = None) -> socket.socket:
        """A connection to a listener, by its own address or another."""
        address = listener.getsockname()
        return self._ask("connect", host or address[0], address[1])

    def _ask(self, *words: Any) -> socket.socket:
        self._control.send(json.dumps(words).encode())
        answer, fds, _, _ = socket.recv_fds(self._control, 4096, 1)
        assert fds, answer.decode()
        made = socket.socket(fileno=fds[0])
        made.settimeout(10)
        return made


class Accelerate:
    """One `l7proxy accelerate`, or another command that splices."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process, self._output = process, output

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Raises AssertionError with what it said, if that is not it."""
        end = time.monotonic() + TIMEOUT
        while text not in self.said:
            status = self.process.poll()
            assert status is None and time.monotonic() < end, f"no {text!r}, status {status}:\n{self.said}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


class Rig:
    """What a test makes, until close()."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state_dir = folder, folder / "state"
        self._cgroups: list[Path] = []
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []

    def cgroup(self, name: str = "a") -> Path:
        """A new one; `name` may have a parent made before."""
        path = cgroup_root() / f"l7accel-{os.getpid()}-{name}"
        path.mkdir()
        self._cgroups.append(path)
        return path

    def namespace(self, name: str) -> str:
        """A new network namespace with a loopback."""
        full = f"l7accel{os.getpid()}{name}"
        self._namespaces.append(full)
        netns.add(full)
        return full

    def popen(
        self, argv: Sequence[str], cgroup: Path | None = None, namespace: str | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """A process, killed with the rig."""
        words = list(argv) if namespace is None else netns.inside(namespace, argv)
        if cgroup is not None:
            words = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(cgroup / "cgroup.procs"), *words]
        process = subprocess.Popen(words, text=True, **({"stdin": subprocess.DEVNULL} | options))
        self._processes.append(process)
        return process

    def agent(self, cgroup: Path, name: str = "peer", namespace: str | None = None) -> Agent:
        """A program of this name."""
        return Agent(self, name, cgroup, namespace)

    def start(self, *flags: str, ready: bool = True, command: str = "accelerate") -> Accelerate:
        """`l7proxy accelerate` with these flags."""
        output = self.folder / f"output-{len(self._processes)}"
        argv = [COMMAND, command, "--state-dir", str(self.state_dir), *flags]
        with output.open("w") as file:
            accelerate = Accelerate(self.popen(argv, stdout=file, stderr=file), output)
        if ready:
            accelerate.wait_for("accelerate: ready")
        return accelerate

    def l7proxy(self, *words: str, argv: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        full = [*argv, COMMAND, *words]
        return subprocess.run(full, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)

    def connections(self) -> list[dict[str, Any]]:
        """What `status --connections` shows, of all that splice here."""
        done = self.l7proxy("status", "--connections", "--json", "--state-dir", str(self.state_dir))
        return [connection for one in json.loads(done.stdout) for connection in one["connections"]]

    def counts(self) -> dict[str, int]:
        """Likewise, of the first that splices here."""
        done = self.l7proxy("status", "--connections", "--json", "--state-dir", str(self.state_dir))
        counts: dict[str, int] = json.loads(done.stdout)[0]["counts"]
        return counts

    def close(self) -> None:
        """Leave nothing."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        self.l7proxy("cleanup", "--state-dir", str(self.state_dir))
        for namespace in self._namespaces:
            netns.delete(namespace)
        for cgroup in reversed(self._cgroups):
            # To mypy a lambda's parameter has no type.
            wait(lambda path=cgroup: not path.exists() or not (path / "cgroup.procs").read_text())  # type: ignore[misc]
            with suppress(FileNotFoundError):
                cgroup.rmdir()


def wait(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """What the condition returns, once that is true. Raises AssertionError."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.02)
    return found


def accepted(listener: socket.socket) -> socket.socket:
    """The next connection."""
    listener.settimeout(10)
    sock, _ = listener.accept()
    sock.settimeout(10)
    return sock


def exchange(client: socket.socket, server: socket.socket, times: int = 40, size: int = 100) -> None:
    """Bytes there and back, by plain recv: often enough to show how both read."""
    for sender, receiver in ((client, server), (server, client)) * times:
        sent = os.urandom(size)
        sender.sendall(sent)
        got = b""
        while len(got) < size:
            data = receiver.recv(1 << 16)
            assert data, "the stream ended"
            got += data
        assert got == sent


def talk(client: Agent, listener: socket.socket, times: int = 40, host: str | None = None) -> None:
    """One connection from its beginning to its end."""
    with client.connect(listener, host) as near, accepted(listener) as far:
        exchange(near, far, times)


def attached(cgroup: Path) -> list[str]:
    """The names of the sock_ops programs attached to a cgroup, by bpftool."""
    done = netns.run(["bpftool", "-j", "cgroup", "show", str(cgroup)], check=False)
    shown = json.loads(done.stdout.strip() or "[]")
    return [one["name"] for one in shown if one["attach_type"] == "cgroup_sock_ops"]
