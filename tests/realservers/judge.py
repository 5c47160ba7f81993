"""The policy of these tests: GET, HEAD and POST of /public/ at host a, and nothing else."""

from __future__ import annotations

from l7proxy.http1_exchange import Exchange
from parsers.facts import HttpRequest
from parsers.options import HttpOptions
from policies.verdict import L7Decision, Verdict

_ALLOWED = L7Decision(Verdict.FORWARDED, None, "allowed by the test")
_REFUSED = L7Decision(Verdict.DROPPED, None, "not allowed by the test")


class PublicOnly:
    """A judge as conversations want it (l7proxy.origin.FlowJudge)."""

    audit_only = False
    log_headers = cut_streams = False
    header_names = frozenset(("x-token",))

    def __init__(self, options: HttpOptions) -> None:
        self.options = options
        self.cache: dict[bytes, Exchange] = {}
        self.calls: dict[bytes, object] = {}

    def judge(self, request: HttpRequest) -> L7Decision:
        """The verdict on a request."""
        public = request.path.startswith("/public/") and request.host in ("a", "a:80")
        return _ALLOWED if public and request.method in ("GET", "HEAD", "POST") else _REFUSED
