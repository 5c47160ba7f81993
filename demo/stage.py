"""What every play has: a network of namespaces, a node that l7proxy is started on and leaves as it was, commands."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from demo.voice import Voice
from tests import netns
from tests.lab import Lab, Pod
from tests.node import COMMAND, NodeHandle

Times: TypeAlias = tuple[float, float]
"""Median and 99th percentile in microseconds."""


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

    def show_policy(self, told: str, name: str, question: str) -> None:
        """The scene in which a policy is shown, checked, and asked about something that it refuses."""
        self.voice.scene("The policy", told)
        self.show(f"policies/{name}")
        done = self.l7proxy("check", "policies/")
        self.voice.check(done.returncode == 0, "no errors, and nothing that silently weakens it", done.stdout)
        done = self.l7proxy("explain", "--policies", "policies/", *shlex.split(question))
        self.voice.check("DROPPED" in done.stdout, "a policy can be asked before anything runs", done.stdout)

    def start(self, told: str) -> NodeHandle:
        """The scene in which l7proxy starts, as node.yaml has it; it is ready when this returns."""
        self.voice.scene("l7proxy starts", told)
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
        """The last scene: a normal end, and what is left of it on the node: nothing."""
        self.voice.scene("Curtain", "A normal stop takes everything back: programs, filters, rules, routes, sysctls.")
        self.voice.command("node", "kill -TERM $(pidof l7proxy)")
        status = node.stop()
        self.voice.check(status == 0, "l7proxy has ended well", node.output.read_text()[-2000:])
        left = netns.differences(self.before, self.lab.state())
        self.voice.check(left == "", "the node is exactly as it was before", left)

    def l7proxy(self, *words: str, node: NodeHandle | None = None) -> subprocess.CompletedProcess[str]:
        """A command of l7proxy, shown with its output; on the node if one runs there."""
        self.voice.command("node" if node else "you", shlex.join(["l7proxy", *words]))
        argv = [COMMAND, *words]
        if node is not None:
            argv = netns.inside(node.namespace, argv)
        done = subprocess.run(argv, capture_output=True, text=True, cwd=self.home, timeout=60)
        said = done.stdout + done.stderr
        self.voice.output(said.replace(f"{node.folder}{os.sep}", "") if node else said)
        return done

    def told(self, pod: Pod, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """A client's command, whatever its status."""
        return self.lab.run(pod.ns, argv, timeout=90, check=False)

    def answers(
        self, done: subprocess.CompletedProcess[str], said: str, wanted: str, told: str, lacks: str = "\0"
    ) -> None:
        """What a client has `said`: `wanted` is in it, `lacks` is not. Where nothing is wanted it has ended well."""
        self.voice.output(said)
        good = wanted in said and lacks not in said and (bool(wanted) or done.returncode == 0)
        self.voice.check(good, told, said)

    def times(self, pod: Pod, script: str, *words: str) -> Times:
        """What a script of `demo` prints that takes times."""
        argv = [sys.executable, "-m", f"demo.{script}", *words]
        median, high = self.lab.run(pod.ns, argv, timeout=120).stdout.split()
        return float(median), float(high)

    def python(self, pod: Pod, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A script of the play's."""
        return self.told(pod, [sys.executable, str(self.home / script), *words])

    @contextmanager
    def following(self, pod: Pod, script: str, *words: str) -> Iterator[Iterator[str]]:
        """A script that goes on: what it prints, line by line, waiting for each."""
        output = self.lab.folder / f"{script}.out"
        argv = [sys.executable, str(self.home / script), *words]
        with output.open("w") as file:
            process = self.lab.popen(pod.ns, argv, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield self._lines(output, pod.name)
        finally:
            process.kill()

    def _lines(self, output: Path, who: str) -> Iterator[str]:
        for number in itertools.count():
            self.lab.wait(lambda count=number: output.read_text().count("\n") > count, 60, f"{who} to hear something")
            yield output.read_text().splitlines()[number]

    def hears(self, lines: Iterator[str], wanted: str, told: str) -> None:
        """The next line that a script prints."""
        line = next(lines)
        self.voice.output(line)
        self.voice.check(wanted in line, told, line)

    def edit(self, node: NodeHandle, name: str, old: str, new: str) -> None:
        """Change the text of a policy that is in force."""
        self.voice.command("you", f"sed -i 's/{old}/{new}/' policies/{name}")
        node.write_policy((node.folder / "policies" / name).read_text().replace(old, new), name)

    def compare(self, node: NodeHandle, direct: Times, again: Callable[[], Times], count: int, what: str) -> None:
        """What `count` of `what` have taken without l7proxy, and what they take through it."""
        before = processor_time(node)
        through = again()
        each = (processor_time(node) - before) / count * 1e6
        self.voice.output(f"{'':12}{'median':>10}{'p99':>10}")
        for name, (median, high) in (("direct", direct), ("through it", through)):
            self.voice.output(f"{name:12}{median:>7.0f} us{high:>7.0f} us")
        self.voice.output(f"processor time of the proxy: {each:.0f} us a {what}")
        self.voice.check(0 < each < 5000 and through[0] < 50_000, "within reason")


def line_of(text: str, word: str) -> int:
    """The number of the first line with a word."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if word in line)


def percentiles(times: list[float]) -> str:
    """For `Times`: what scripts that take them print, from microseconds."""
    times = sorted(times)
    return f"{times[len(times) // 2]:.0f} {times[len(times) * 99 // 100]:.0f}"


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
