"""A play in ten scenes: a shop's API, who may ask it what, and what became of those who asked for more.

Everything happens in network namespaces made for it and removed afterwards; it can be run again at once. The exit
code is 0 only if everything was as told.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from demo.stage import Stage, Times, perform
from tests import netns
from tests.lab import Lab, Pod
from tests.node import NodeHandle

HERE = Path(__file__).parent
NETWORK = """
  web       10.77.0.2 ──┐
  api       10.77.0.3 ──┤
  legacy    10.77.0.4 ──┼── node ── outside
  stranger  10.77.0.5 ──┘
"""
ASKS = 2000


class Play(Stage):
    """The scenes."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, HERE)
        self.web, self.api, self.legacy, self.stranger = (
            lab.pod(name) for name in ("web", "api", "legacy", "stranger")
        )
        self.logs = {pod.name: self._serve(pod) for pod in (self.api, self.legacy)}

    def _serve(self, pod: Pod) -> Path:
        log = self.lab.folder / f"{pod.name}.log"
        with log.open("a") as file:
            self.lab.popen(pod.ns, [sys.executable, str(HERE / "api.py")], stdout=file)
        self.lab.wait(lambda: log.read_text().startswith("ready"), what=f"{pod.name} to serve")
        return log

    def run(self) -> int:
        """All scenes; how many things were not as told."""
        self.without()
        direct = self.time_requests()
        self.written()
        node = self.starts()
        self.allowed()
        self.refused()
        self.audited()
        self.what_the_servers_saw()
        self.flow_log(node)
        self.cost(node, direct)
        self.end(node)
        return self.voice.failures

    # -- the scenes ------------------------------------------------------------------------------------------------

    def without(self) -> None:
        self.voice.scene(
            "A node without l7proxy",
            "Four pods on one node. The API serves whoever comes, whatever they ask for.",
        )
        print(NETWORK)
        self.ask(self.web, self.api, "/public/menu", 200)
        self.ask(self.stranger, self.api, "/admin/users", 200)
        self.forget()

    def written(self) -> None:
        self.show_policy(
            "A CiliumNetworkPolicy as people have it already: `web` may ask the API for GET /public/, nothing else.",
            "shop-api.yaml",
            "--from app=web --to app=api --port 80 --method GET --path /admin/users",
        )

    def starts(self) -> NodeHandle:
        return self.start(
            "On the node, not in the pods: no sidecar, no restart, no change of address. "
            "TC programs steer the flows that need a look inside to a local proxy.",
        )

    def allowed(self) -> None:
        self.voice.scene("What is allowed", "It reaches the API byte for byte, from the client's own address.")
        self.ask(self.web, self.api, "/public/menu", 200)

    def refused(self) -> None:
        self.voice.scene("What is refused", "Another path, another method, two tricks, and somebody who is not named.")
        self.ask(self.web, self.api, "/admin/users", 403)
        self.ask(self.web, self.api, "/public/menu", 403, "-X", "DELETE")
        self.ask(self.web, self.api, "/public/..%2fadmin/users", 400, "--path-as-is")
        self.smuggle()
        self.ask(self.stranger, self.api, "/public/menu", 0, "-m", "0.8")

    def smuggle(self) -> None:
        inner = b"GET /admin/users HTTP/1.1\r\nHost: api\r\n\r\n"
        head = b"GET /public/menu HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.voice.command("web", "(a request hidden in another: Content-Length beside Transfer-Encoding)")
        with netns.connect(self.web.ns, (self.api.v4, 80)) as connection:
            connection.sendall(head % (len(inner) + 5) + b"0\r\n\r\n" + inner)
            answer = connection.recv(65536).decode("latin-1")
        self.voice.output(answer.splitlines()[0] if answer else "")
        self.voice.check(answer.startswith("HTTP/1.1 400"), "what two parsers could read differently is not passed on")

    def audited(self) -> None:
        self.voice.scene(
            "A policy on trial",
            "`legacy` has a policy too, annotated `l7proxy.io/mode: audit`: everything is served, and what would have "
            "been refused is recorded. So a policy can be tried in production before it is enforced.",
        )
        self.ask(self.web, self.legacy, "/reports/today", 200)
        self.ask(self.web, self.legacy, "/cgi-bin/export", 200, "-d", "all=1")

    def what_the_servers_saw(self) -> None:
        self.voice.scene("What the servers saw", "Their own logs. Not one byte of a refused request got there.")
        for pod, wanted in (
            (self.api, [("GET", "/public/menu")]),
            (self.legacy, [("GET", "/reports/today"), ("POST", "/cgi-bin/export")]),
        ):
            seen = self.seen(pod)
            self.voice.command(pod.name, "cat requests.log")
            self.voice.output("\n".join(f"{method} {target} (from {who})" for method, target, who in seen))
            self.voice.check([row[:2] for row in seen] == wanted, "exactly what was allowed", seen)
            self.voice.check({row[2] for row in seen} == {self.web.v4}, "from the client's own address", seen)

    def flow_log(self, node: NodeHandle) -> None:
        self.voice.scene(
            "The flow log",
            "One record for each request and each dropped connection, in Hubble's JSON, with the rule and its line.",
        )
        node.wait_flows(lambda record: "/cgi-bin/export" in str(record))
        node.wait_flows(lambda record: record.get("flow", {}).get("Type") == "L3_L4")
        done = self.l7proxy("observe", node=node)
        for verdict, least in (("FORWARDED", 2), ("DROPPED", 5), ("AUDIT", 1)):
            count = done.stdout.count(f" {verdict} ")
            self.voice.check(count >= least, f"{verdict}: {count} records", done.stdout)

    def cost(self, node: NodeHandle, direct: Times) -> None:
        self.voice.scene("What it costs", f"{ASKS} requests over one connection, each judged and logged.")
        self.compare(node, direct, self.time_requests, ASKS, "request")

    def end(self, node: NodeHandle) -> None:
        self.stop(node)
        self.ask(self.stranger, self.api, "/admin/users", 200)

    # -- props -----------------------------------------------------------------------------------------------------

    def ask(self, client: Pod, server: Pod, path: str, expected: int, *words: str) -> None:
        """curl from one pod to another, shown with its answer."""
        url = f"http://{server.v4}{path}"
        self.voice.command(client.name, " ".join(["curl", *words, f"http://{server.name}{path}"]))
        code, body = self.lab.curl(client.ns, url, *words)
        told = {0: "no answer: dropped by the kernel, the proxy never saw it", 200: "200", 400: "400", 403: "403"}
        self.voice.output(body)
        self.voice.check(code == expected, told[expected], code)

    def time_requests(self) -> Times:
        """Median and 99th percentile in microseconds, from web to the API."""
        return self.times(self.web, "cost", self.api.v4, str(ASKS))

    def seen(self, pod: Pod) -> list[tuple[str, str, str]]:
        """(method, target, client's address) of what a server was asked."""
        rows = [json.loads(line) for line in self.logs[pod.name].read_text().splitlines() if line.startswith("[")]
        return [(method, target, who) for method, target, _, who in rows]

    def forget(self) -> None:
        for log in self.logs.values():
            os.truncate(log, 0)


if __name__ == "__main__":
    sys.exit(perform(lambda lab: Play(lab).run()))
