"""The layout of sidecars does what it says, with nothing accelerated: else what is measured in it means nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import netns
from tests.splice import accelerated
from tests.splice.sidecars import APP, KINDS, LOOPBACK, PLAIN, SIZES, USER, Sidecars

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def layout() -> Iterator[Sidecars]:
    with Sidecars() as made:
        yield made


@pytest.fixture(params=KINDS)
def started(layout: Sidecars, request: pytest.FixtureRequest) -> Iterator[Sidecars]:
    layout.start(request.param)
    yield layout
    layout.stop()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def get(layout: Sidecars, path: str, *words: str, port: int = APP) -> str:
    """The SHA-256 of the body; AssertionError if the status is none of 2xx."""
    file = layout.lab.folder / "got"
    layout.run(["curl", "-sS", "-f", "--max-time", "60", "-o", str(file), *words, layout.url(path, port=port)])
    return digest(file)


@pytest.mark.parametrize("size", SIZES)
def test_every_body_comes_through_both_sidecars_as_it_is(started: Sidecars, size: int) -> None:
    assert get(started, f"/body/{size}") == digest(started.body(size))
    assert started.body(size).stat().st_size == size
    assert started.seen() == [[LOOPBACK, "GET", f"/body/{size}", "200", str(size)]]


def test_every_connection_is_redirected_to_both_sidecars(started: Sidecars) -> None:
    for _ in range(3):
        get(started, "/body/64")
    with suppress(AssertionError):  # Envoy keeps lines until it ends, HAProxy has none of what it was stopped in
        started.lab.wait(lambda: all(len(started.traffic(name)) == 3 for name in ("a", "b")), 3)
    started.stop()
    for name in ("a", "b"):
        lines = [json.loads(line) for line in started.traffic(name)]
        assert len(lines) == 3
        place = started.places[name]
        assert {line["upstream"] for line in lines} == {f"{place.upstream[0]}:{place.upstream[1]}"}


def test_envoy_is_told_where_the_connection_was_going_to(layout: Sidecars) -> None:
    layout.start("envoy")
    get(layout, "/body/64")
    layout.stop()
    for name in ("a", "b"):
        assert [json.loads(line)["listen"] for line in layout.traffic(name)] == [f"{layout.b.v4}:{APP}"]


def test_the_plain_port_goes_past_the_sidecars(started: Sidecars) -> None:
    assert get(started, "/body/1024", port=PLAIN) == digest(started.body(1024))
    assert started.seen() == [[started.a.v4, "GET", "/body/1024", "200", "1024"]]
    assert started.traffic("a") == started.traffic("b") == []


def test_a_large_body_goes_up_as_it_is(layout: Sidecars) -> None:
    server = layout.echo()
    sent = layout.body(SIZES[-1])
    for kind in KINDS:
        server.forget()
        layout.start(kind)
        get(layout, "/echo", "-X", "POST", "-H", "Expect:", "-T", str(sent))
        layout.lab.wait(server.requests, what=f"the request through {kind}")
        assert [request["sha256"] for request in server.requests()] == [digest(sent)], kind
        layout.stop()


def test_each_process_is_in_the_cgroup_of_its_part(started: Sidecars) -> None:
    for name in ("a-sidecar", "b-sidecar", "b-app"):
        pids = (started.cgroups[name] / "cgroup.procs").read_text().split()
        namespace = started.a.ns if name.startswith("a") else started.b.ns
        assert pids and set(map(int, pids)) <= set(netns.members(namespace)), name
        users = {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
        assert users == ({0} if name == "b-app" else {USER})
    before = started.cpu_seconds()
    get(started, f"/body/{SIZES[-1]}")
    assert started.cpu_seconds() > before


def test_nothing_is_left_behind() -> None:
    with Sidecars() as made:
        made.start("nginx")
        made.run(["curl", "-sS", "-o", "/dev/null", made.url("/body/64")])
        pids = [pid for pod in (made.a, made.b) for pid in netns.members(pod.ns)]
        names = [made.a.ns, made.b.ns, made.lab.node_ns]
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(Path("/run/netns", name).exists() for name in names)
    assert not any(path.exists() for path in [made.lab.folder, *made.cgroups.values()])


FAKE = """#!/bin/sh
[ "$2" = --help ] && exit 0
echo $$ "$@" >"$0.ran"
trap 'echo ended >>"$0.ran"; exit 0' TERM
[ -e "$0.fails" ] && { echo "no such luck" >&2; exit 3; }
echo "accelerate: ready"
while :; do sleep 0.05; done
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for the command l7proxy."""
    command = tmp_path / "l7proxy"
    command.write_text(FAKE)
    command.chmod(0o755)
    monkeypatch.setattr(accelerated, "COMMAND", str(command))
    accelerated.available.cache_clear()
    yield command
    accelerated.available.cache_clear()


def test_the_accelerator_runs_while_it_is_wanted_and_no_longer(fake: Path) -> None:
    ran = fake.with_suffix(".ran")
    with accelerated.accelerated(False, [Path("/a")]) as on:
        assert not on and not ran.exists()
    with accelerated.accelerated(True, [Path("/a"), Path("/b")]) as on:
        pid, *words = ran.read_text().split()
        assert on and words == ["accelerate", "--anywhere", "--cgroup", "/a", "--cgroup", "/b"]
    assert ran.read_text().splitlines()[1:] == ["ended"] and not Path("/proc", pid).exists()


def test_an_accelerator_that_does_not_start_or_last_is_an_error(fake: Path) -> None:
    with pytest.raises(AssertionError, match="status -9"), accelerated.accelerated(True, []):
        pid = int(fake.with_suffix(".ran").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    fake.with_suffix(".fails").touch()
    with pytest.raises(AssertionError, match=r"status 3:\s+no such luck"), accelerated.accelerated(True, []):
        pass


def test_without_the_command_nothing_is_accelerated(fake: Path) -> None:
    fake.write_text("#!/bin/sh\nexit 2\n")
    with accelerated.accelerated(True, []) as on:
        assert not on
