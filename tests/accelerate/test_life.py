"""From start to stop: signals, kill -9, the next start, `cleanup`, and others' programs on the same cgroup."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sockmap import bpfmap, cgroups
from sockmap.config import DatapathError
from sockmap.splice import SOCK_OPS
from sockmap.splice_state import Claim
from tests import netns
from tests.accelerate.rig import HERE, Accelerate, Agent, Rig, accepted, attached, exchange, talk, wait

pytestmark = pytest.mark.privileged
COUNTING = """
BPF_ARRAY(seen, u64, 1);
int count_%(name)s(struct bpf_sock_ops *ops)
{
    int zero = 0;
    u64 *value = seen.lookup(&zero);
    if (value && ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        __sync_fetch_and_add(value, 1);
    return 1;
}
"""


@contextmanager
def counting(cgroup: Path, name: str = "one", flags: int = 2) -> Iterator[Any]:
    """Somebody else's sock_ops program on a cgroup, and a function for how many connections it has seen."""
    from bcc import BPF

    program = BPF(text=(COUNTING % {"name": name}).encode())
    loaded = program.load_func(f"count_{name}".encode(), BPF.SOCK_OPS)
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    bpfmap.attach(fd, loaded.fd, SOCK_OPS, flags)
    try:
        yield lambda: program[b"seen"][0].value
    finally:
        bpfmap.detach_cgroup(fd, loaded.fd, SOCK_OPS)
        os.close(fd)
        program.cleanup()


class Stream:
    """A checksummed stream of 64 MiB between two processes, which pauses half way."""

    def __init__(self, rig: Rig, cgroup: Path) -> None:
        def start(*words: str) -> subprocess.Popen[str]:
            argv = [sys.executable, str(HERE / "stream.py"), *words]
            return rig.popen(argv, cgroup, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        self._server = start("serve", "127.0.0.1")
        self.port = self._line(self._server)
        self._start = start
        self._client: subprocess.Popen[str] | None = None

    def begin(self, mebibytes: int = 64) -> None:
        """Send the first half."""
        self._client = self._start("send", "127.0.0.1", self.port, str(mebibytes))
        assert self._line(self._client) == "half"

    def end(self) -> None:
        """Send the second; raises AssertionError if not all has arrived as it was sent."""
        assert self._client is not None and self._client.stdin is not None
        self._client.stdin.write("go on\n")
        self._client.stdin.flush()
        assert self._line(self._client) == self._line(self._server)

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()


def pair(rig: Rig, cgroup: Path) -> tuple[Agent, Any]:
    """A program that talks to itself, and its listener."""
    agent = rig.agent(cgroup)
    return agent, agent.listen()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_totals_are_told(rig: Rig, number: int) -> None:
    cgroup = rig.cgroup()
    agent, listener = pair(rig, cgroup)
    accelerate = rig.start("--cgroup", str(cgroup))
    assert attached(cgroup) == ["on_socket"]
    talk(agent, listener)
    with agent.connect(listener) as near, accepted(listener) as far:
        exchange(near, far)
        near.sendall(b"on its way")
        assert accelerate.stop(number) == 0
        assert attached(cgroup) == [] and not list(rig.state_dir.iterdir())
        # What was spliced and not read is not lost, and the connection goes on.
        assert far.recv(100) == b"on its way"
        exchange(near, far)
    told = [line.rsplit(maxsplit=1) for line in accelerate.said.splitlines()[2:]]
    assert [[what.strip(), number] for what, number in told] == [
        ["connections paired", "2"],
        ["bytes spliced", "8,010"],
        ["bytes by the stack", "8,000"],
        ["ends not spliced: its program's way of reading is not known yet", "1"],
    ]


def test_kill_9_under_a_stream_loses_nothing_and_the_next_start_takes_over(rig: Rig) -> None:
    cgroup = rig.cgroup()
    stream = Stream(rig, cgroup)
    killed = rig.start("--cgroup", str(cgroup), "--no-learn")
    stream.begin()
    before = rig.counts()
    assert before["spliced_bytes"] > 0
    killed.stop(signal.SIGKILL)
    stream.end()
    after = rig.counts()
    assert after["spliced_bytes"] > before["spliced_bytes"]  # as before, with nobody there
    # Nobody counts any more what a sender sends that was taken out before.
    assert after["taken_out"] or after["spliced_bytes"] + after["stack_bytes"] == 64 << 20
    stream.begin(2)
    accelerate = rig.start("--cgroup", str(cgroup), "--no-learn")
    left = f"taken over: splicing in cgroup {cgroup}, left by process {killed.process.pid}\n"
    assert left in accelerate.said and attached(cgroup) == ["on_socket"]
    stream.end()
    stream.begin(2)
    assert rig.connections()[0]["client"]["sent"]["spliced"] > 0
    stream.end()
    assert accelerate.stop() == 0


def test_the_next_start_may_come_in_the_middle_of_a_stream(rig: Rig) -> None:
    cgroup = rig.cgroup()
    stream = Stream(rig, cgroup)
    killed = rig.start("--cgroup", str(cgroup), "--no-learn")
    stream.begin()
    killed.stop(signal.SIGKILL)
    rig.start("--cgroup", str(cgroup), "--no-learn")
    stream.end()


def test_what_is_opened_after_kill_9_takes_the_stack(rig: Rig) -> None:
    """With the process the map of sockets has lost its programs; without them, FIONREAD would say 0 for ever."""
    cgroup = rig.cgroup()
    agent, listener = pair(rig, cgroup)
    rig.start("--cgroup", str(cgroup), "--no-learn").stop(signal.SIGKILL)
    with agent.connect(listener) as near, accepted(listener) as far:
        near.sendall(b"hello")
        wait(lambda: struct.unpack("i", fcntl.ioctl(far, termios.FIONREAD, bytes(4)))[0] == 5)
        assert far.recv(100) == b"hello"
        exchange(near, far)
        shown = rig.connections()[0]["detail"]
        assert shown == "stack: the process that watches how programs read is gone"


def test_what_is_left_alone_after_kill_9_takes_no_place(rig: Rig) -> None:
    """The tracepoints, which see the end of such pairs, have gone with the process; that is noticed a little later."""
    cgroup = rig.cgroup()
    agent, listener = pair(rig, cgroup)
    rig.start("--cgroup", str(cgroup)).stop(signal.SIGKILL)

    def one_goes_again() -> bool:
        before = len(rig.connections())
        with agent.connect(listener) as near, accepted(listener) as far:
            exchange(near, far)
            assert len(rig.connections()) == before + 1
        return len(rig.connections()) == before

    wait(one_goes_again)


def test_cleanup_detaches_what_a_killed_one_left(rig: Rig) -> None:
    cgroup, other = rig.cgroup(), rig.cgroup("b")
    stream = Stream(rig, cgroup)
    killed = rig.start("--cgroup", str(cgroup), "--cgroup", str(other), "--no-learn")
    stream.begin()
    lives = rig.l7proxy("cleanup", "--state-dir", str(rig.state_dir))
    assert lives.stdout == f"process {killed.process.pid} lives and splices: left alone\n" * 2
    assert attached(cgroup) == attached(other) == ["on_socket"]
    killed.stop(signal.SIGKILL)
    assert attached(cgroup) == attached(other) == ["on_socket"]
    done = rig.l7proxy("cleanup", "--state-dir", str(rig.state_dir))
    lines = {f"splicing in cgroup {path}, left by process {killed.process.pid}" for path in (cgroup, other)}
    assert done.returncode == 0 and set(done.stdout.splitlines()) == lines
    assert attached(cgroup) == attached(other) == []
    stream.end()
    again = rig.l7proxy("cleanup", "--state-dir", str(rig.state_dir))
    assert again.stdout == "nothing was left on this node\n"
    status = rig.l7proxy("status", "--connections", "--state-dir", str(rig.state_dir))
    assert status.returncode == 1 and "nothing splices here" in status.stdout


def test_with_the_last_socket_the_programs_of_a_killed_one_go(rig: Rig) -> None:
    cgroup = rig.cgroup()
    agent, listener = pair(rig, cgroup)
    killed = rig.start("--cgroup", str(cgroup), "--no-learn")
    with agent.connect(listener) as near, accepted(listener) as far:
        exchange(near, far)
        ids = programs(killed)
        assert len(ids) >= 4
        killed.stop(signal.SIGKILL)
        rig.l7proxy("cleanup", "--state-dir", str(rig.state_dir))
        exchange(near, far)
    wait(lambda: not ids & set(bpf_programs()))


def programs(accelerate: Accelerate) -> set[int]:
    """Ids of the programs that a process holds."""
    found = set()
    for info in Path(f"/proc/{accelerate.process.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it opens and closes others meanwhile
            found |= {int(line.split()[1]) for line in info.read_text().splitlines() if line.startswith("prog_id:")}
    return found


def bpf_programs() -> list[int]:
    """Ids of all programs of the kernel."""
    return [one["id"] for one in json.loads(netns.run(["bpftool", "-j", "prog", "show"]).stdout)]


def test_a_cgroup_that_goes_away_is_no_trouble(rig: Rig) -> None:
    cgroup, other = rig.cgroup(), rig.cgroup("b")
    accelerate = rig.start("--cgroup", str(cgroup), "--cgroup", str(other))
    other.rmdir()
    assert accelerate.stop() == 0
    killed = rig.start("--cgroup", str(cgroup))
    killed.stop(signal.SIGKILL)
    cgroup.rmdir()
    done = rig.l7proxy("cleanup", "--state-dir", str(rig.state_dir))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in rig.state_dir.iterdir()} == {"lock"}  # of cleanup itself


# -- where it refuses ---------------------------------------------------------------------------------------------


def refused(rig: Rig, *flags: str, argv: Any = ()) -> str:
    """What it says, with exit code 1 and nothing attached."""
    done = rig.l7proxy("accelerate", "--state-dir", str(rig.state_dir), *flags, argv=argv)
    assert (done.returncode, done.stdout) == (1, ""), done
    return done.stderr.removeprefix("l7proxy accelerate: ").rstrip("\n")


def test_a_second_one_on_a_cgroup_is_refused(rig: Rig) -> None:
    cgroup, other = rig.cgroup(), rig.cgroup("b")
    first = rig.start("--cgroup", str(cgroup))
    expected = f"another l7proxy (process {first.process.pid}) splices in cgroup {cgroup} already"
    assert refused(rig, "--cgroup", str(other), "--cgroup", str(cgroup)) == expected
    assert attached(other) == [] and attached(cgroup) == ["on_socket"]
    # Its state is elsewhere: nobody can know whether it lives.
    elsewhere = refused(rig, "--cgroup", str(cgroup), "--state-dir", str(rig.folder / "elsewhere"))
    assert elsewhere.startswith(f"cgroup {cgroup} has a program of another l7proxy, whose state is not in ")
    second = rig.start("--cgroup", str(other))
    assert first.stop() == second.stop() == 0


def test_a_claim_is_kept_while_its_owner_gives_it_up(rig: Rig) -> None:
    cgroup = rig.cgroup()
    first = Claim(rig.state_dir, cgroup)
    with pytest.raises(DatapathError, match="another l7proxy"):
        Claim(rig.state_dir, cgroup)
    first.close()
    Claim(rig.state_dir, cgroup).close()


def test_a_claim_that_comes_to_nothing_leaves_what_a_killed_one_has_left_to_the_next(rig: Rig) -> None:
    cgroup = rig.cgroup()
    rig.start("--cgroup", str(cgroup)).stop(signal.SIGKILL)
    Claim(rig.state_dir, cgroup).close()
    assert "taken over: splicing in cgroup" in rig.start("--cgroup", str(cgroup)).said


def test_who_looks_is_in_nobodys_way(rig: Rig) -> None:
    """`status` takes the lock of a killed one for a moment."""
    cgroup = rig.cgroup()
    rig.start("--cgroup", str(cgroup)).stop(signal.SIGKILL)
    with next(rig.state_dir.iterdir()).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        claimed: list[Claim] = []
        thread = threading.Thread(target=lambda: claimed.append(Claim(rig.state_dir, cgroup)))
        thread.start()
        time.sleep(0.2)
        assert not claimed and thread.is_alive()
    thread.join(10)
    assert claimed[0].take_over() and attached(cgroup) == []
    claimed[0].close()


def test_no_cgroup2_and_no_such_cgroup(rig: Rig) -> None:
    namespace = rig.namespace("x")
    hidden = refused(rig, "--cgroup", "/", argv=["ip", "netns", "exec", namespace])
    assert hidden.startswith("no cgroup2 hierarchy is mounted")
    root = cgroups.cgroup_root()
    assert refused(rig, "--cgroup", "no/such") == f"there is no cgroup no/such below {root}"


def test_a_failed_self_test_is_a_reason(rig: Rig, tmp_path: Path) -> None:
    cgroup = rig.cgroup()
    code = f"""
import sys
from sockmap import selftest
selftest.run = lambda splicer: selftest.Report((), (), ("FIONREAD says 0", "order"))
from l7proxy.cli import main
sys.exit(main(["accelerate", "--cgroup", {str(cgroup)!r}, "--state-dir", {str(rig.state_dir)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    reason = "the self-test of splicing fails on this kernel: FIONREAD says 0; order"
    assert (done.returncode, done.stderr) == (1, f"l7proxy accelerate: {reason}\n")
    assert attached(cgroup) == [] and not list(rig.state_dir.iterdir())


# -- others' programs ---------------------------------------------------------------------------------------------


def test_others_programs_before_and_after_work_on(rig: Rig) -> None:
    cgroup = rig.cgroup()
    agent, listener = pair(rig, cgroup)
    with counting(cgroup, "before") as before:
        accelerate = rig.start("--cgroup", str(cgroup), "--no-learn")
        with counting(cgroup, "after") as after:
            assert attached(cgroup) == ["count_before", "on_socket", "count_after"]
            for _ in range(3):
                talk(agent, listener)
            assert (before(), after()) == (3, 3)
            assert rig.counts()["spliced_bytes"] == 3 * 8000
            assert accelerate.stop() == 0
            assert attached(cgroup) == ["count_before", "count_after"]
            talk(agent, listener)
            assert (before(), after()) == (4, 4)


@pytest.mark.parametrize(("flags", "above"), [(0, False), (1, False), (0, True), (1, True)])
def test_a_program_that_excludes_others_is_named(rig: Rig, flags: int, above: bool) -> None:
    top = rig.cgroup()
    cgroup = rig.cgroup("a/below") if above else top
    with counting(top, "alone", flags) as seen:
        reason = refused(rig, "--cgroup", str(cgroup))
        assert reason.startswith(f"cgroup {top} has the sock_ops program count_alone (id ")
        # One below an overridable program would be put in its place there.
        harm = ", which one attached below it would turn off" if (flags, above) == (1, True) else ""
        assert reason.endswith(harm or ", attached so that it excludes others")
        agent, listener = pair(rig, cgroup)
        talk(agent, listener)
        assert seen() == 1
