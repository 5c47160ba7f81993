"""Splicing of socket pairs of this node (sockmap/bpf/splice.c): loaded, given its scope, attached to cgroups, read.

All that carries bytes is in the kernel. What is attached goes on without this process, and ends with `detach`.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sockmap.bpfmap import (
    BpfMap,
    attach,
    attach_cgroup,
    attach_tracing,
    cgroup_programs,
    detach_cgroup,
    load_tracing,
    map_id,
    program_id,
    program_name,
)
from sockmap.btf import Btf, BtfError
from sockmap.cgroups import listening, processes, sockets, version_1
from sockmap.config import DatapathError
from sockmap.program import source
from sockmap.splice_bridge import BRIDGE_MAPS, BRIDGES, PLACE
from sockmap.splice_lanes import LANE_MAPS
from sockmap.splice_tables import GENERATION, MAPS, TAG, End, Pair, Style, Tables, Way, reasons

__all__ = ["End", "Pair", "Scope", "Splicer", "Style", "Way", "leftovers", "reasons"]

ON_SOCKET, ON_NEIGHBOUR, _ON_REQUEST = "on_socket", "on_neighbour", "on_request"
"""Programs that are attached to cgroups: see `Splicer.attach`."""
_WATCHED = {"on_neighbour_established": 1, "on_established": 2}
"""Programs that those call: their places in the map `watched`, which are SOMEBODY and WITHIN of splice_maps.h."""
SOCK_OPS, _STREAM_VERDICT, _MSG_VERDICT = 3, 5, 7
"""enum bpf_attach_type."""
_FIELDS = {
    "OFFSET_USER_DATA": ("sock", "sk_user_data"),
    "OFFSET_LOW_WATER": ("sock", "sk_rcvlowat"),
    "OFFSET_RECEIVE_BUFFER": ("sock", "sk_rcvbuf"),
    "OFFSET_LOCKS": ("sock", "sk_userlocks"),
    "OFFSET_PROTO": ("sock_common", "skc_prot"),
    "OFFSET_ALLOCATED": ("proto", "memory_allocated"),
    "OFFSET_LIMITS": ("proto", "sysctl_mem"),
    "OFFSET_SOCKET": ("sock", "sk_socket"),
    "OFFSET_PROGRAMS": ("sk_psock", "progs"),
    "OFFSET_CONTROL": ("sk_buff", "cb"),
    "OFFSET_WRITE_SEQ": ("tcp_sock", "write_seq"),
    "OFFSET_COPIED_SEQ": ("tcp_sock", "copied_seq"),
    "OFFSET_ULP": ("inet_connection_sock", "icsk_ulp_ops"),
    "OFFSET_SHUTDOWN": ("sock", "sk_shutdown"),
    "OFFSET_URGENT": ("tcp_sock", "urg_seq"),
    "OFFSET_ZEROCOPY": ("sock", "sk_zckey"),
    "OFFSET_MM": ("task_struct", "mm"),
    "OFFSET_ARG_START": ("mm_struct", "arg_start"),
    "OFFSET_ARG_END": ("mm_struct", "arg_end"),
}
"""What the programs read of the kernel's structs."""
_LIMITS = {
    "OFFSET_MEMCG": ("sock", "sk_memcg"),
    "OFFSET_TCPMEM": ("mem_cgroup", "tcpmem"),
    "OFFSET_USAGE": ("page_counter", "usage"),
    "OFFSET_MOST": ("page_counter", "max"),
    "OFFSET_PARENT": ("page_counter", "parent"),
}
_QUEUED = ("sk_psock", "msg_tot_len")
QUEUED, VERDICT = "msg_tot_len", "verdict"
"""What the programs can do without: the kernel's count of the bytes that wait at a reader; and that data of the stack
joins what was spliced, without which FIONREAD is wrong."""
_TRACEPOINTS = ("sock_recv_length", "tcp_destroy_sock")
_OWN = struct.Struct("=Q16sQ56x")
_CHOSEN, _LEFT_ALONE = 1, 2
_ASKED = 64
_COMMAND = 128
"""The size of struct asked, and COMMAND, in splice_maps.h."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which connections are spliced, of those in the cgroups that it is attached to.

    `anywhere`: whatever address the client asked for, else loopback alone; its peer is on this node in any case.
    `ports` are those the client asked for, `namespaces` the network namespaces' cookies of the clients. One end's
    program is of `names` (15 bytes count), and neither's of `not_names`; empty means all, or none. `learn`: a
    program's sockets are spliced once it was seen to read without MSG_WAITALL, splice(2), and whatever else splicing
    would disturb. `dry_run`: pairs are found and counted, and left to the stack. `budget`: bytes that may wait at a
    reader before its writer is left to the stack; a message counts for 1 KiB more. `blocking`: reads that wait in the
    kernel are nothing that splicing would disturb (selftest.py knows whether that is so). `around`: besides, all pairs
    with an end in this one cgroup (its id; see `attach_around`), wherever the other is; that end needs no learning.
    Of the rest, `learn`, `budget` and `blocking` count for them too. 0 for none.
    """

    anywhere: bool = False
    ports: Collection[int] = ()
    namespaces: Collection[int] = ()
    names: Collection[str] = ()
    not_names: Collection[str] = ()
    learn: bool = True
    dry_run: bool = False
    budget: int = 1 << 20
    blocking: bool = False
    around: int = 0

    def fields(self, generation: int) -> list[int]:
        """Those of struct scope, of which `generation` counts changes of policy."""
        named = 1 if self.names else 2 if self.not_names else 0
        lists = bool(self.ports), bool(self.namespaces), named
        flags = True, self.dry_run, not self.learn, self.anywhere, *lists
        return [*flags, self.budget, self.blocking, generation, self.around]


class Splicer(Tables):
    """The loaded programs. Raises DatapathError if this kernel has not what they need."""

    def __init__(
        self, pairs: int = 32_768, without: Collection[str] = (), streamed: int = 8 << 20, lanes: int = 0
    ) -> None:
        """`pairs`: the most there are at a time; others are left to the stack. `without`: as on a kernel that lacks
        QUEUED or VERDICT (for tests). `streamed`: bytes that a sender may give to the stack, all but a tenth, before it
        is left alone altogether. `lanes`: places for connections of relays (splice_lanes.py), 33 KiB each."""
        from bcc import BPF, lib  # at first use: importing it loads LLVM

        self.most = pairs
        self.fallbacks: list[str] = []
        try:
            kernel = Btf.running()
            defines = self._offsets(kernel, without) | {"PAIRS": pairs, "STREAMED": streamed}
            defines |= {"LANES": max(lanes, 1), "KNOWN": 32 * max(lanes, 1)}
            tracepoints = {name: kernel.tracepoint(name) for name in _TRACEPOINTS}
        except BtfError as error:
            raise DatapathError(f"sockets cannot be spliced: {error}") from error
        flags = [f"-D{name}={value}" for name, value in defines.items()]
        flags += ["-Wno-macro-redefined", "-Wno-unused-function", "-Wno-address-of-packed-member"]
        try:
            self._bpf: Any = BPF(text=source("splice.c").encode(), cflags=flags)
            fd = {name: self._bpf.load_func(name.encode(), kind).fd for name, kind in _programs(BPF).items()}
            self._watching = [self._watch(name, number) for name, number in tracepoints.items()]
        except Exception as error:
            raise DatapathError(f"the programs that splice cannot be compiled or loaded: {error}") from error
        self._programs = fd
        self._fds = {name: lib.bpf_table_fd(self._bpf.module, name.encode()) for name in _MAPS}
        for program, kind in (("on_send", _MSG_VERDICT), ("on_arrival", _STREAM_VERDICT)):
            if kind != _STREAM_VERDICT or VERDICT not in without:
                attach(self._fds["spliced"], fd[program], kind)
        for program, place in _WATCHED.items():
            self._map("watched").update(struct.pack("=I", place), struct.pack("=I", fd[program]))
        super().__init__(self._fds)
        self._lists: dict[str, set[bytes]] = {"scope_ports": set(), "scope_netns": set(), "scope_names": set()}
        self._attached: dict[Path, tuple[int, int]] = {}
        self._halves: set[int] = set()

    def _offsets(self, kernel: Btf, without: Collection[str]) -> dict[str, int]:
        found = {name: kernel.offset(*field) for name, field in _FIELDS.items()}
        if version_1("memory") is not None:
            with suppress(BtfError):  # not of this kernel
                found |= {name: kernel.offset(*field) for name, field in _LIMITS.items()}
        with suppress(BtfError):
            if QUEUED not in without:
                return found | {"OFFSET_QUEUED": kernel.offset(*_QUEUED)}
        self.fallbacks.append(f"this kernel has no {'.'.join(_QUEUED)}: what was given less what was read bounds it")
        return found

    def _watch(self, name: str, number: int) -> int:
        """Load and attach a program of `_TRACEPOINTS`, which bcc cannot; returns what it lasts as long as."""
        from bcc import lib

        module, symbol = self._bpf.module, name.encode()
        code = ctypes.string_at(lib.bpf_function_start(module, symbol), lib.bpf_function_size(module, symbol))
        program = load_tracing(name, code, number)
        try:
            return attach_tracing(program)
        finally:
            os.close(program)

    def _map(self, name: str) -> BpfMap:
        key, value = _MAPS[name]
        return BpfMap(self._fds[name], key, value)

    # -- scope and life --------------------------------------------------------------------------------------------

    def start(self, scope: Scope) -> None:
        """Splice what is in this scope from now on; connections that are there already keep to what they were."""
        chosen = [(name, _CHOSEN) for name in scope.names] + [(name, _LEFT_ALONE) for name in scope.not_names]
        self._fill("scope_ports", {struct.pack("=H", port): 1 for port in scope.ports})
        self._fill("scope_netns", {struct.pack("=Q", cookie): 1 for cookie in scope.namespaces})
        self._fill("scope_names", {TAG.pack(0, name.encode()[:15], 0): value for name, value in chosen})
        self._set_scope(scope.fields(self._scope()[GENERATION]))
        self._empty("servers")

    def _fill(self, name: str, wanted: dict[bytes, int]) -> None:
        table, there = self._map(name), self._lists[name]
        for key, value in wanted.items():
            table.update(key, struct.pack("=I", value))
        for key in there - wanted.keys():
            table.delete(key)
        self._lists[name] = set(wanted)

    def attach(self, cgroup: Path, program: str = ON_SOCKET) -> None:
        """Look at the connections of the processes in a cgroup, from now on. Raises DatapathError.

        With ON_NEIGHBOUR, only at those with an end in `Scope.around`.
        """
        try:
            fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            try:
                attach_cgroup(fd, self._programs[program], SOCK_OPS)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise DatapathError(f"cannot attach to cgroup {cgroup}: {error.strerror}") from error
        self._attached[cgroup] = fd, self._programs[program]

    def attach_around(self, cgroup: Path) -> None:
        """Tell whose requests come to listeners of this cgroup, that of `Scope.around`. Raises DatapathError."""
        self.attach(cgroup, _ON_REQUEST)

    def bridge_fds(self, *, lanes: bool = True) -> dict[str, int]:
        """The descriptors that `Bridges` are made of, also in other processes; and `Lanes`, if they are wanted."""
        return {name: self._fds[name] for name in (*BRIDGE_MAPS, *(LANE_MAPS if lanes else ()))}

    def adopt(self, cgroup: Path) -> int:
        """Tell the programs who made the listeners that were there before them, in a cgroup and those below; how many
        there were. Connections of others are left to the stack, unless the scope does without learning."""
        owns, found = self._map("owns"), 0
        listeners: dict[int, set[str]] = {}  # by network namespace
        for pid, made_in in processes(cgroup):
            with suppress(OSError):  # it has ended
                name = Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n")
                value = _OWN.pack(made_in, name, command_number(Path(f"/proc/{pid}/cmdline").read_bytes()))
                space = os.stat(f"/proc/{pid}/ns/net").st_ino
                if space not in listeners:
                    listeners[space] = listening(pid)
                for sock in sockets(pid, listeners[space]):
                    with sock:
                        if owns.lookup(key := struct.pack("=i", sock.fileno())) is None:
                            owns.update(key, value)
                            found += 1
        self._empty("servers")
        return found

    def program(self, name: str = ON_SOCKET) -> int:
        """The id of what is attached to cgroups."""
        return program_id(self._programs[name])

    def map_ids(self) -> dict[str, int]:
        """Ids of the maps that another process may read (splice_tables.MAPS), by name."""
        return {name: map_id(self._fds[name]) for name in MAPS}

    def detach(self, cgroup: Path | None = None) -> None:
        """From this cgroup, or every one. Pairs that are there stay what they are."""
        for path in [cgroup] if cgroup else list(self._attached):
            fd, program = self._attached.pop(path)
            with suppress(FileNotFoundError):  # somebody else has, or the cgroup is gone
                detach_cgroup(fd, program, SOCK_OPS)
            os.close(fd)

    def forget(self) -> None:
        """Set the counts to nought, and forget how programs read."""
        self.clear_counts()
        self._empty("styles", "talks", "servers")

    def _empty(self, *names: str) -> None:
        for table in map(self._map, names):
            for key, _ in list(table.items()):
                table.delete(key)

    def tidy(self, seconds: float = 600.0) -> int:
        """Take away pairs of which one end went so long ago, or whose server's end has not come since the last call;
        returns how many. An end is seen by a program that the kernel may skip (6.18 was seen to, in interrupts of some
        threads): its pair would keep a place for good. An end that is there all the same goes by the stack."""
        pairs, bridges, now = self._map("pairs"), self._map("bridges"), time.clock_gettime(time.CLOCK_MONOTONIC)
        before, self._halves, lost = self._halves, set(), set()
        for pair in self._all_pairs():
            if not pair.since:
                self._halves.add(pair.id)
            elif any(pair.gone) and max(pair.gone) + seconds < now:
                lost.add(pair.id)
        lost |= before & self._halves
        for number in lost:
            pairs.delete(struct.pack("=Q", number))
            for side in range(2):
                bridges.delete(PLACE.pack(number, side))
        return len(lost)

    def close(self) -> None:
        """Stop, detach, and give up the programs. Sockets that were enrolled hold what they need until they close."""
        self.stop()
        self.detach()
        while self._watching:
            os.close(self._watching.pop())
        self._bpf.cleanup()


_MAPS = (
    MAPS
    | BRIDGES
    | LANE_MAPS
    | {
        "scope_ports": (2, 4),
        "scope_netns": (8, 4),
        "scope_names": (TAG.size, 4),
        "servers": (_ASKED, 16),
        "watched": (4, 4),
        "spliced": (16, 4),
        "owns": (4, _OWN.size),
    }
)
"""The sizes of their keys and values."""


def _programs(bpf: Any) -> dict[str, int]:
    of_cgroups = dict.fromkeys((ON_SOCKET, ON_NEIGHBOUR, _ON_REQUEST, *_WATCHED), bpf.SOCK_OPS)
    return {**of_cgroups, "on_send": bpf.SK_MSG, "on_arrival": bpf.SK_SKB}


def command_number(line: bytes) -> int:
    """What the programs make of a command line (`current_command` in splice_peers.h)."""
    found = 0xCBF29CE484222325
    for (word,) in struct.iter_unpack("=Q", line[:_COMMAND].ljust(_COMMAND, b"\0")):
        found = (found ^ word) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


def leftovers(cgroup: Path) -> list[int]:
    """Ids of programs of ours that a process which is gone, or another one, has left attached to a cgroup."""
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ours = ON_SOCKET, ON_NEIGHBOUR
        return [number for number in cgroup_programs(fd, SOCK_OPS) if program_name(number) in ours]
    finally:
        os.close(fd)
