"""Other people's sidecars with `l7proxy accelerate` beside them: right bytes, and every hop spliced that can be.

The first connections teach how each program reads. A fresh accelerator for each kind: two kinds are one program.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sockmap.cgroups import cgroup_id
from sockmap.splice_state import records
from sockmap.splice_tables import Tables
from tests.lab import Lab, Server
from tests.splice.accelerated import accelerated
from tests.splice.sidecars import APP, KINDS, Sidecars

pytestmark = pytest.mark.privileged
STATE = Path("/run/l7proxy")
LARGE, SMALL = 64 << 20, 16 << 10
SPLICES_ITSELF = "haproxy-splice"
"""It moves bytes with splice(2) where it sees fit, and by recv where that gives nothing: left alone or not."""
ROUNDS = 6
"""Between the pods segments are lost where a reader is slow. Sent again with some that have come before, they once came
to the reader twice: in one of three bodies through nginx."""
HOPS = [("a-app", "a-sidecar"), ("a-sidecar", "b-sidecar"), ("b-sidecar", "b-app")]


@pytest.fixture(scope="module")
def layout() -> Iterator[Sidecars]:
    with Sidecars() as made:
        yield made


@pytest.fixture(scope="module")
def echo(layout: Sidecars) -> Server:
    return layout.echo()


@dataclass(frozen=True)
class Mesh:
    """A kind of sidecars that runs, and what its accelerator has counted."""

    kind: str
    layout: Sidecars
    tables: Tables

    def get(self, path: str, *words: str) -> bytes:
        """The body. Raises AssertionError if the status is none of 2xx."""
        file = self.layout.lab.folder / "got"
        self.layout.run(["curl", "-sS", "-f", "--max-time", "30", "-o", str(file), *words, self.layout.url(path)])
        return file.read_bytes()

    def hops(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Bytes spliced, and by the stack, by the cgroups of client and server; of connections to the app's port."""
        names = {cgroup_id(path): name for name, path in self.layout.cgroups.items()}
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for talkers, talk in self.tables.talks().items():
            hop = names[talkers.client_cgroup], names[talkers.server_cgroup]
            if talkers.port == APP:
                before = found.get(hop, (0, 0))
                found[hop] = before[0] + talk.spliced, before[1] + talk.stack
        return found


@pytest.fixture(scope="module", params=KINDS)
def mesh(layout: Sidecars, echo: Server, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """Its programs are known by now: some connections have ended."""
    cgroups = list(layout.cgroups.values())
    with accelerated(True, cgroups) as on:
        assert on
        layout.start(request.param)
        try:
            (record,) = [record for record, lives in records(STATE) if lives and record.cgroup == str(cgroups[0])]
            with record.tables() as tables:
                made = Mesh(request.param, layout, tables)
                for _ in range(5):
                    assert made.get(f"/body/{SMALL}") == layout.body(SMALL).read_bytes()
                made.get(f"/body/{1 << 20}")
                yield made
        finally:
            layout.stop()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_large_bodies_go_both_ways_as_they_are(mesh: Mesh, echo: Server) -> None:
    sent = mesh.layout.body(LARGE)
    due = digest(sent.read_bytes())
    for _ in range(ROUNDS):
        assert digest(mesh.get(f"/body/{LARGE}")) == due
    echo.forget()
    mesh.get("/echo", "-X", "POST", "-H", "Expect:", "-T", str(sent))
    Lab.wait(echo.requests, what="the request at the server")
    assert [request["sha256"] for request in echo.requests()] == [due]


def test_load_has_no_errors(mesh: Mesh) -> None:
    said = mesh.layout.run(["wrk", "-t1", "-c32", "-d1s", mesh.layout.url(f"/body/{SMALL}")])
    found = re.search(r"(\d+) requests in", said)
    assert found and int(found[1]) > 100, said
    assert "Socket errors" not in said and "Non-2xx" not in said, said


def test_every_hop_is_spliced(mesh: Mesh) -> None:
    """The client and its sidecar, the sidecars, the other one and the app: two of them are REDIRECTed."""
    for _ in range(3):
        assert mesh.get(f"/body/{1 << 20}") == mesh.layout.body(1 << 20).read_bytes()
    hops = mesh.hops()
    assert sorted(hops) == sorted(HOPS)
    spliced = {hop: bytes_[0] for hop, bytes_ in hops.items()}
    if mesh.kind != SPLICES_ITSELF:
        assert all(count > 1 << 20 for count in spliced.values()), hops
