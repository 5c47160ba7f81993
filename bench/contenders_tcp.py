"""The contenders in front of a real server of a protocol that the others only carry; all but one share that server,
each with a client of its own.

What l7proxy enforces is the egress of its clients: those of the others are not in its way.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from bench import envoy
from bench.contenders import LARGE, Contender, Road, colon, envoy_command, fill, proxy
from bench.suite import FEW, MANY, Turns
from tests.lab import GATEWAY4, Lab, Pod

Rules: TypeAlias = Callable[[int], dict[str, Any]]
"""L7 rules of a policy, as many; of which the last ones are those that the load meets."""
_COUNTS = {"l7proxy": FEW, "many": MANY}


@dataclass
class Place:
    """A lab with a server in it, which listens at `address`."""

    lab: Lab
    server: Pod
    address: tuple[str, int]

    def road(self, client: str) -> Road:
        """To the server, from a client of this name."""
        pod = self.lab.pods.get(client) or self.lab.pod(client)
        return Road("pods", self.lab, pod.ns, self.server.ns, self.address, GATEWAY4)


@contextmanager
def contenders(
    place: Callable[[], AbstractContextManager[Place]],
    rules: Rules,
    bulk: tuple[str, ...],
    arguments: argparse.Namespace,
    wanted: set[str],
) -> Iterator[Turns]:
    """Everybody, started. `bulk`: the phases for which there is an HAProxy with large buffers."""
    found: Turns = []
    with ExitStack() as stack:
        counts = [count for name, count in _COUNTS.items() if name in wanted]
        if counts or wanted & {"direct", "haproxy", "envoy"}:
            at = stack.enter_context(place())
            found += [(direct(at), ())] if "direct" in wanted else []
            if "haproxy" in wanted:
                found += [(_haproxy(at), ()), (_haproxy(at, large=True), bulk)]
            found += [(_envoy(at), ())] if "envoy" in wanted else []
            if counts:
                found += [(one, ()) for one in _l7proxy(at, counts, arguments.workers, rules)]
        if "spliced" in wanted:
            at = stack.enter_context(place())
            spliced = _l7proxy(at, [FEW], arguments.workers, rules, "l7proxy, spliced", splice=True)
            found += [(one, ()) for one in spliced]
        yield found


def direct(at: Place) -> Contender:
    """No proxy."""
    return Contender("direct", at.road("plain"), at.address)


def _haproxy(at: Place, *, large: bool = False) -> Contender:
    """HAProxy, one thread, as a proxy of TCP."""
    road, port = at.road("plain"), 9002 if large else 9001
    values = {"LISTEN": colon((GATEWAY4, port)), "BUFFERS": "  tune.bufsize 262144" if large else ""}
    config = fill("haproxy-tcp.cfg", road, f"haproxy-{port}", values)
    return _short(proxy("HAProxy, TCP" + LARGE * large, road, ["haproxy", "-db", "-f", str(config)], port))


def _envoy(at: Place) -> Contender:
    """Envoy, one worker thread, as a proxy of TCP."""
    road, port = at.road("plain"), 9003
    config = at.lab.folder / "envoy-tcp.json"
    config.write_text(envoy.tcp((GATEWAY4, port), road.backend, str(at.lab.folder / "envoy-tcp.log")))
    return _short(proxy("Envoy, TCP", road, envoy_command(config), port))


def _l7proxy(
    at: Place, counts: Sequence[int], workers: int, rules: Rules, name: str = "l7proxy", *, splice: bool = False
) -> list[Contender]:
    """One l7proxy, in the way of a client for each number of rules."""
    roads = [at.road(f"rules{count}") for count in counts]
    policies = [_policy(f"rules{count}", rules(count), at.address[1]) for count in counts]
    pods = [at.server, *(at.lab.pods[f"rules{count}"] for count in counts)]
    text = yaml.dump_all(policies, Dumper=yaml.CSafeDumper, sort_keys=False)
    node = at.lab.start_l7proxy(
        text, timeout=180, workers=workers, endpoints=[pod.endpoint() for pod in pods], splice=splice
    )
    titles = [name if count == FEW else f"{name}, {count:,} rules" for count in counts]
    return [Contender(title, road, road.backend, node.running, node) for title, road in zip(titles, roads, strict=True)]


def _policy(client: str, rules: dict[str, Any], port: int) -> dict[str, Any]:
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}], "rules": rules}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": client},
        "spec": {"endpointSelector": {"matchLabels": {"app": client}}, "egress": [{"toPorts": ports}]},
    }


def _short(found: Contender) -> Contender:
    """All stand at the same place, so that it need not be said."""
    found.name = found.name.removesuffix(f" ({found.road.name})")
    return found
