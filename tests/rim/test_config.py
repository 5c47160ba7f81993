"""node.yaml: the issue's own example loads, and every complaint names file, line and key."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address
from pathlib import Path

import pytest

from l7proxy.config import AdminConfig, NodeConfig, endpoint_from_json, load_config
from l7proxy.limits import Limits
from parsers.options import CassandraOptions
from policies.document import DocumentError
from sockmap.config import DatapathConfig, Lifetimes

EXAMPLE = """\
mode: enforce
endpoints:
  - name: frontend
    labels: {app: frontend}
    interface: veth-front
    addresses: [10.77.0.2, "fd77::2"]
    named_ports: {http: 8080}
  - name: batch
    labels: {app: batch, io.kubernetes.pod.namespace: jobs}
    cgroup: system.slice/batch.service
  - name: ledger
    labels: {app: ledger}
    addresses: [192.0.2.10]
node_interfaces: [eth0]
policies: [policies/]
flow_log: {file: flows.jsonl}
admin: {listen: "127.0.0.1:9878"}
workers: auto
on_proxy_down: closed
"""


def load(folder: Path, text: str) -> NodeConfig:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "node.yaml").write_text(text)
    return load_config(folder / "node.yaml")


def complaints(folder: Path, text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(folder, text)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def endpoint(text: str) -> str:
    return f"policies: []\nendpoints:\n  - {text}\n"


def test_the_example(tmp_path: Path) -> None:
    config = load(tmp_path, EXAMPLE)
    front, batch, ledger = config.endpoints
    assert front.interface == "veth-front"
    assert front.addresses == (ip_address("10.77.0.2"), ip_address("fd77::2"))
    assert (front.labels, front.named_ports, front.namespace) == ({"app": "frontend"}, {"http": 8080}, "default")
    assert (batch.cgroup, batch.namespace) == ("system.slice/batch.service", "jobs")
    assert (ledger.interface, ledger.cgroup) == (None, None)
    assert config.policies == (tmp_path / "policies",)
    assert config.flow_log.file == str(tmp_path / "flows.jsonl")
    assert config.admin.host_port == ("127.0.0.1", 9878)
    assert not config.audit
    assert config.worker_count >= 1
    assert config.file == tmp_path / "node.yaml"


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "policies: []\n")
    assert config.limits == Limits()
    assert (config.flow_log.file, config.on_upstream_refused, config.allow_localhost) == (None, "reset", "never")
    assert config.on_policy_change.streams == "cut"
    assert config.datapath.mark_mask == 0x0F00


def test_the_datapath_gets_its_own_defaults_and_what_is_set(tmp_path: Path) -> None:
    config = load(tmp_path, "policies: []\nworkers: 2\n")
    assert config.datapath_config == DatapathConfig(workers=2)
    text = "policies: []\nworkers: 3\non_proxy_down: open\ndatapath: {ct_entries: 4096, lifetimes: {syn: 5}}\n"
    expected = DatapathConfig(workers=3, on_proxy_down="open", ct_entries=4096, lifetimes=Lifetimes(syn=5))
    assert load(tmp_path, text).datapath_config == expected


def test_every_section(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "policies: [policies]\nmode: audit\nworkers: 3\non_proxy_down: open\non_upstream_refused: 503\n"
        "limits: {idle_timeout: 2, buffered_bytes: 65536}\nhttp: {max_headers: 7}\nkafka: {max_pipeline: 8}\n"
        "cassandra: {system_tables: false, max_in_flight: 9}\n"
        "node_name: n1\n"
        "datapath: {mark_mask: 0xF0, mark_steer: 0x10, mark_proxy: 0x20, mark_identity: 0x30, state_dir: /run/x}\n"
        "flow_log: {file: '-', keep: 0, headers: true, redact: {query: true, headers: [X-Key]}}\n"
        "admin: {listen: 'unix:admin.sock'}\non_policy_change: {streams: keep}\n",
    )
    assert config.audit
    assert (config.workers, config.on_proxy_down, config.on_upstream_refused) == (3, "open", "503")
    assert (config.limits.idle_timeout, config.limits.buffered_bytes) == (2.0, 65536)
    assert config.on_policy_change.streams == "keep"
    assert (config.http.max_headers, config.kafka.max_pipeline, config.kafka.max_names) == (7, 8, 10_000)
    assert (config.cassandra.system_tables, config.cassandra.max_in_flight) == (False, 9)
    assert not config.cassandra.log_statements
    assert config.datapath.mark_identity == 0x30
    assert (config.flow_log.file, config.flow_log.redact.headers) == ("-", ("X-Key",))
    assert config.admin.unix_path == tmp_path / "admin.sock"


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = complaints(
        tmp_path,
        "mod: audit\nlimits:\n  grace: soon\n  idle_timeout: -1\npolicies: [nowhere/]\nworkers: 0\nflow_log: [x]\n"
        "endpoints:\n  - name: a\n    adresses: [1.2.3.4]\n",
    )
    assert sorted(found) == sorted(
        [
            "node.yaml:1:mod: error: unknown key 'mod'; did you mean 'mode'?",
            "node.yaml:3:limits.grace: error: must be a number, not 'soon'",
            "node.yaml:4:limits.idle_timeout: error: must be at least 0.1, not -1",
            "node.yaml:5:policies[0]: error: nowhere: there is no such file or folder",
            "node.yaml:6:workers: error: must be auto, or 1 to 256, not 0",
            "node.yaml:7:flow_log: error: must be a mapping, not a list",
            "node.yaml:9:endpoints[0]: error: an endpoint needs an interface and addresses, a cgroup, or addresses",
            "node.yaml:9:endpoints[0]: error: an endpoint needs labels: without them no policy can tell it apart",
            "node.yaml:10:endpoints[0].adresses: error: unknown key 'adresses'; did you mean 'addresses'?",
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]\n", "node.yaml:1: error: must be a mapping, not a list"),
        ("mode: enforce\n", "node.yaml:1: error: the key 'policies' is missing"),
        ("policies: []\nmode: Audit\n", "node.yaml:2:mode: error: must be one of enforce, audit, not 'Audit'"),
        ("policies: []\nmode: true\n", "node.yaml:2:mode: error: must be one of enforce, audit, not True"),
        (
            "policies: []\non_policy_change:\n  streams: kept\n",
            "node.yaml:3:on_policy_change.streams: error: must be one of cut, keep, not 'kept'",
        ),
        (
            "policies: []\non_policy_change:\n  stream: keep\n",
            "node.yaml:3:on_policy_change.stream: error: unknown key 'stream'; did you mean 'streams'?",
        ),
        ("policies: []\non_policy_change: cut\n", "node.yaml:2:on_policy_change: error: must be a mapping, not 'cut'"),
        ("policies: []\nadmin: {listen: '0.0.0.0:1'}\n", "0.0.0.0 is not a loopback address"),
        ("policies: []\nadmin: {listen: '9878'}\n", "is neither host:port nor unix:/path"),
        ("policies: []\nadmin: {listen: 'localhost:99999'}\n", "is neither host:port nor unix:/path"),
        ("policies: []\nflow_log: {headers: 1}\n", "must be true or false, not 1"),
        ("policies: []\nlimits: {grace: .nan}\n", "node.yaml:2:limits.grace: error: must be at least 0, not nan"),
        ("policies: []\nlimits: {grace: .inf}\n", "must be at least 0, not inf"),
        ("policies: []\nlimits: {buffered_bytes: 1}\n", "must be 4096 to 1073741824, not 1"),
        ("policies: []\nlimits: {buffered_bytes: 65535}\n", "buffered_bytes 65535 is less than http.max_head 65536"),
        ("policies: []\nlimits: {buffered_bytes: 1.5}\n", "must be a whole number, not 1.5"),
        ("policies: []\ndatapath: {mark_steer: 0x1000}\n", "mark_steer 0x1000 must lie inside mark_mask 0xf00"),
        ("policies: []\ndatapath: {mark_steer: 0xA00}\n", "mark_steer 0xa00 must lie inside mark_mask"),
        ("policies: []\ndatapath: {lifetimes: {other: 0}}\n", "a lifetime is at least 1 second"),
        ("policies: []\ndatapath: {state_dir: run}\n", "must be an absolute path"),
        ("policies: [node.yaml/x]\n", "Not a directory"),
        ("policies: ['a\\0b']\n", "node.yaml:1:policies[0]: error:"),
        ("policies: []\nnode_interfaces: [lo]\n", "lo is looked after"),
        ("policies: []\nnode_interfaces: [a/b]\n", "is no name of a network interface"),
        ("policies: []\n---\npolicies: []\n", "holds 2 documents"),
        ("", "holds 0 documents"),
        ("policies: []\npolicies: []\n", "this key stands twice"),
    ],
)
def test_bad_values(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in line for line in complaints(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{labels: {a: b}, addresses: [1.1.1.1]}", "endpoints[0]: error: the key 'name' is missing"),
        ("{name: a b, labels: {a: b}, addresses: [1.1.1.1]}", "'a b' is no endpoint name"),
        ("{name: 7, labels: {a: b}, addresses: [1.1.1.1]}", "must be a string, not 7 (put it in quotes"),
        ("{name: a, labels: {a: b}}", "needs an interface and addresses, a cgroup, or addresses"),
        ("{name: a, labels: {a: b}, interface: v}", "an endpoint with an interface needs its addresses"),
        ("{name: a, labels: {a: b}, interface: v, cgroup: x, addresses: [1.1.1.1]}", "not both"),
        ("{name: a, addresses: [1.1.1.1]}", "needs labels"),
        ("{name: a, labels: {a: 1}, addresses: [1.1.1.1]}", "a label's value must be a string, not 1"),
        ("{name: a, labels: {-a: b}, addresses: [1.1.1.1]}", "'-a' is no label key"),
        ("{name: a, labels: {a: 'b c'}, addresses: [1.1.1.1]}", "'b c' is no label value"),
        ("{name: a, labels: {'reserved:host': ''}, addresses: [1.1.1.1]}", "label source 'reserved'"),
        ("{name: a, labels: {a: b, 'k8s:a': c}, addresses: [1.1.1.1]}", "label k8s:a stands twice"),
        ("{name: a, labels: {io.kubernetes.pod.namespace: A_b}, addresses: [1.1.1.1]}", "'A_b' is no namespace"),
        ("{name: a, labels: {io.kubernetes.pod.namespace: ''}, addresses: [1.1.1.1]}", "'' is no namespace"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.300]}", "does not appear to be an IPv4 or IPv6 address"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.1/32]}", "does not appear to be an IPv4 or IPv6 address"),
        ("{name: a, labels: {a: b}, addresses: [17]}", "17 is no address; put it in quotes"),
        ("{name: a, labels: {a: b}, addresses: ['::ffff:1.2.3.4']}", "IPv4 in its own form"),
        ("{name: a, labels: {a: b}, addresses: ['fe80::1%eth0']}", "without scope"),
        ("{name: a, labels: {a: b}, addresses: [224.0.0.1]}", "not the address of one host"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.1, 1.1.1.1]}", "address 1.1.1.1 stands twice"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.1], named_ports: {http: 0}}", "a port is 1 to 65535, not 0"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.1], named_ports: {http: 65536}}", "a port is 1 to 65535"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.1], named_ports: {'80': 80}}", "'80' is no port name"),
        ("{name: a, labels: {a: b}, addresses: [1.1.1.1], named_ports: {h: 1, H: 2}}", "port name 'h' stands twice"),
        ("{name: a, labels: {a: b}, cgroup: ../x}", "no '.' or '..'"),
        ("{name: a, labels: {a: b}, cgroup: /}", "the root cgroup"),
    ],
)
def test_bad_endpoints(tmp_path: Path, text: str, expected: str) -> None:
    found = complaints(tmp_path, endpoint(text))
    assert any(expected in line and "node.yaml:3:" in line for line in found), found


def test_endpoints_that_clash(tmp_path: Path) -> None:
    found = complaints(
        tmp_path,
        "policies: []\nnode_interfaces: [v1]\nendpoints:\n"
        "  - {name: a, labels: {a: b}, interface: v1, addresses: [1.1.1.1]}\n"
        "  - {name: a, labels: {a: b}, interface: v1, addresses: [1.1.1.1]}\n"
        "  - {name: c, labels: {a: b}, cgroup: x/y}\n"
        "  - {name: d, labels: {a: b}, cgroup: x//y/}\n"
        "  - {name: e, labels: {a: b}, cgroup: x/y/z}\n",
    )
    assert found == [
        "node.yaml:5:endpoints[1].name: error: name a belongs to endpoint 'a' already",
        "node.yaml:5:endpoints[1].interface: error: interface v1 belongs to endpoint 'a' already",
        "node.yaml:5:endpoints[1].addresses: error: address 1.1.1.1 belongs to endpoint 'a' already",
        "node.yaml:7:endpoints[3].cgroup: error: cgroup x/y belongs to endpoint 'c' already",
        "node.yaml:8:endpoints[4].cgroup: error: cgroup x/y/z lies inside that of endpoint 'd'",
        "node.yaml:2:node_interfaces[0]: error: interface v1 belongs to endpoint 'a' already",
    ]


def test_endpoints_from_json() -> None:
    plain = {"name": "a", "labels": {"app": "x"}, "interface": "v", "addresses": ["10.0.0.1"], "named_ports": {"h": 1}}
    made = endpoint_from_json(plain)
    assert made.plain() == plain
    with pytest.raises(DocumentError, match="endpoint:adresses: error: unknown key"):
        endpoint_from_json({**plain, "adresses": []})
    for bad in (None, [], "x", {"name": None}):
        with pytest.raises(DocumentError):
            endpoint_from_json(bad)
    deep: object = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(DocumentError):
        endpoint_from_json({"name": "a", "labels": deep})


def test_admin_addresses() -> None:
    assert AdminConfig("[::1]:80").host_port == ("::1", 80)
    assert AdminConfig("unix:/run/x.sock").unix_path == Path("/run/x.sock")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.yaml: error: cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_cassandras_settings_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cassandra.md").read_text().partition("## Settings")[2]
    assert [option.name for option in fields(CassandraOptions) if f"`{option.name}`" not in text] == []
