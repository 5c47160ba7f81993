"""The BPF programs: put together from their files, compiled by bcc and loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sockmap.bpfmap import BpfMap
from sockmap.config import DatapathConfig, DatapathError

BPF_DIR = Path(__file__).parent / "bpf"
TC_PROGRAMS = ("from_endpoint", "to_endpoint", "from_netdev", "to_netdev", "from_loopback")
_SK_LOOKUP = 30
"""enum bpf_prog_type BPF_PROG_TYPE_SK_LOOKUP, which bcc has no name for."""
SK_LOOKUP_ATTACH = 36
"""enum bpf_attach_type BPF_SK_LOOKUP."""
_INCLUDE = re.compile(r'#include "([a-z0-9_]+\.h)"\n')
_ROW = re.compile(r'\bX\((\w+), "([^"]*)"\)')


def source(name: str = "l7proxy.c") -> str:
    """One text: bcc rewrites map calls in its main file only, so the others are put in where they are included."""
    text = (BPF_DIR / name).read_text(encoding="utf-8")
    parts = []
    for position, piece in enumerate(_INCLUDE.split(text)):
        parts.append(source(piece) + "\n" if position % 2 else piece)
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of bpf/reasons.h by their index in the map of counts; index 0 is not used."""

    reasons: dict[int, str]
    counters: dict[int, str]

    @classmethod
    def read(cls) -> Names:
        """The table as the programs are compiled with it."""
        first, _, second = (BPF_DIR / "reasons.h").read_text(encoding="utf-8").partition("#define COUNTERS")
        reasons = [text for _, text in _ROW.findall(first)]
        counters = [text for _, text in _ROW.findall(second)]
        return cls(dict(enumerate(reasons, 1)), dict(enumerate(counters, len(reasons) + 1)))


class Program:
    """The loaded programs and their maps. Nothing is attached. Raises DatapathError if the kernel refuses them."""

    def __init__(self, config: DatapathConfig) -> None:
        from bcc import BPF  # at first use: importing it loads LLVM

        flags = [f"-D{name}={value}" for name, value in config.defines().items()]
        flags += ["-Wno-macro-redefined", "-Wno-address-of-packed-member", "-Wno-unused-function"]
        try:
            self.bpf: Any = BPF(text=source(), cflags=flags)
            self.fds = {name: self._load(name, BPF.SCHED_CLS) for name in TC_PROGRAMS}
            self.fds["mark_socket"] = self._load("mark_socket", BPF.CGROUP_SOCK)
            self.fds["find_listener"] = self._load("find_listener", _SK_LOOKUP, attach_type=SK_LOOKUP_ATTACH)
        except Exception as error:
            raise DatapathError(f"the BPF programs cannot be compiled or loaded: {error}") from error

    def _load(self, name: str, kind: int, attach_type: int = -1) -> int:
        fd: int = self.bpf.load_func(name, kind, attach_type=attach_type).fd
        return fd

    def map(self, name: str, key_size: int, value_size: int) -> BpfMap:
        """A map by its name in bpf/maps.h."""
        return BpfMap(self.map_fd(name), key_size, value_size)

    def map_fd(self, name: str) -> int:
        """The descriptor of a map, open as long as the programs are."""
        from bcc import lib

        fd: int = lib.bpf_table_fd(self.bpf.module, name.encode("ascii"))  # bcc's Table knows no sockmap
        if fd < 0:
            raise DatapathError(f"the BPF programs have no map {name}")
        return fd

    def close(self) -> None:
        """Give up the programs; those that are attached run on."""
        self.bpf.cleanup()
