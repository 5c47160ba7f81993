"""The bench's own arithmetic: what it reads, counts and shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
import yaml

from bench import load, processes, report
from bench.rules import SMALL, UPLOAD, for_envoy, for_haproxy, for_l7proxy, for_nginx, rules


def test_all_proxies_get_the_same_rules() -> None:
    chosen = rules(25)
    assert len(chosen) == len(set(chosen)) == 25
    http = yaml.safe_load(for_l7proxy(chosen, 80))["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"]
    assert [(rule["method"], rule["path"]) for rule in http] == chosen
    nginx, haproxy = for_nginx(chosen).splitlines(), for_haproxy(chosen).splitlines()
    envoy = list(for_envoy(chosen)["typed_config"]["rules"]["policies"].values())
    assert len(nginx) == len(haproxy) == len(envoy) == 25
    for line, other, policy, (method, path) in zip(nginx, haproxy, envoy, chosen, strict=True):
        assert f"^{method} {path}$" in line
        assert f"method {method} " in other and f"path_reg ^{path}$" in other
        assert f"^{path}$" in str(policy) and f"'{method}'" in str(policy)


def test_the_load_is_allowed_by_the_last_rules_only() -> None:
    chosen = rules(1000)
    matching = [n for n, (_, path) in enumerate(chosen) if re.fullmatch(path, SMALL)]
    assert matching == [999]
    assert any(method == "PUT" and re.fullmatch(path, UPLOAD) for method, path in chosen)


def test_latencies_are_read_in_every_unit() -> None:
    output = "  Latency Distribution\n     50%  512.00us\n     75%    1.50ms\n     90%    2.00s \n     99%    1.00m \n"
    assert [load.latency(p, output) for p in ("50%", "75%", "90%", "99%")] == [512, 1500, 2e6, 60e6]
    with pytest.raises(AssertionError, match="no 98%"):
        load.latency("98%", output)


def test_processor_time_of_a_family_is_counted() -> None:
    work = "import subprocess, sys, time\n"
    work += "subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", work]) as parent:
        end = time.monotonic() + 20
        while len(family := processes.family(parent.pid)) < 2 or processes.cpu_seconds(family) < 0.2:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert processes.cpu_seconds([parent.pid]) < processes.cpu_seconds(family)
        assert processes.memory(family) > processes.memory([parent.pid]) > 1 << 20
        for pid in family:
            os.kill(pid, 9)


def test_the_table_shows_medians_and_their_spread() -> None:
    results: report.Results = {
        "direct": {"c32": {"rps": [10.0, 30.0, 20.0], "proxy_us": [0.0, 0.0, 0.0]}},
        "l7proxy": {"c32": {"rps": [7.0], "proxy_us": [41.04]}},
    }
    head, _, direct, ours = report.table(results).splitlines()
    column = [cell.strip() for cell in head.split("|")].index("CPU us/req")
    assert "20 (10-30)" in direct and direct.split("|")[column].strip() == "-"
    assert ours.split("|")[column].strip() == "41.0"
    assert report.summary(results)["direct"]["c32"]["rps"] == {"median": 20, "min": 10, "max": 30}
