"""The parts of the datapath that need no kernel."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmap.config import DatapathConfig, DatapathError
from sockmap.events import decode
from sockmap.flows import FLOW_KEY, HOST_SERVER, Flow, address_bytes, flow_key
from sockmap.program import BPF_DIR, Names, source
from sockmap.rows import port_prefixes
from sockmap.state import StateFile, peek

PORTS = st.integers(0, 65535)


def ports_of(port: int, bits: int) -> range:
    return range(port, port + (1 << 16 - bits))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 65535, [(0, 0)]),
        (80, 80, [(80, 16)]),
        (8000, 8007, [(8000, 13)]),
        (1, 4, [(1, 16), (2, 15), (4, 16)]),
        (1024, 65535, [(1024, 6), (2048, 5), (4096, 4), (8192, 3), (16384, 2), (32768, 1)]),
    ],
)
def test_port_prefixes(low: int, high: int, expected: list[tuple[int, int]]) -> None:
    assert port_prefixes(low, high) == expected


@given(PORTS, PORTS)
def test_port_prefixes_hold_exactly_the_range(one: int, other: int) -> None:
    low, high = sorted((one, other))
    covered = [port for prefix in port_prefixes(low, high) for port in ports_of(*prefix)]
    assert covered == list(range(low, high + 1))
    assert all(port % (1 << 16 - bits) == 0 for port, bits in port_prefixes(low, high))


@pytest.mark.parametrize(("low", "high"), [(2, 1), (-1, 5), (0, 65536)])
def test_what_is_no_range(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=f"{low}-{high} is no range of ports"):
        port_prefixes(low, high)


def test_a_flow_key_is_struct_tuple() -> None:
    key = flow_key("10.0.0.1", 0x1234, "2001:db8::1", 80)
    assert key[:16] == bytes(10) + b"\xff\xff\x0a\0\0\1"
    assert key[16:32] == bytes.fromhex("20010db8") + bytes(11) + b"\1"
    assert key[32:] == b"\x12\x34\x00\x50\x06\0\0\0"
    assert len(key) == FLOW_KEY.size == 40
    assert address_bytes("fe80::1%eth0") == address_bytes("fe80::1")


def test_a_flow_says_whether_its_server_is_the_host() -> None:
    flow = Flow(1, 2, 0, 3, 4, 0)
    assert not flow.host_server
    assert flow._replace(flags=HOST_SERVER | 1).host_server


def test_an_event_is_struct_event() -> None:
    data = struct.pack("=Q", 5) + address_bytes("10.0.0.1") + address_bytes("10.0.0.2") + b"\x04\xd2\x00\x50\x06\0\0\0"
    data += struct.pack("=IIIIHHHBBBBBBB3x", 256, 2, 7, 74, 9, 3, 9, 1, 1, 1, 0, 2, 0, 0)
    event = decode(data, {1: "Policy denied"})
    assert (event.time_ns, event.src, event.dst, event.sport, event.dport, event.proto) == (
        5, "10.0.0.1", "10.0.0.2", 1234, 80, 6,
    )  # fmt: skip
    assert (event.src_identity, event.dst_identity, event.ifindex, event.length) == (256, 2, 7, 74)
    assert (event.endpoint_id, event.reason, event.kind, event.direction, event.tcp_flags) == (
        9, "Policy denied", "audit", 1, 2,
    )  # fmt: skip
    assert (event.src_endpoint, event.dst_endpoint, event.reply) == (9, 3, False)
    with pytest.raises(struct.error):
        decode(data[:-1], {})


def test_names_come_from_the_table_the_programs_are_compiled_with() -> None:
    names = Names.read()
    assert names.reasons[1] == "Policy denied"
    assert "Proxy unavailable" in names.reasons.values()
    assert list(names.counters.values()) == ["forwarded", "steered", "audited", "events_lost"]
    assert min(names.counters) == len(names.reasons) + 1
    everything = [*names.reasons.values(), *names.counters.values()]
    assert len(set(everything)) == len(everything)


def test_each_source_is_one_text() -> None:
    texts = [source(), source("splice.c")]
    assert not any('#include "' in text for text in texts)
    for file in BPF_DIR.glob("*.h"):
        assert any(file.read_text() in text for text in texts), f"{file.name} is not part of any programs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mark_mask": 0x10000}, "mark mask 0x10000 is not within 0xffff"),
        ({"mark_steer": 0x1000}, "must differ, not be 0 and lie within the mask 0xf00"),
        ({"mark_steer": 0}, "must differ"),
        ({"mark_steer": 0x0A00}, "must differ"),
        ({"workers": 0}, "0 workers"),
        ({"workers": 257}, "257 workers"),
        ({"event_rate": 0}, "event_rate"),
        ({"event_pages": 3}, "power of two"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, int], message: str) -> None:
    with pytest.raises(DatapathError, match=message):
        replace(DatapathConfig(), **changes).check()  # type: ignore[arg-type]


def test_the_defaults_work() -> None:
    DatapathConfig().check()


class TestStateFile:
    @pytest.fixture(autouse=True)
    def own_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An l7proxy may be running on this very machine."""
        monkeypatch.setattr("sockmap.state._ABSTRACT", f"\0{tmp_path}")

    def test_what_is_written_down_is_there_for_the_next(self, tmp_path: Path) -> None:
        first = StateFile(tmp_path)
        first.add("qdiscs", [3, "eth0"])
        first.add("qdiscs", [3, "eth0"])
        first.add("sysctls", ["/proc/sys/x", "0"])
        first.remove("sysctls", ["/proc/sys/x", "0"])
        first.close(forget=False)
        second = StateFile(tmp_path)
        assert second.state.qdiscs == [[3, "eth0"]]
        assert second.state.sysctls == []
        second.close(forget=True)
        assert peek(tmp_path) == (None, 0)

    def test_what_another_boot_wrote_means_nothing(self, tmp_path: Path) -> None:
        file = StateFile(tmp_path)
        file.state.boot_id = "another"
        file.add("qdiscs", [3, "eth0"])
        file.close(forget=False)
        file = StateFile(tmp_path)
        assert file.state.is_empty()
        file.close(forget=True)

    def test_that_of_another_namespace_is_refused(self, tmp_path: Path) -> None:
        file = StateFile(tmp_path)
        file.state.netns = 1
        file.write()
        file.close(forget=False)
        with pytest.raises(DatapathError, match=r"state\.json belongs to another network namespace \(1, this one is"):
            StateFile(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", '{"boot_id": "x"}', json.dumps({"boot_id": "x", "netns": 1, "z": 2})])
    def test_a_broken_file_is_an_error_with_its_name(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(DatapathError, match=r"state\.json: "):
            StateFile(tmp_path)

    def test_the_lock_tells_its_holder(self, tmp_path: Path) -> None:
        file = StateFile(tmp_path)
        with pytest.raises(DatapathError, match=rf"another l7proxy \(process {os.getpid()}\)"):
            StateFile(tmp_path)
        assert peek(tmp_path)[1] == os.getpid()
        file.close(forget=True)


def test_c_files_are_formatted() -> None:
    command = shutil.which("clang-format")
    assert command is not None, "clang-format is missing"
    files = [str(path) for path in sorted(BPF_DIR.glob("*.[ch]"))]
    done = subprocess.run([command, "--dry-run", "-Werror", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
