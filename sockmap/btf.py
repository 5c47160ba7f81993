"""Where the running kernel keeps the fields of its structs: read from its BTF (Documentation/bpf/btf.rst).

The headers that bcc compiles against may be those of another kernel; they say nothing of private structs at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_STRUCT, _UNION, _TYPEDEF = 4, 5, 8
_ENTRY = {2: 0, 7: 0, 8: 0, 9: 0, 10: 0, 11: 0, 12: 0, 16: 0, 18: 0, 1: 4, 14: 4, 17: 4, 3: 12}
"""Bytes behind a type of each kind (section 2.2), whatever its number of entries."""
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes for each of its entries."""


class BtfError(Exception):
    """The kernel says nothing of a field, or no BTF is there."""


class Btf:
    """Structs and unions by their number and by name."""

    def __init__(self, data: bytes) -> None:
        """`data`: the whole of it. Raises BtfError."""
        try:
            magic, _, _, size, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
            if magic != _MAGIC:
                raise BtfError("this is no BTF of this machine's byte order")
            self._data = data
            self._strings = data[size + strings : size + strings + strings_size]
            self._places: dict[int, int] = {}
            self._named: dict[bytes, int] = {}
            self._typedefs: dict[bytes, int] = {}
            self._read(size + types, size + types + types_size)
        except (struct.error, KeyError) as error:
            raise BtfError(f"the BTF cannot be read: {error}") from error

    @classmethod
    def running(cls, path: Path = VMLINUX) -> Btf:
        """Of the kernel that runs. Raises BtfError."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise BtfError(f"{path}: {error.strerror} (is the kernel built with CONFIG_DEBUG_INFO_BTF?)") from error

    def _read(self, position: int, end: int) -> None:
        number = 0
        while position < end:
            number += 1
            name, info, _ = _TYPE.unpack_from(self._data, position)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind in (_STRUCT, _UNION):
                self._places[number] = position
                if name:
                    self._named.setdefault(self._text(name), number)
            elif kind == _TYPEDEF:
                self._typedefs[self._text(name)] = number
            position += _TYPE.size + (_EACH[kind] * count if kind in _EACH else _ENTRY[kind])

    def _text(self, offset: int) -> bytes:
        return self._strings[offset : self._strings.index(b"\0", offset)]

    def _members(self, number: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, type and offset in bits."""
        position = self._places[number]
        info = _TYPE.unpack_from(self._data, position)[1]
        for index in range(info & 0xFFFF):
            name, kind, offset = _MEMBER.unpack_from(self._data, position + _TYPE.size + index * _MEMBER.size)
            yield self._text(name), kind, offset & 0xFFFFFF if info >> 31 else offset

    def offset(self, name: str, member: str) -> int:
        """Bytes from the beginning of struct `name` to `member`, which may be in an anonymous part. Raises BtfError."""
        number = self._named.get(name.encode())
        found = None if number is None else self._find(number, member.encode())
        if found is None:
            raise BtfError(f"this kernel's struct {name} has no {member}")
        return found // 8

    def tracepoint(self, name: str) -> int:
        """The number of the type that describes what a tracepoint passes on. Raises BtfError."""
        number = self._typedefs.get(b"btf_trace_" + name.encode())
        if number is None:
            raise BtfError(f"this kernel has no tracepoint {name}")
        return number

    def _find(self, number: int, member: bytes) -> int | None:
        for name, kind, offset in self._members(number):
            if name == member:
                return offset
            inner = self._find(kind, member) if not name and kind in self._places else None
            if inner is not None:
                return offset + inner
        return None

    def offsets(self, fields: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """`offset` of each. Raises BtfError."""
        return {field: self.offset(*field) for field in fields}
