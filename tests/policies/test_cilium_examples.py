"""Policies in the manner of Cilium's HTTP documentation: they load, and mean what that documentation says."""

from __future__ import annotations

import pytest

from policies.decision import L4Kind
from policies.identity import Identity, workload
from policies.match import RuleSet
from policies.model import TrafficDirection
from policies.resolve import Resolver
from policies.verdict import Verdict
from tests.policies.rules import request
from tests.policies.texts import DESK, EGRESS, HOST, INGRESS, WORLD, load

SERVICE = workload(256, {"app": "service", "org": "empire", "class": "deathstar", "id": "web-server"})
PROD = workload(257, {"env": "prod", "org": "empire", "id": "goodclient"})
OTHER = workload(258, {"env": "dev", "org": "alliance"})


def passes(text: str, direction: TrafficDirection, subject: Identity, peer: Identity, port: int, *what: object) -> bool:
    """Whether a request (method, path, host, headers) gets through in one direction."""
    destination = subject if direction is INGRESS else peer
    decision = Resolver(load(text)).decide(direction, subject, peer, "TCP", port, destination)
    if decision.l7 is None:
        return decision.kind is L4Kind.ALLOW
    return RuleSet(decision.l7).judge(request(*what)).verdict is Verdict.FORWARDED  # type: ignore[arg-type]


GET_PUBLIC = """\
apiVersion: "cilium.io/v2"
kind: CiliumNetworkPolicy
metadata:
  name: "rule1"
spec:
  description: "Allow HTTP GET /public from env=prod to app=service"
  endpointSelector:
    matchLabels:
      app: service
  ingress:
  - fromEndpoints:
    - matchLabels:
        env: prod
    toPorts:
    - ports:
      - port: "80"
        protocol: TCP
      rules:
        http:
        - method: "GET"
          path: "/public"
"""
PATHS_AND_HEADERS = """\
apiVersion: "cilium.io/v2"
kind: CiliumNetworkPolicy
metadata:
  name: "l7-rule"
spec:
  endpointSelector:
    matchLabels:
      app: service
  ingress:
  - toPorts:
    - ports:
      - port: '80'
        protocol: TCP
      rules:
        http:
        - method: GET
          path: "/path1$"
        - method: PUT
          path: "/path2$"
          headers:
          - 'X-My-Header: true'
"""
SEVERAL = """\
apiVersion: "cilium.io/v2"
kind: CiliumNetworkPolicy
metadata:
  name: "several"
specs:
- endpointSelector:
    matchLabels:
      app: service
  ingress:
  - fromEndpoints:
    - matchLabels:
        env: prod
    toPorts:
    - ports:
      - port: "80"
        protocol: TCP
      rules:
        http:
        - method: "GET"
          path: "/public"
- endpointSelector:
    matchLabels:
      env: prod
  egress:
  - toPorts:
    - ports:
      - port: "80"
        protocol: TCP
      rules:
        http:
        - method: "POST"
          host: "^external-service.org$"
"""
FROM_OUTSIDE = """\
apiVersion: "cilium.io/v2"
kind: CiliumClusterwideNetworkPolicy
metadata:
  name: "from-outside"
spec:
  endpointSelector: {}
  ingress:
  - fromEntities:
    - world
    toPorts:
    - ports:
      - port: "443"
        protocol: TCP
      - port: "80"
        protocol: TCP
      rules:
        http:
        - headerMatches:
          - name: X-Token
            value: open
"""


@pytest.mark.parametrize(
    ("text", "direction", "subject", "peer", "port", "what", "through"),
    [
        (GET_PUBLIC, INGRESS, SERVICE, PROD, 80, ("GET", "/public"), True),
        (GET_PUBLIC, INGRESS, SERVICE, PROD, 80, ("GET", "/public/"), False),
        (GET_PUBLIC, INGRESS, SERVICE, PROD, 80, ("PUT", "/public"), False),
        (GET_PUBLIC, INGRESS, SERVICE, PROD, 81, ("GET", "/public"), False),
        (GET_PUBLIC, INGRESS, SERVICE, OTHER, 80, ("GET", "/public"), False),
        (GET_PUBLIC, INGRESS, SERVICE, HOST, 80, ("GET", "/public"), False),
        (GET_PUBLIC, INGRESS, OTHER, PROD, 80, ("GET", "/private"), True),
        (GET_PUBLIC, EGRESS, SERVICE, PROD, 80, ("GET", "/private"), True),
        (PATHS_AND_HEADERS, INGRESS, SERVICE, OTHER, 80, ("GET", "/path1"), True),
        (PATHS_AND_HEADERS, INGRESS, SERVICE, WORLD, 80, ("GET", "/path1"), True),
        (PATHS_AND_HEADERS, INGRESS, SERVICE, OTHER, 80, ("GET", "/path11"), False),
        (PATHS_AND_HEADERS, INGRESS, SERVICE, OTHER, 80, ("PUT", "/path2"), False),
        (PATHS_AND_HEADERS, INGRESS, SERVICE, OTHER, 80, ("PUT", "/path2", "h", ("x-my-header", "true")), True),
        (PATHS_AND_HEADERS, INGRESS, SERVICE, OTHER, 80, ("PUT", "/path2", "h", ("x-my-header", "True")), False),
        (SEVERAL, INGRESS, SERVICE, PROD, 80, ("GET", "/public"), True),
        (SEVERAL, INGRESS, SERVICE, PROD, 80, ("POST", "/public"), False),
        (SEVERAL, EGRESS, PROD, WORLD, 80, ("POST", "/x", "external-service.org"), True),
        (SEVERAL, EGRESS, PROD, WORLD, 80, ("POST", "/x", "external-service.org:80"), False),
        (SEVERAL, EGRESS, PROD, WORLD, 80, ("GET", "/x", "external-service.org"), False),
        (SEVERAL, EGRESS, PROD, WORLD, 443, ("POST", "/x", "external-service.org"), False),
        (FROM_OUTSIDE, INGRESS, SERVICE, DESK, 443, ("GET", "/", "h", ("x-token", "open")), True),
        (FROM_OUTSIDE, INGRESS, SERVICE, DESK, 80, ("GET", "/", "h"), False),
        (FROM_OUTSIDE, INGRESS, SERVICE, PROD, 80, ("GET", "/", "h", ("x-token", "open")), False),
    ],
)
def test_documented_policies(
    text: str,
    direction: TrafficDirection,
    subject: Identity,
    peer: Identity,
    port: int,
    what: tuple[object, ...],
    through: bool,
) -> None:
    assert passes(text, direction, subject, peer, port, *what) is through
