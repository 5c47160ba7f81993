"""The log's promises: whole lines in order, nothing blocks, and what is lost is counted and said."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from l7proxy.config import FlowLogConfig
from l7proxy.flowfile import FlowFile
from l7proxy.flowlog import BatchSink, FlowWriter, Ring


def line(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "pad": "x" * size}).encode() + b"\n"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come about within 10 seconds"
        time.sleep(0.005)


def numbers(path: Path) -> list[int | str]:
    """The numbers of the records in a file; a line about lost ones shows as "lost N"."""
    found: list[int | str] = []
    for text in path.read_bytes().splitlines():
        value = json.loads(text)
        lost = value.get("lost_events")
        found.append(f"lost {lost['num_events_lost']}" if lost else value["n"])
    return found


@contextmanager
def writer(path: Path, limit: int = 1 << 20, max_bytes: int = 1 << 20, keep: int = 3) -> Iterator[FlowWriter]:
    made = FlowWriter(FlowLogConfig(file=str(path), max_bytes=max_bytes, keep=keep), "n", limit)
    try:
        yield made
    finally:
        made.close()


def test_sink_sends_at_64_kib_and_at_each_flush() -> None:
    sent: list[tuple[bytes, int]] = []
    sink = BatchSink(lambda lines: sent.append((b"".join(lines), len(lines))) or True)
    sink.flush()
    assert sent == []
    sink.add([b"a\n"])
    sink.add([b"b\n"])
    sink.flush()
    assert sent == [(b"a\nb\n", 2)]
    for _ in range(70):
        sink.add([b"x" * 1023 + b"\n"])
    assert [records for _, records in sent] == [2, 64]


def test_sink_keeps_what_finds_no_room_up_to_its_limit() -> None:
    sent: list[int] = []
    room = False

    def send(lines: list[bytes]) -> bool:
        if room:
            sent.append(len(lines))
        return room

    sink = BatchSink(send, limit=100_000)
    for _ in range(150):
        sink.add([b"x" * 999 + b"\n"])
    assert (sent, sink.lost) == ([], 50)
    room = True
    sink.flush()
    sink.add([b"y\n"])
    sink.flush()
    assert (sent, sink.lost) == ([100, 1], 50)


def test_writer_keeps_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "flows.jsonl"
    with writer(path) as log:
        for number in range(0, 2000, 2):
            log.write(line(number) + line(number + 1), 2)
        wait_for(lambda: log.written == 2000)
    assert numbers(path) == list(range(2000))
    assert path.stat().st_mode & 0o777 == 0o640
    assert log.lost == 0


def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    with writer(tmp_path / "f") as log:
        for number in range(500):
            log.write(line(number), 1)
    assert numbers(tmp_path / "f") == list(range(500))


def test_rotation(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = FlowFile(str(path), 250, 2)
    for number in range(10):
        file.append(line(number, 80))
    file.close()
    assert numbers(path) == [8, 9]
    assert numbers(tmp_path / "f.1") == [6, 7]
    assert numbers(tmp_path / "f.2") == [4, 5]
    assert sorted(os.listdir(tmp_path)) == ["f", "f.1", "f.2"]


def test_rotation_that_keeps_nothing(tmp_path: Path) -> None:
    file = FlowFile(str(tmp_path / "f"), 250, 0)
    for number in range(5):
        file.append(line(number, 80))
    assert numbers(tmp_path / "f") == [4]
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_that_somebody_moved_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = FlowFile(str(path), 1000, 2)
    file.append(line(1))
    path.rename(tmp_path / "g")
    file.append(line(2))
    assert (numbers(tmp_path / "g"), numbers(path)) == ([1], [2])
    os.truncate(path, 0)
    file.append(line(3))
    assert numbers(path) == [3]
    path.unlink()
    file.append(line(4))
    assert numbers(path) == [4]


def test_a_line_that_a_crash_cut_off_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b'{"n": 1')
    FlowFile(str(path), 1000, 2).append(line(2))
    assert path.read_bytes() == b'{"n": 1\n' + line(2)


def test_a_full_disk_loses_no_half_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    file = FlowFile(str(path), 1 << 20, 2)
    file.append(line(1))
    real, calls = os.write, iter([5, -1])

    def short(fd: int, data: bytes) -> int:
        step = next(calls)
        if step < 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:step])

    with monkeypatch.context() as patch:
        patch.setattr("l7proxy.flowfile.os.write", short)
        with pytest.raises(OSError, match="No space"):
            file.append(line(2))
    assert numbers(path) == [1]
    file.append(line(3))
    assert numbers(path) == [1, 3]


def test_an_unwritable_file_is_tried_again_and_the_lost_are_named(tmp_path: Path) -> None:
    blocker = tmp_path / "f"
    blocker.mkdir()
    with writer(blocker, limit=1000) as log:
        for number in range(100):
            log.write(line(number), 1)
        wait_for(lambda: bool(log.error))
        kept = 100 - log.lost
        assert 0 < kept < 100
        blocker.rmdir()
        wait_for(lambda: log.written == kept)
        assert log.error == ""
        log.write(line(100), 1)
        wait_for(lambda: log.written == kept + 1)
    assert numbers(tmp_path / "f") == [f"lost {log.lost}", *range(kept), 100]


def test_a_slow_disk_never_blocks_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with writer(path, limit=100_000) as log:
        begin = time.monotonic()
        for number in range(3000):
            log.write(line(number, 100), 1)
        assert time.monotonic() - begin < 10  # nobody reads: a caller that waited would do so for ever
        assert log.lost > 1000
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(path.open("rb").readlines()))
        reader.start()
        wait_for(lambda: log.written + log.lost == 3000)
        log.close()
        reader.join(10)
    lost = [json.loads(text)["lost_events"]["num_events_lost"] for text in got if b"lost_events" in text]
    assert sum(map(int, lost)) == log.lost
    assert len(got) - len(lost) == log.written


def test_lost_elsewhere_is_said_too(tmp_path: Path) -> None:
    with writer(tmp_path / "f") as log:
        log.report_lost(0)
        log.report_lost(7)
        wait_for((tmp_path / "f").exists)
        log.write(line(1), 1)
    assert numbers(tmp_path / "f") == ["lost 7", 1]
    assert log.lost == 7


def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with writer(tmp_path / "f") as log:
        log.write(line(1) + line(2), 2)
        wait_for(lambda: bool(log.error))
    assert log.lost == 2


def test_ring_keeps_the_last() -> None:
    ring = Ring(10, 1 << 20)
    for number in range(0, 100, 3):
        ring.add(b"".join(line(number + step) for step in range(3)), 3)
    assert [json.loads(text)["n"] for text in ring.last(4)] == [98, 99, 100, 101]
    assert 10 <= len(ring.last(1000)) < 13
    assert ring.last(0) == []
    small = Ring(1000, 500)
    for number in range(100):
        small.add(line(number, 100), 1)
    assert len(small.last(1000)) < 5


def test_followers() -> None:
    async def play() -> None:
        log = FlowWriter(FlowLogConfig(), "n")
        log.write(line(0), 1)
        follower = log.subscribe()
        log.write(line(1), 1)
        log.report_lost(3)
        log.write(line(2) + line(3), 2)
        log.close()
        got = b"".join([batch async for batch in follower]).splitlines()
        assert [json.loads(text).get("n", "lost") for text in got] == [1, "lost", 2, 3]
        assert log.last(9) == [line(number) for number in range(4)]

    asyncio.run(play())


def test_a_slow_follower_is_told_what_it_missed() -> None:
    async def play() -> None:
        log = FlowWriter(FlowLogConfig(), "n")
        follower = log.subscribe()
        for number in range(12):
            log.write(line(number, 1 << 19), 1)
        reader = aiter(follower)
        got = [json.loads(await anext(reader)) for _ in range(8)]
        assert "lost_events" in got[7]
        lost = int(got[7]["lost_events"]["num_events_lost"])
        assert [value["n"] for value in got[:7]] == list(range(7))
        assert lost == 5
        log.write(line(99), 1)
        assert json.loads(await anext(reader))["n"] == 99
        follower.end()
        assert [batch async for batch in reader] == []
        log.write(line(100), 1)

    asyncio.run(play())
