"""Short ways to write policy files in tests, and the people they are about."""

from __future__ import annotations

import textwrap
from ipaddress import ip_network

from policies.decision import L4Decision, L4Kind
from policies.document import DocumentError
from policies.identity import Identity, cidr, reserved, workload
from policies.load import load_text
from policies.model import Policy, TrafficDirection
from policies.resolve import Resolver

INGRESS, EGRESS = TrafficDirection.INGRESS, TrafficDirection.EGRESS

API = workload(256, {"app": "api"}, {"http": 80, "admin": 9000})
WEB = workload(257, {"app": "web", "env": "prod"})
BATCH = workload(258, {"app": "batch"})
ABROAD = workload(259, {"app": "web", "env": "prod", "io.kubernetes.pod.namespace": "other"}, {"http": 8081})
HOST, WORLD, NODE, APISERVER = (reserved(name) for name in ("host", "world", "remote-node", "kube-apiserver"))
OFFICE = cidr(32768, ip_network("10.0.0.0/8"))
DESK = cidr(32769, ip_network("10.1.2.3/32"))
OFFICE6 = cidr(32770, ip_network("2001:db8::/32"))
EVERYBODY = (API, WEB, BATCH, ABROAD, HOST, WORLD, NODE, APISERVER, OFFICE, DESK, OFFICE6)

ALLOW, DENY, PROXY = L4Kind.ALLOW, L4Kind.DENY, L4Kind.PROXY
TCP80 = "ports: [{port: '80', protocol: TCP}]"


def document(spec: str, *, name: str = "p", namespace: str | None = None, notes: str = "", wide: bool = False) -> str:
    """A policy object around a spec; `notes` are annotations, `wide` makes it clusterwide."""
    kind = "CiliumClusterwideNetworkPolicy" if wide else "CiliumNetworkPolicy"
    lines = [f"kind: {kind}", "apiVersion: cilium.io/v2", "metadata:", f"  name: {name}"]
    if namespace is not None:
        lines.append(f"  namespace: {namespace}")
    if notes:
        lines += ["  annotations:", textwrap.indent(textwrap.dedent(notes).strip(), "    ")]
    return "\n".join([*lines, "spec:", textwrap.indent(textwrap.dedent(spec).strip(), "  "), ""])


def load(*texts: str) -> list[Policy]:
    """The policies of some documents, as one file ``p.yaml``."""
    return load_text("---\n".join(texts), "p.yaml")


def api(rules: str, **more: bool | str) -> str:
    """A policy that selects the API in namespace default."""
    selector = "endpointSelector: {matchLabels: {app: api}}\n"
    return document(selector + textwrap.dedent(rules).strip(), **more)  # type: ignore[arg-type]


def resolver(*texts: str, **options: bool) -> Resolver:
    return Resolver(load(*texts), **options)


def to_api(found: Resolver, peer: Identity, port: int = 80, protocol: str = "TCP") -> L4Decision:
    """The word on a flow from a peer to the API."""
    return found.decide(INGRESS, API, peer, protocol, port, API)


def complaints(text: str) -> list[str]:
    """What a faulty file is told, each as ``line:key: message``; a file without faults fails the test."""
    try:
        load_text(text, "p.yaml")
    except DocumentError as error:
        assert all(problem.file == "p.yaml" and problem.severity == "error" for problem in error.problems)
        return [f"{problem.line}:{problem.key}: {problem.message}" for problem in error.problems]
    raise AssertionError("the file was taken")


def http(*paths: str) -> str:
    rules = ", ".join(f"{{path: {path}}}" for path in paths)
    return f"{{{TCP80}, rules: {{http: [{rules}]}}}}"


def kinds(found: Resolver, port: int = 80, protocol: str = "TCP") -> dict[str, L4Kind]:
    who = {"web": WEB, "batch": BATCH, "abroad": ABROAD, "host": HOST, "world": WORLD, "desk": DESK}
    return {name: to_api(found, one, port, protocol).kind for name, one in who.items()}


def everyone(kind: L4Kind) -> dict[str, L4Kind]:
    return dict.fromkeys(("web", "batch", "abroad", "host", "world", "desk"), kind)


def paths(decision: L4Decision) -> list[str | None]:
    assert decision.l7 is not None
    return [rule.path for rule in decision.l7.enforced.allow]


def passes_all(decision: L4Decision) -> bool:
    assert decision.l7 is not None
    return decision.l7.enforced.allow_all is not None or decision.l7.enforced.open
