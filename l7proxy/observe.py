"""The commands `observe` and `status`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l7proxy import adminclient, cli_accelerate
from l7proxy.adminclient import AdminError
from l7proxy.flowfilter import PROTOCOLS, FlowFilter
from l7proxy.flowtext import flow_text, printable
from policies.verdict import Verdict

_LAST = 20


def add_commands(commands: Any) -> None:
    """Add both to the parser's sub-commands; each sets `handler`."""
    observe = commands.add_parser("observe", help="show flows: what was asked, what became of it, and by which rule")
    observe.add_argument("-f", "--follow", action="store_true", help="go on showing flows as they happen")
    observe.add_argument("--json", action="store_true", help="Hubble's JSON, one flow a line")
    observe.add_argument("--last", type=_count, metavar="N", help=f"the last N (default {_LAST}; with -f, none)")
    observe.add_argument("--verdict", type=str.upper, choices=list(map(str, Verdict)), help="only this verdict")
    observe.add_argument("--protocol", type=str.lower, choices=PROTOCOLS, help="only this protocol")
    ends = "an endpoint [namespace/]name, an address, a label key=value, or an entity such as world"
    observe.add_argument("--from", dest="source", metavar="WHO", help=ends)
    observe.add_argument("--to", dest="destination", metavar="WHO", help="likewise")
    place = observe.add_mutually_exclusive_group()
    _add_admin(place)
    place.add_argument("--file", type=Path, help="read this log file (- for stdin), and not the running proxy")
    observe.set_defaults(handler=run_observe)
    status = commands.add_parser("status", help="whether the proxy on this node works, and with which policy")
    status.add_argument("--json", action="store_true", help="as JSON")
    text = "of the splicing here: each connection, and which path its bytes took"
    status.add_argument("--connections", action="store_true", help=text)
    _add_admin(status)
    cli_accelerate.add_state_dir(status)
    status.set_defaults(handler=run_status)


def _add_admin(parser: Any) -> None:
    default = adminclient.DEFAULT
    parser.add_argument("--admin", default=default, metavar="URL", help=f"http://host:port or unix:/path ({default})")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of flows")
    return int(text)


def run_observe(arguments: argparse.Namespace) -> int:
    """Print flows. The exit code is 1 if they cannot be had."""
    wanted = FlowFilter(arguments.verdict, arguments.protocol, arguments.source, arguments.destination)
    last = arguments.last if arguments.last is not None else (0 if arguments.follow else _LAST)
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    try:
        if arguments.file is not None:
            lines = _from_file(arguments.file, wanted, last, arguments.follow)
        else:
            lines = adminclient.get(arguments.admin, "/flows", _query(wanted, last, arguments.follow))
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\n") if arguments.json else _readable(line, color)
            if text:
                print(text, flush=arguments.follow)
    except (AdminError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        print(f"l7proxy: {error}", file=sys.stderr)
        return 1
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Print the node's state. The exit code is 1 unless it is ready."""
    if arguments.connections:
        return cli_accelerate.run_connections(arguments)
    try:
        state = json.loads(b"".join(adminclient.get(arguments.admin, "/status")))
    except (AdminError, ValueError) as error:
        print(f"l7proxy: {error}", file=sys.stderr)
        return 1
    print(json.dumps(state, indent=2) if arguments.json else "\n".join(_listed(state)))
    return 0 if isinstance(state, dict) and state.get("ready") else 1


def _listed(value: Any, indent: str = "") -> Iterator[str]:
    """Nested mappings as aligned lines."""
    if not isinstance(value, dict):
        yield indent + printable(str(value))
        return
    width = max((len(key) for key in value), default=0) + 1
    for key, item in value.items():
        name = printable(key.replace("_", " ")) + ":"
        if isinstance(item, dict) and item:
            yield indent + name
            yield from _listed(item, indent + "  ")
        else:
            yield f"{indent}{name:<{width}} {_short(item)}"


def _short(item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, list):
        return ", ".join(map(_short, item)) or "none"
    return "none" if item in (None, "", {}) else printable(str(item))


def _readable(line: bytes, color: bool) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return printable(line[:200].decode("utf-8", "replace").rstrip())
    return flow_text(value, color) if isinstance(value, dict) else ""


def _query(wanted: FlowFilter, last: int, follow: bool) -> dict[str, str]:
    query = {"last": str(last), "follow": "1" if follow else "0", "verdict": wanted.verdict}
    query |= {"protocol": wanted.protocol, "from": wanted.source, "to": wanted.destination}
    return {key: value for key, value in query.items() if value is not None}


# -- from a file --------------------------------------------------------------------------------------------------


def _from_file(path: Path, wanted: FlowFilter, last: int, follow: bool) -> Iterator[bytes]:
    """The last lines of a log file that pass, and with `follow` those to come, also after it is moved aside."""
    recent: deque[bytes] = deque(maxlen=last)
    whole = 0
    with open(0 if str(path) == "-" else path, "rb", closefd=str(path) != "-") as file:
        for line in file:
            if line.endswith(b"\n"):
                whole += len(line)
            if wanted.line(line):
                recent.append(line)
    yield from recent
    if follow and str(path) != "-":
        yield from (line for line in _tail(path, whole) if wanted.line(line))


def _tail(path: Path, position: int) -> Iterator[bytes]:
    file = path.open("rb")
    file.seek(position)
    rest = b""
    while True:
        data = file.read(1 << 16)
        *lines, rest = (rest + data).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if not data:
            if _moved(path, file.fileno(), file.tell()):
                file.close()
                file, rest = path.open("rb"), b""
            else:
                time.sleep(0.1)


def _moved(path: Path, descriptor: int, position: int) -> bool:
    """True if another file stands there now, or this one was cut."""
    mine = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino) or mine.st_size < position
