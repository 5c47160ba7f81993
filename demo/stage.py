"""What every play has: a network of namespaces, a node that l7proxy is started on and leaves as it was, commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from demo.voice import Voice
from tests import netns
from tests.lab import Lab
from tests.node import COMMAND, NodeHandle


class Stage:
    """The stage of one play. `home`: the folder with its node.yaml and its policies, where `you` sit."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.lab, self.home, self.voice = lab, home, Voice()
        self.before: dict[str, str] = {}

    def show(self, name: str) -> None:
        """A file, with line numbers."""
        self.voice.command("you", f"cat {name}")
        lines = (self.home / name).read_text().splitlines()
        self.voice.output("\n".join(f"{number:>2}  {line}" for number, line in enumerate(lines, 1)))

    def start(self) -> NodeHandle:
        """l7proxy, as node.yaml has it; it is ready when this returns."""
        self.voice.command("node", "l7proxy run --config node.yaml &")
        keys: dict[str, Any] = yaml.safe_load((self.home / "node.yaml").read_text())
        texts = {path.name: path.read_text() for path in sorted((self.home / "policies").iterdir())}
        del keys["policies"]
        self.before = self.lab.state()
        node = self.lab.start_l7proxy(texts, **keys)
        self.voice.output(node.output.read_text())
        self.voice.check(node.is_ready(), "/readyz says ready")
        return node

    def stop(self, node: NodeHandle) -> None:
        """A normal end, and what is left of it on the node: nothing."""
        self.voice.command("node", "kill -TERM $(pidof l7proxy)")
        status = node.stop()
        self.voice.check(status == 0, "l7proxy has ended well", node.output.read_text()[-2000:])
        left = netns.differences(self.before, self.lab.state())
        self.voice.check(left == "", "the node is exactly as it was before", left)

    def l7proxy(self, *words: str, node: NodeHandle | None = None) -> subprocess.CompletedProcess[str]:
        """A command of l7proxy, shown with its output; on the node if one runs there."""
        self.voice.command("node" if node else "you", " ".join(["l7proxy", *words]))
        argv = [COMMAND, *words]
        if node is not None:
            argv = netns.inside(node.namespace, argv)
        done = subprocess.run(argv, capture_output=True, text=True, cwd=self.home, timeout=60)
        said = done.stdout + done.stderr
        self.voice.output(said.replace(f"{node.folder}{os.sep}", "") if node else said)
        return done


def processor_time(node: NodeHandle) -> float:
    """Seconds of processor time that the workers have used."""
    ticks = 0
    for pid in node.worker_pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def perform(play: Callable[[Lab], int]) -> int:
    """Play it, which gives how many things were not as told; the exit code: 0 if all were."""
    if os.geteuid() != 0:
        print("the demo makes network namespaces and loads BPF programs: it must run as root", file=sys.stderr)
        return 1
    with Lab() as lab:
        failures = play(lab)
    print(f"\n{failures} things were not as told" if failures else "\nEverything was as told. Nothing of it is left.")
    return 1 if failures else 0
