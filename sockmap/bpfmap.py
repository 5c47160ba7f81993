"""bpf(2) on maps and programs by file descriptor, without bcc: what worker processes and bulk updates need."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Sequence

_SYSCALLS = {"x86_64": (321, 324), "aarch64": (280, 283), "riscv64": (280, 283)}
"""The numbers of bpf and membarrier by machine."""
_LOOKUP, _UPDATE, _DELETE, _NEXT_KEY = 1, 2, 3, 4
_PROG_LOAD, _RAW_TRACEPOINT_OPEN = 5, 17
_PROG_ATTACH, _PROG_DETACH, _PROG_BY_ID, _MAP_BY_ID, _INFO, _PROG_QUERY = 8, 9, 13, 14, 15, 16
_UPDATE_BATCH, _DELETE_BATCH, _LINK_CREATE = 26, 27, 28
_BATCH = 8192
_ALLOW_MULTI = 2
_TRACING, _TRACE_RAW_TP = 26, 23
"""BPF_PROG_TYPE_TRACING and enum bpf_attach_type BPF_TRACE_RAW_TP."""
_MEMBARRIER_GLOBAL = 1
_PROG_INFO, _MAP_INFO = 232, 88
_PROG_NAME, _MAP_NAME = 64, 24
"""Where the names stand in struct bpf_prog_info and bpf_map_info."""

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(which: int, *arguments: object) -> int:
    machine = platform.machine()
    if machine not in _SYSCALLS:
        raise OSError(f"system call numbers of {machine} are not known")
    result: int = _libc.syscall(_SYSCALLS[machine][which], *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _bpf(command: int, layout: str, *fields: int) -> bytes:
    """Call bpf(2) with these fields of union bpf_attr; returns the attributes as the kernel left them.

    Raises OSError.
    """
    attributes = ctypes.create_string_buffer(struct.pack(layout, *fields))
    _syscall(0, command, attributes, struct.calcsize(layout))
    return attributes.raw[:-1]


def _bpf_fd(command: int, layout: str, *fields: int | bytes) -> int:
    attributes = ctypes.create_string_buffer(struct.pack(layout, *fields))
    return _syscall(0, command, attributes, struct.calcsize(layout))


def barrier() -> None:
    """Return when every program run that was under way has ended: membarrier waits for readers under RCU."""
    _syscall(1, _MEMBARRIER_GLOBAL, 0, 0)


class BpfMap:
    """A map by descriptor, which stays its owner's. Keys and values are their bytes; other lengths are ValueErrors."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd, self.key_size, self.value_size = fd, key_size, value_size

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None if there is none."""
        self._check(key)
        k, value = ctypes.create_string_buffer(key), ctypes.create_string_buffer(self.value_size)
        try:
            _bpf(_LOOKUP, "=I4xQQQ", self.fd, ctypes.addressof(k), ctypes.addressof(value), 0)
        except FileNotFoundError:
            return None
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Set a value. Raises OSError, E2BIG if the map is full."""
        self._check(key, value)
        k, v = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
        _bpf(_UPDATE, "=I4xQQQ", self.fd, ctypes.addressof(k), ctypes.addressof(v), 0)

    def delete(self, key: bytes) -> bool:
        """Take an entry away; False if there was none."""
        self._check(key)
        k = ctypes.create_string_buffer(key)
        try:
            _bpf(_DELETE, "=I4xQQQ", self.fd, ctypes.addressof(k), 0, 0)
        except FileNotFoundError:
            return False
        return True

    def update_many(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Set many values, thousands a system call."""
        for start in range(0, len(entries), _BATCH):
            part = entries[start : start + _BATCH]
            self._batch(_UPDATE_BATCH, [key for key, _ in part], [value for _, value in part])

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Take many entries away, all of which must be there."""
        for start in range(0, len(keys), _BATCH):
            self._batch(_DELETE_BATCH, keys[start : start + _BATCH], [])

    def _batch(self, command: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._check(*keys[:1], *values[:1])
        k, v = ctypes.create_string_buffer(b"".join(keys)), ctypes.create_string_buffer(b"".join(values))
        fields = (0, 0, ctypes.addressof(k), ctypes.addressof(v), len(keys), self.fd, 0, 0)
        _bpf(command, "=QQQQIIQQ", *fields)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries. Those that change meanwhile may be missing or seen twice."""
        key = self._next_key(None)
        while key is not None:
            value = self.lookup(key)
            if value is not None:
                yield key, value
            key = self._next_key(key)

    def _next_key(self, key: bytes | None) -> bytes | None:
        after = ctypes.create_string_buffer(self.key_size)
        before = None if key is None else ctypes.create_string_buffer(key)
        address = 0 if before is None else ctypes.addressof(before)
        try:
            _bpf(_NEXT_KEY, "=I4xQQQ", self.fd, address, ctypes.addressof(after), 0)
        except FileNotFoundError:
            return None
        return after.raw

    def _check(self, key: bytes = b"", value: bytes | None = None) -> None:
        if len(key) != self.key_size or (value is not None and len(value) != self.value_size):
            raise ValueError(f"{len(key)} and {len(value or b'')} bytes for {self.key_size} and {self.value_size}")


def attach(target_fd: int, prog_fd: int, attach_type: int, flags: int = 0) -> None:
    """Attach a program to a map of sockets, or to a cgroup. Raises OSError."""
    _bpf(_PROG_ATTACH, "=IIII", target_fd, prog_fd, attach_type, flags)


def attach_cgroup(cgroup_fd: int, prog_fd: int, attach_type: int) -> None:
    """Attach a program beside those that others have attached. Raises OSError."""
    attach(cgroup_fd, prog_fd, attach_type, _ALLOW_MULTI)


def detach_cgroup(cgroup_fd: int, prog_fd: int, attach_type: int) -> None:
    """Detach this one program. Raises OSError."""
    _bpf(_PROG_DETACH, "=IIII", cgroup_fd, prog_fd, attach_type, 0)


def load_tracing(name: str, instructions: bytes, type_number: int) -> int:
    """Load a program for the tracepoint that this type of the kernel's BTF describes, which may ask for what a socket
    owns; returns its descriptor. Raises OSError."""
    code, license_text = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license_text)
    layout, count = "=IIQQ24x15s5xI36xI4x", len(instructions) // 8
    return _bpf_fd(_PROG_LOAD, layout, _TRACING, count, *addresses, name.encode(), _TRACE_RAW_TP, type_number)


def attach_tracing(prog_fd: int) -> int:
    """Attach it for as long as the returned descriptor is open. Raises OSError."""
    return _bpf_fd(_RAW_TRACEPOINT_OPEN, "=QI4x", 0, prog_fd)


def link_netns(prog_fd: int, netns_fd: int, attach_type: int) -> int:
    """Attach a program to a network namespace for as long as the returned descriptor is open. Raises OSError."""
    return _bpf_fd(_LINK_CREATE, "=IIII", prog_fd, netns_fd, attach_type, 0)


def cgroup_programs(cgroup_fd: int, attach_type: int) -> list[int]:
    """Ids of the programs attached to a cgroup itself."""
    return _query(cgroup_fd, attach_type)[0]


def cgroup_attach_flags(cgroup_fd: int, attach_type: int) -> int:
    """How they were attached: 0 (alone), BPF_F_ALLOW_OVERRIDE or BPF_F_ALLOW_MULTI."""
    return _query(cgroup_fd, attach_type)[1]


def _query(cgroup_fd: int, attach_type: int) -> tuple[list[int], int]:
    ids = (ctypes.c_uint32 * 64)()
    answer = _bpf(_PROG_QUERY, "=IIIIQI4x", cgroup_fd, attach_type, 0, 0, ctypes.addressof(ids), 64)
    flags, count = struct.unpack("=IIIIQI4x", answer)[3::2]
    return list(ids[:count]), flags


def program_fd(prog_id: int) -> int:
    """A descriptor of a loaded program, which the caller closes. Raises FileNotFoundError."""
    return _bpf_fd(_PROG_BY_ID, "=III", prog_id, 0, 0)


def program_id(prog_fd: int) -> int:
    """A program's id."""
    info = ctypes.create_string_buffer(_PROG_INFO)
    _bpf(_INFO, "=IIQ", prog_fd, _PROG_INFO, ctypes.addressof(info))
    number: int = struct.unpack_from("=II", info.raw)[1]
    return number


def program_name(prog_id: int) -> str:
    """The first 15 bytes of its name, which its function has in C. Raises FileNotFoundError."""
    fd, info = program_fd(prog_id), ctypes.create_string_buffer(_PROG_INFO)
    try:
        _bpf(_INFO, "=IIQ", fd, _PROG_INFO, ctypes.addressof(info))
    finally:
        os.close(fd)
    return info.raw[_PROG_NAME : _PROG_NAME + 16].rstrip(b"\0").decode()


def map_id(map_fd: int) -> int:
    """A map's id."""
    info = ctypes.create_string_buffer(_MAP_INFO)
    _bpf(_INFO, "=IIQ", map_fd, _MAP_INFO, ctypes.addressof(info))
    number: int = struct.unpack_from("=II", info.raw)[1]
    return number


def map_name(map_fd: int) -> str:
    """The first 15 bytes of its name."""
    info = ctypes.create_string_buffer(_MAP_INFO)
    _bpf(_INFO, "=IIQ", map_fd, _MAP_INFO, ctypes.addressof(info))
    return info.raw[_MAP_NAME : _MAP_NAME + 16].partition(b"\0")[0].decode()


def map_fd(number: int) -> int:
    """A descriptor of a map by id, which the caller closes. Raises FileNotFoundError."""
    return _bpf_fd(_MAP_BY_ID, "=III", number, 0, 0)
