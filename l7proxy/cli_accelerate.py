"""The command `accelerate`, and `status --connections`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from l7proxy import accelerate_config
from l7proxy.accelerate_config import NO_CGROUP, AccelerateConfig, load_accelerate

_STATE_DIR = Path("/run/l7proxy")
_STOP = (signal.SIGINT, signal.SIGTERM)
_EVERY = 1.0
_ABOUT = """\
Carry bytes between processes of this machine past the TCP stack. For a mesh that is already there: Envoy, nginx,
HAProxy or linkerd know nothing of it, no connection is proxied or judged, and what cannot be spliced safely goes by
the stack as ever. Chosen are connections whose both ends are processes in the cgroups named, from the start on."""
_KEYS = ("cgroup", "netns", "port", "process", "not_process", "anywhere", "budget", "learn", "dry_run")


def add_commands(commands: Any) -> None:
    """Add it to the parser's sub-commands; it sets `handler`."""
    parser = commands.add_parser(
        "accelerate", help="splice connections of this machine's processes", description=_ABOUT
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="accel.yaml: the same keys, added to by the flags")
    chosen = parser.add_argument_group("which connections")

    def more(flag: str, metavar: str, text: str, kind: Callable[[str], Any] = str) -> None:
        chosen.add_argument(flag, action="append", type=kind, metavar=metavar, help=text + " (repeatable)")

    more("--cgroup", "PATH", "processes in this cgroup and those below; below the cgroup2 root, or in full; / is all")
    more("--netns", "NAME", "only clients in this network namespace: a name of `ip netns`, a path, a process id")
    more("--port", "N", "only to this port, as the client asks for it", _type(accelerate_config.port))
    more("--process", "NAME", "only with this program at an end, by the name that `ps -o comm` shows")
    more("--not-process", "NAME", "not with this program at an end")
    text = "to any address on this machine, not only loopback: other pods, traffic that is REDIRECTed"
    chosen.add_argument("--anywhere", action="store_const", const=True, help=text)
    how = parser.add_argument_group("how")
    text = "bytes that may wait at a reader before its writer goes back to the stack (default 1MiB)"
    how.add_argument("--budget", type=_type(accelerate_config.size), metavar="SIZE", help=text)
    text = "do not wait until it was seen how a program reads; one that reads by splice(2) hangs then"
    how.add_argument("--no-learn", dest="learn", action="store_const", const=False, help=text)
    how.add_argument("--dry-run", action="store_const", const=True, help="splice nothing; list what would be")
    how.add_argument("--watch", action="store_true", help="show every second what is spliced")
    add_state_dir(how)
    parser.set_defaults(handler=run_accelerate)


def add_state_dir(parser: Any) -> None:
    """Where it is written down who splices where."""
    text = f"where it is written down what is attached (default {_STATE_DIR})"
    parser.add_argument("--state-dir", type=Path, default=_STATE_DIR, metavar="DIR", help=text)


def _type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(given: str) -> Any:
        try:
            return parse(given)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def run_accelerate(arguments: argparse.Namespace) -> int:
    """Splice until SIGINT or SIGTERM. The exit code is 1 if that cannot be, 2 if no cgroup is named. Raises
    DocumentError for the file."""
    base = load_accelerate(arguments.config) if arguments.config is not None else AccelerateConfig()
    config = base.with_flags(**{key: getattr(arguments, key) for key in _KEYS})
    if not config.cgroup:
        print(f"l7proxy accelerate: {NO_CGROUP}", file=sys.stderr)
        return 2
    # They wait until somebody asks for them: nothing is left half done.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        return _accelerate(config, arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _accelerate(config: AccelerateConfig, arguments: argparse.Namespace) -> int:
    from l7proxy.accelerate import Accelerator
    from sockmap.config import DatapathError

    try:
        accelerator = Accelerator(config, arguments.state_dir)
    except DatapathError as error:
        print(f"l7proxy accelerate: {error}", file=sys.stderr)
        return 1
    try:
        for line in accelerator.taken_over:
            print(f"accelerate: taken over: {line}")
        print(f"accelerate: ready: {accelerator.describe()}", flush=True)
        _wait(accelerator, arguments.watch)
        accelerator.stop()
        _sum_up(accelerator)
    finally:
        accelerator.close()
    return 0


def _wait(accelerator: Any, watch: bool) -> None:
    from l7proxy.accelerate_text import Watch

    table, clear = Watch(accelerator.splicer), "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
    while signal.sigtimedwait(_STOP, _EVERY) is None:
        accelerator.tidy()
        if watch:
            print(clear + "\n".join(table.lines()), end="\n" if clear else "\n\n", flush=True)


def _sum_up(accelerator: Any) -> None:
    from l7proxy.accelerate_text import totals, would_pair

    config, tables = accelerator.config, accelerator.splicer
    if config.dry_run:
        print("\n".join(would_pair(tables, config.learn, accelerator.cgroups)))
    print("accelerate: stopped")
    print("\n".join(totals(tables)), flush=True)


def run_connections(arguments: argparse.Namespace) -> int:
    """Print every connection and which path its bytes took. The exit code is 1 if nothing is known here."""
    from sockmap.config import DatapathError
    from sockmap.splice_state import records

    try:
        instances: dict[int, list[Any]] = {}  # by where they count
        for record, lives in records(arguments.state_dir):
            instances.setdefault(record.maps["pairs"], []).append((record, lives))
        shown = [_instance(found, arguments.json) for found in instances.values()]
    except (DatapathError, OSError) as error:
        print(f"l7proxy: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(shown, indent=2))
    elif shown:
        print("\n\n".join(shown))
    else:
        print(f"l7proxy: nothing splices here: no `l7proxy accelerate`, or `run` with it, in {arguments.state_dir}")
    return 0 if shown else 1


def _instance(found: list[Any], as_json: bool) -> Any:
    """One process, in all of its cgroups."""
    from l7proxy.accelerate_text import connection_json, connections, totals

    record, lives = found[0]
    cgroups = [one.cgroup for one, _ in found]
    with record.tables() as tables:
        pairs = list(tables.pairs())
        if as_json:
            shown = {"cgroups": cgroups, "process": record.process, "lives": lives, "counts": tables.counts()}
            return {**shown, "connections": list(map(connection_json, pairs))}
        who = f"process {record.process}"
        if not lives:
            who += " (killed; its programs go on until the next start, or `l7proxy cleanup`)"
        head = f"{who}, cgroup {', '.join(cgroups)}"
        return "\n".join([head, *totals(tables), *(connections(pairs) if pairs else ["no connections now"])])
