"""Network namespaces for tests: commands run in them, sockets opened in them, their state read."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_NEWNET = 0x40000000
_FOLDER = Path("/run/netns")
_VOLATILE = re.compile(r" expires \d+sec| pref medium| users \d+| age \d+sec")
_BUSY_SYSCTLS = ("neigh", "route/", "tcp_fastopen_key", "ip_local_reserved_ports", "stable_secret", "icmp_msgs")


def run(argv: Sequence[str], *, timeout: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed. Raises AssertionError with its output if it fails and `check`."""
    raw = subprocess.run(argv, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL)
    # Not text mode: CRLF must stay what it is.
    texts = [output.decode("utf-8", "replace") for output in (raw.stdout, raw.stderr)]
    done = subprocess.CompletedProcess(list(argv), raw.returncode, *texts)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def inside(namespace: str, argv: Sequence[str]) -> list[str]:
    """`argv` to be run in the namespace. (`ip netns exec` would hide /sys/fs/cgroup.)"""
    return ["nsenter", f"--net={_FOLDER / namespace}", "--", *argv]


def add(namespace: str) -> None:
    """Make a namespace with a working loopback and without waiting for duplicate addresses."""
    run(["ip", "netns", "add", namespace])
    sysctl(namespace, {"net/ipv6/conf/all/accept_dad": 0, "net/ipv6/conf/default/accept_dad": 0})
    run(["ip", "-n", namespace, "link", "set", "lo", "up"])


def sysctl(namespace: str, values: dict[str, object]) -> None:
    """Set sysctls by their paths under /proc/sys."""

    def write() -> None:
        for key, value in values.items():
            Path("/proc/sys", key).write_text(f"{value}\n")

    call(namespace, write)


def call(namespace: str, function: Callable[[], T]) -> T:
    """What `function` returns when called in the namespace; sockets that it opens stay there."""
    result: list[T] = []
    error: list[BaseException] = []

    def body() -> None:
        try:
            enter(namespace)
            result.append(function())
        except BaseException as caught:
            error.append(caught)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


def enter(namespace: str) -> None:
    """Move the calling thread, and it alone, into the namespace. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(_FOLDER / namespace) as file:
        if libc.setns(file.fileno(), _NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(file.name))


def connect(
    namespace: str,
    address: tuple[str, int],
    *,
    timeout: float = 10.0,
    source: tuple[str, int] | None = None,
    options: Sequence[tuple[int, int, int]] = (),
) -> socket.socket:
    """A TCP connection from the namespace to an address. Raises OSError."""

    def open_it() -> socket.socket:
        made = socket.socket(_family(address[0]), socket.SOCK_STREAM)
        try:
            for option in options:
                made.setsockopt(*option)
            made.settimeout(timeout)
            if source is not None:
                made.bind(source)
            made.connect(address)
        except BaseException:
            made.close()
            raise
        return made

    return call(namespace, open_it)


def listen(namespace: str, address: tuple[str, int], *, backlog: int = 128) -> socket.socket:
    """A listening TCP socket in the namespace."""

    def open_it() -> socket.socket:
        return socket.create_server(address, family=_family(address[0]), backlog=backlog)

    made = call(namespace, open_it)
    made.settimeout(10.0)
    return made


def datagram(namespace: str, address: tuple[str, int]) -> socket.socket:
    """A bound UDP socket in the namespace."""

    def open_it() -> socket.socket:
        made = socket.socket(_family(address[0]), socket.SOCK_DGRAM)
        made.bind(address)
        return made

    made = call(namespace, open_it)
    made.settimeout(5.0)
    return made


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def members(namespace: str) -> list[int]:
    """Process ids of all that run in the namespace."""
    identity = os.stat(_FOLDER / namespace).st_ino
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.stat(entry / "ns/net").st_ino == identity:
                found.append(int(entry.name))
    return found


def delete(namespace: str) -> None:
    """End what still runs in the namespace and remove it."""
    with suppress(FileNotFoundError):
        for pid in members(namespace):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    run(["ip", "netns", "del", namespace], check=False)


def state(namespace: str) -> dict[str, str]:
    """All that l7proxy may change in a namespace, as text, for comparing before and after."""
    commands = {
        "qdiscs": ["tc", "qdisc", "show"],
        "rules": ["ip", "-4", "rule", "show"],
        "rules6": ["ip", "-6", "rule", "show"],
        "routes": ["ip", "-4", "route", "show", "table", "all"],
        "routes6": ["ip", "-6", "route", "show", "table", "all"],
        "links": ["ip", "-o", "-d", "link", "show"],
    }
    shown = {name: run(inside(namespace, argv)).stdout for name, argv in commands.items()}
    for interface in re.findall(r"^\d+: ([^:@]+)", shown["links"], re.MULTILINE):
        for side in ("ingress", "egress"):
            argv = inside(namespace, ["tc", "filter", "show", "dev", interface, side])
            shown[f"filters {interface} {side}"] = run(argv, check=False).stdout
    shown["sysctls"] = call(namespace, _sysctls)
    return {name: _VOLATILE.sub("", text) for name, text in shown.items()}


def _sysctls() -> str:
    lines = []
    for path in sorted(Path("/proc/sys/net").glob("ip*/**/*")):
        if path.is_file() and not any(word in str(path) for word in _BUSY_SYSCTLS):
            with suppress(OSError):
                lines.append(f"{path}={path.read_text().strip()}")
    return "\n".join(lines)


def differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs between two states, line by line; empty if nothing does."""
    lines = []
    for name in sorted(before | after):
        old, new = (str(side.get(name, "")).splitlines() for side in (before, after))
        lines += [f"{name}: - {line}" for line in old if line not in new]
        lines += [f"{name}: + {line}" for line in new if line not in old]
    return "\n".join(lines)
