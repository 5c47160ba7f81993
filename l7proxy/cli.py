"""The command line: run, accelerate, check, explain, observe, status, cleanup."""

from __future__ import annotations

import argparse
import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from l7proxy import __version__, cli_accelerate, cli_policy, observe
from l7proxy.config import load_config
from policies.document import DocumentError


def build_parser() -> argparse.ArgumentParser:
    """All sub-commands; each sets `handler`, a function from the arguments to an exit code."""
    parser = argparse.ArgumentParser(prog="l7proxy", description="A node-local, transparent, API-aware policy proxy.")
    parser.add_argument("--version", action="version", version=f"l7proxy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="enforce the policies of a node until stopped")
    run.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.yaml")
    run.add_argument("--verbose", action="store_true", help="say more")
    run.set_defaults(handler=_run)
    cleanup = commands.add_parser("cleanup", help="remove what a killed instance left on the node")
    place = cleanup.add_mutually_exclusive_group()
    place.add_argument("--config", type=Path, metavar="FILE", help="node.yaml, if it names another state_dir")
    place.add_argument("--state-dir", type=Path, metavar="DIR", help="likewise, of `run` or `accelerate`")
    cleanup.set_defaults(handler=_cleanup)
    cli_accelerate.add_commands(commands)
    cli_policy.add_commands(commands)
    observe.add_commands(commands)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    # Imported here: the other commands need neither root nor BPF, and no bcc on the machine.
    import uvloop

    from l7proxy.supervisor import Node
    from sockmap.datapath import DatapathError

    level = logging.DEBUG if arguments.verbose else logging.INFO
    logging.basicConfig(level=level, format="l7proxy: %(message)s")
    config = load_config(arguments.config)
    # Two descriptors a connection: the usual soft limit of 1024 would be reached at once. Workers inherit it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def serve() -> None:
        await Node(config).run()

    try:
        uvloop.run(serve())
    except DatapathError as error:
        print(f"l7proxy: {error}", file=sys.stderr)
        return 1
    return 0


def _cleanup(arguments: argparse.Namespace) -> int:
    from l7proxy.splice_node import WORKERS
    from sockmap import cgroups, splice_state
    from sockmap.datapath import DatapathConfig, DatapathError, cleanup

    state_dir = arguments.state_dir or DatapathConfig().state_dir
    if arguments.config is not None:
        state_dir = load_config(arguments.config).datapath.state_dir
    try:
        removed = cleanup(state_dir) + splice_state.cleanup(state_dir)
        removed += [f"cgroup {path}" for path in cgroups.remove_left(WORKERS)]
    except DatapathError as error:
        print(f"l7proxy: {error}", file=sys.stderr)
        return 1
    for line in removed or ["nothing was left on this node"]:
        print(line)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `l7proxy` command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.handler(arguments))
    except DocumentError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
