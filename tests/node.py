"""A running `l7proxy run` under test: started, asked, changed, stopped and killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from tests import netns

COMMAND = str(Path(sys.executable).with_name("l7proxy"))
ADMIN = ("127.0.0.1", 9878)
SPLICED = bool(os.environ.get("L7PROXY_TEST_SPLICE"))
"""Whether every node splices its connections, so that whatever is tested is tested with that."""


class NodeHandle:
    """One instance of l7proxy in the node's namespace, its files in `folder`, its state in `state_dir`."""

    def __init__(
        self, namespace: str, folder: Path, state_dir: Path, keys: dict[str, Any], policies: dict[str, str]
    ) -> None:
        self.namespace, self.folder = namespace, folder
        self.policies, self.config = folder / "policies", folder / "node.yaml"
        self.flow_log, self.output = folder / "flows.jsonl", folder / "output"
        self.process: subprocess.Popen[str] | None = None
        self._spliced = bool(keys.get("splice", SPLICED))
        self.policies.mkdir(parents=True)
        for name, text in policies.items():
            (self.policies / name).write_text(text)
        datapath = {"state_dir": str(state_dir)} | keys.pop("datapath", {})
        base = {"policies": ["policies/"], "flow_log": {"file": "flows.jsonl"}, "datapath": datapath}
        base |= {"splice": True} if SPLICED else {}
        self.config.write_text(yaml.safe_dump(base | keys, sort_keys=False))

    def start(self, popen: Callable[..., subprocess.Popen[str]]) -> None:
        """Start the process; `wait_ready` tells when it serves."""
        with self.output.open("a") as output:
            argv = [COMMAND, "run", "--config", str(self.config)]
            self.process = popen(self.namespace, argv, stdout=output, stderr=output)

    def wait_ready(self, timeout: float = 150.0) -> None:
        """Wait until flows are judged. Raises AssertionError with the program's output if it ends or is late."""
        end = time.monotonic() + timeout
        while not self.is_ready():
            status = self.running.poll()
            if status is not None or time.monotonic() > end:
                what = "is not ready" if status is None else f"ended with status {status}"
                raise AssertionError(f"l7proxy {what}:\n{self.output.read_text()}")
            time.sleep(0.05)

    @property
    def running(self) -> subprocess.Popen[str]:
        """The process. Raises AssertionError if it was never started."""
        assert self.process is not None
        return self.process

    def is_ready(self) -> bool:
        """True if /readyz says so."""
        try:
            return self.admin("/readyz")[0] == 200
        except OSError:
            return False

    def admin(self, path: str, *, method: str = "GET", body: Any = None) -> tuple[int, str]:
        """(status, text) of a request to the admin API. Raises OSError."""
        connection = http.client.HTTPConnection(*ADMIN)
        connection.sock = netns.connect(self.namespace, ADMIN)
        with closing(connection):
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()

    def status(self) -> dict[str, Any]:
        """What `l7proxy status` shows."""
        answer: dict[str, Any] = json.loads(self.admin("/status")[1])
        return answer

    def worker_pids(self) -> list[int]:
        """Process ids of the workers."""
        return [int(pid) for pid in self.status()["workers"].values()]

    def write_policy(self, text: str, name: str = "policy.yaml") -> None:
        """Replace a policy file and wait until a new generation is in force."""
        before = self.generations()
        waiting = self.folder / "new.tmp"
        waiting.write_text(text)
        waiting.replace(self.policies / name)
        self.running.send_signal(signal.SIGHUP)
        end = time.monotonic() + 15
        while self.generations() <= before:
            assert time.monotonic() < end, f"the policy did not take effect:\n{self.output.read_text()}"
            time.sleep(0.02)

    def generations(self) -> int:
        """How often a new policy has come into force, by the program's own words."""
        return self.output.read_text().count("l7proxy: generation ")

    def flows(self) -> list[dict[str, Any]]:
        """The flow records written so far, oldest first."""
        if not self.flow_log.exists():
            return []
        text = self.flow_log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_flows(self, wanted: Callable[[dict[str, Any]], bool], count: int = 1) -> list[dict[str, Any]]:
        """Wait until `count` records are as `wanted`, and return them. Raises AssertionError with what came."""
        end = time.monotonic() + 10
        while len(found := [record for record in self.flows() if wanted(record)]) < count:
            assert time.monotonic() < end, f"{len(found)} of {count} records; last: {self.flows()[-3:]}"
            time.sleep(0.05)
        return found

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, and the exit status."""
        self.running.terminate()
        return self.running.wait(timeout)

    def end(self) -> None:
        """Whatever it has outside of the node's namespace goes with it."""
        if self._spliced and self.process is not None and self.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.stop()

    def kill9(self) -> None:
        """SIGKILL to the supervisor; the workers find out by themselves."""
        os.kill(self.running.pid, signal.SIGKILL)
        self.running.wait(10)

    def cleanup(self) -> subprocess.CompletedProcess[str]:
        """`l7proxy cleanup`, whatever its status."""
        argv = netns.inside(self.namespace, [COMMAND, "cleanup", "--config", str(self.config)])
        return netns.run(argv, timeout=60, check=False)


def growth(pid: int) -> Callable[[], int]:
    """Tells by how many bytes the resident memory of a process has grown at most, from now on."""
    before = _memory(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted anew
    return lambda: _memory(pid, "VmHWM") - before


def _memory(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))
