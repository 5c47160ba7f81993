"""`status --connections`, and splicing inside `l7proxy run`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accelerate.rig import Rig, accepted, attached, exchange, talk, wait
from tests.lab import Lab

pytestmark = pytest.mark.privileged


def test_each_connection_shows_which_path_its_bytes_took(rig: Rig) -> None:
    cgroup = rig.cgroup()
    client, server = rig.agent(cgroup, "client"), rig.agent(cgroup, "server")
    listener = server.listen("::1")
    accelerate = rig.start("--cgroup", str(cgroup))
    with client.connect(listener) as near, accepted(listener) as far:
        exchange(near, far)  # the first: by the stack
        with client.connect(listener) as near2, accepted(listener) as far2:
            exchange(near2, far2, times=40, size=1024)
            near2.sendall(b"x" * 24)
            done = rig.l7proxy("status", "--connections", "--state-dir", str(rig.state_dir))
            ends = [[f"[::1]:{one.getsockname()[1]}" for one in both] for both in ((near, far), (near2, far2))]
    lines = done.stdout.splitlines()
    assert lines[0] == f"process {accelerate.process.pid}, cgroup {cgroup}"
    rows = [re.split(r"  +", line) for line in lines if line.startswith("client ")]
    assert [[*row[:2], *row[3:]] for row in rows] == [
        [f"client {ends[0][0]}", f"server {ends[0][1]}", "0 B", "3.9 KiB", "0 B", "3.9 KiB", "0",
         "stack: its program's way of reading is not known yet"],
        [f"client {ends[1][0]}", f"server {ends[1][1]}", "40.0 KiB", "0 B", "40.0 KiB", "0 B", "2", "spliced"],
    ]  # fmt: skip
    assert any(re.fullmatch(r" +bytes spliced +81,944", line) for line in lines), done.stdout


def test_two_that_splice_are_both_shown(rig: Rig) -> None:
    one, two = rig.cgroup(), rig.cgroup("b")
    rig.start("--cgroup", str(one), "--no-learn")
    rig.start("--cgroup", str(two), "--no-learn")
    agents = [rig.agent(one), rig.agent(two)]
    for agent in agents:
        talk(agent, agent.listen())
    done = rig.l7proxy("status", "--connections", "--json", "--state-dir", str(rig.state_dir))
    shown = json.loads(done.stdout)
    assert {place for one in shown for place in one["cgroups"]} == {str(one), str(two)}
    assert [each["counts"]["paired"] for each in shown] == [1, 1]


def test_real_programs_with_a_real_stream(rig: Rig) -> None:
    """curl, and a server that was there before: learnt, then spliced."""
    cgroup = rig.cgroup()
    (rig.folder / "body").write_bytes(b"l7proxy" * 300_000)
    code = (
        "import asyncio, pathlib; body = pathlib.Path('body').read_bytes()\n"
        "async def answer(reader, writer):\n"
        "    await reader.readuntil(b'\\r\\n\\r\\n')\n"
        "    writer.write(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)\n"
        "    await writer.drain(); writer.close()\n"
        "async def main():\n"
        "    server = await asyncio.start_server(answer, '127.0.0.1', 0)\n"
        "    print(server.sockets[0].getsockname()[1], flush=True); await server.serve_forever()\n"
        "asyncio.run(main())"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "cwd": rig.folder}
    server = rig.popen([sys.executable, "-c", code], cgroup, **options)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}/body"
    accelerate = rig.start("--cgroup", str(cgroup))
    for number in range(3):
        target = rig.folder / f"got-{number}"
        with target.open("wb") as output:  # the same words each time: by them programs are known
            assert rig.popen(["curl", "-s", url], cgroup, stdout=output).wait(20) == 0
        assert target.read_bytes() == (rig.folder / "body").read_bytes()
        wait(lambda seen=number + 1: rig.counts()["ended"] == seen)  # type: ignore[misc]  # to mypy a lambda's parameter has no type
    counts = rig.counts()
    # The first by the stack; of the others what its reader was not too slow for.
    assert 2_100_000 < counts["left_bytes"] < 2_110_000, counts
    assert 4_200_000 < counts["spliced_bytes"] + counts["stack_bytes"] < 4_220_000 and counts["spliced_bytes"] > 0
    assert accelerate.stop() == 0


# -- inside `run` -------------------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A node."""
    with Lab() as made:
        yield made


def test_run_splices_and_counts(rig: Rig, lab: Lab) -> None:
    cgroup = rig.cgroup()
    node = lab.start_l7proxy("", endpoints=[], accelerate={"cgroup": str(cgroup), "learn": False, "anywhere": True})
    wait(lambda: "accelerate: ready" in node.output.read_text())
    agent = rig.agent(cgroup, namespace=lab.node_ns)
    listener = agent.listen()
    with agent.connect(listener) as near, accepted(listener) as far:
        exchange(near, far)
        state = lab.folder / "state"
        done = rig.l7proxy("status", "--connections", "--json", "--state-dir", str(state))
        assert json.loads(done.stdout)[0]["connections"][0]["path"] == "spliced"
    status = node.status()["accelerate"]
    assert (status["on"], status["spliced_bytes"], status["paired"]) == (True, 8000, 1)
    metrics = node.admin("/metrics")[1].splitlines()
    assert "l7proxy_accelerate_up 1.0" in metrics
    assert 'l7proxy_splice_bytes_total{path="spliced"} 8000.0' in metrics
    assert 'l7proxy_splice_bytes_total{path="stack"} 0.0' in metrics
    assert 'l7proxy_splice_refusals_total{reason="out of scope"} 0.0' in metrics
    assert node.stop() == 0
    assert attached(cgroup) == []


def test_run_goes_on_where_nothing_can_be_spliced(lab: Lab) -> None:
    node = lab.start_l7proxy("", endpoints=[], accelerate={"cgroup": "no/such"})
    wait(lambda: "nothing is spliced: there is no cgroup no/such" in node.output.read_text())
    status = node.status()
    assert status["ready"] and not status["accelerate"]["on"]
    assert status["accelerate"]["detail"].startswith("there is no cgroup no/such below ")
    assert "l7proxy_accelerate_up 0.0" in node.admin("/metrics")[1].splitlines()
    assert node.stop() == 0


def test_cleanup_after_a_killed_run(rig: Rig, lab: Lab) -> None:
    cgroup = rig.cgroup()
    node = lab.start_l7proxy("", endpoints=[], accelerate={"cgroup": str(cgroup)})
    wait(lambda: "accelerate: ready" in node.output.read_text())
    node.kill9()
    assert attached(cgroup) == ["on_socket"]
    done = node.cleanup()
    assert done.returncode == 0 and f"splicing in cgroup {cgroup}, left by process " in done.stdout
    assert attached(cgroup) == []


def test_status_without_anything(tmp_path: Path, rig: Rig) -> None:
    done = rig.l7proxy("status", "--connections", "--state-dir", str(tmp_path / "none"))
    assert done.returncode == 1 and "nothing splices here" in done.stdout
