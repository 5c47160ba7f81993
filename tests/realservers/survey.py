"""Many streams at many servers at once, and what the servers ran of each."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from tests.realservers.farm import Farm, Ran, RealServer
from tests.realservers.rig import QUIET, Played, Talk, play
from tests.realservers.stream import Vector

AT_ONCE = 96
"""Streams in flight; more than a server has threads only makes it wait."""
_SETTLED = 0.6
_TAG = re.compile(r"t[0-9a-f]{7}")
_serial = itertools.count(1)
HOSTS = ("a", "a:80", "")
"""Hosts that the policy allows, and a request without one."""


@dataclass
class Outcome:
    """One stream at one server: what was played, and what the server ran because of it."""

    vector: Vector
    server: str
    played: Played
    ran: list[Ran]

    def hidden(self) -> list[Ran]:
        """What ran although no policy would allow it: another path, another host, another method."""
        return [one for one in self.ran if not is_public(one)]

    def unjudged(self) -> list[Ran]:
        """What ran and is not, in this order, among the requests that were judged and allowed."""
        judged = iter([(method, canonical(target)) for method, target in self.played.allowed()])
        ran = self.ran
        if b"upgrade: h2c" in b"".join(self.vector.parts).lower():
            # A server that takes it may write a line for its 101 and another for the answer to the same request.
            ran = list({(one.method, one.target): one for one in ran}.values())
        return [one for one in ran if (one.method, canonical(one.target)) not in judged]


def is_public(ran: Ran) -> bool:
    """Whether the policy of these tests allows it."""
    absolute = re.match(r"(?i)https?://([^/]*)(/.*)", ran.path)  # some servers leave the absolute form as it is
    authority, path = absolute.groups() if absolute else (ran.host, ran.path)
    return ran.method in ("GET", "POST", "HEAD") and path.startswith("/public/") and {ran.host, authority} <= set(HOSTS)


def canonical(target: str) -> str:
    """The path of a target, decoded once, in the way that all journals can agree on."""
    target = re.sub(r"\\x([0-9a-fA-F]{2})", r"%\1", target)
    target = re.sub(r"^[A-Za-z]+://[^/?#]*", "", target)
    return unquote(target.partition("?")[0], "latin-1")


def survey(
    farm: Farm,
    vectors: Iterable[Vector],
    talk: Callable[[], Talk],
    *,
    servers: Iterable[str] = (),
    cuts: tuple[int, ...] = (0,),
    quiet: float = QUIET,
) -> list[Outcome]:
    """Play every vector at every server, in pieces of every size of `cuts`, and gather the journals."""
    chosen = [farm.servers[name] for name in servers] or list(farm.servers.values())
    jobs = [(v, s, f"t{next(_serial):07x}", cut) for v in vectors for s in chosen for cut in cuts]
    played = asyncio.run(_play_all(jobs, talk, quiet))
    ran = _gather(chosen)
    return [Outcome(v, s.kind, one, ran[s.kind, tag]) for (v, s, tag, _), one in zip(jobs, played, strict=True)]


_Job = tuple[Vector, RealServer, str, int]


async def _play_all(jobs: list[_Job], talk: Callable[[], Talk], quiet: float) -> list[Played]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(job: _Job) -> Played:
        vector, server, tag, cut = job
        async with gate:
            return await play(server.address, vector.tagged(tag.encode()), talk(), cut=cut, quiet=quiet)

    return await asyncio.gather(*(one(job) for job in jobs))


def _gather(servers: Iterable[RealServer]) -> dict[tuple[str, str], list[Ran]]:
    """Journals by (server, tag), read once nothing has been added for a while."""
    before, since = -1, time.monotonic()
    while time.monotonic() < since + _SETTLED:
        size = sum(server.place.journal.stat().st_size for server in servers)
        if size != before:
            before, since = size, time.monotonic()
        time.sleep(0.05)
    found: dict[tuple[str, str], list[Ran]] = defaultdict(list)
    for server in servers:
        for tag, ran in _tagged(server):
            found[server.kind, tag].append(ran)
    return found


def _tagged(server: RealServer) -> Iterator[tuple[str, Ran]]:
    for ran in server.ran():
        match = _TAG.search(ran.target + ran.path)
        if match:
            yield match[0], ran
