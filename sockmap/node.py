"""Changes to the node: each is written down before it is made, and can be undone by this or a later process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sockmap import bpfmap, cgroups
from sockmap.config import DatapathConfig, DatapathError
from sockmap.netlink import Hook, Netlink
from sockmap.state import StateFile

_CONF = Path("/proc/sys/net/ipv4/conf")
_IPV6 = Path("/proc/sys/net/ipv6")
_LOOPBACK = 1


class NodeChanges:
    """The node as we change it."""

    def __init__(self, file: StateFile, netlink: Netlink) -> None:
        self.file, self.netlink = file, netlink

    # -- TC ------------------------------------------------------------------------------------------------------

    def attach(self, interface: str, programs: dict[Hook, tuple[int, str]], priority: int) -> int:
        """Attach (program descriptor, name) by hook; returns the interface's index. Raises DatapathError."""
        ifindex = self.netlink.ifindex(interface)
        if not self.netlink.has_clsact(ifindex):
            self.file.add("qdiscs", [ifindex, interface])
            self.netlink.add_clsact(ifindex)
        for hook, (fd, name) in programs.items():
            self._check_free(ifindex, interface, hook, priority)
            self.file.add("filters", [ifindex, interface, hook, priority])
            self.netlink.put_filter(ifindex, hook, fd, name, priority)
        return ifindex

    def _check_free(self, ifindex: int, interface: str, hook: Hook, priority: int) -> None:
        if [ifindex, interface, hook, priority] in self.file.state.filters:
            return
        for at, name in self.netlink.filters(ifindex, hook):
            if at == priority:
                raise DatapathError(f"{interface}: TC {hook} priority {priority} is taken by {name}")

    def detach(self, ifindex: int, interface: str) -> list[str]:
        """Undo attach; says what was taken away. An interface that is gone took everything with it."""
        done = []
        there = _is_there(ifindex, interface)
        for entry in [e for e in self.file.state.filters if e[:2] == [ifindex, interface]]:
            if there and self.netlink.delete_filter(ifindex, entry[2], entry[3]):
                done.append(f"TC {entry[2]} filter of {interface}")
            self.file.remove("filters", entry)
        if [ifindex, interface] in self.file.state.qdiscs:
            if there and self._is_empty(ifindex) and self.netlink.delete_clsact(ifindex):
                done.append(f"clsact of {interface}")
            self.file.remove("qdiscs", [ifindex, interface])
        return done

    def _is_empty(self, ifindex: int) -> bool:
        return not self.netlink.filters(ifindex, "ingress") and not self.netlink.filters(ifindex, "egress")

    # -- policy routing ------------------------------------------------------------------------------------------

    def add_routing(self, config: DatapathConfig) -> None:
        """Marked packets are local, whatever their address. Raises DatapathError."""
        if not self.netlink.is_up(_LOOPBACK):
            raise DatapathError("lo is down, and the proxy gets its packets over it: `ip link set lo up` first")
        mark = (config.rule_priority, config.mark_steer, config.mark_mask, config.route_table)
        for family in _families():
            self._add("rules", [family, *mark])
            self._add("routes", [family, config.route_table])
        self._set_sysctl(_CONF / "lo/accept_local", "1")
        # Strict filtering would drop what comes back over lo; the greater of all and lo holds, and 2 is loose.
        if (_CONF / "all/rp_filter").read_text().strip() == "1" or (_CONF / "lo/rp_filter").read_text().strip() == "1":
            self._set_sysctl(_CONF / "lo/rp_filter", "2")

    def _add(self, kind: str, entry: list[int]) -> None:
        known = entry in getattr(self.file.state, kind)
        self.file.add(kind, entry)
        done = self.netlink.add_rule(*entry) if kind == "rules" else self.netlink.add_local_route(*entry)
        if not done and not known:
            self.file.remove(kind, entry)  # it was there before, so it is not ours to take away

    def _set_sysctl(self, path: Path, value: str) -> None:
        old = path.read_text(encoding="ascii").strip()
        if old != value:
            self.file.add("sysctls", [str(path), old])
            path.write_text(value, encoding="ascii")

    def remove_routing(self) -> list[str]:
        """Undo add_routing."""
        done = []
        state, netlink = self.file.state, self.netlink
        for rule in list(state.rules):
            if netlink.delete_rule(*rule):
                done.append(f"{_family_name(rule[0])} rule {rule[1]}")
            self.file.remove("rules", rule)
        for route in list(state.routes):
            if netlink.delete_local_route(*route):
                done.append(f"{_family_name(route[0])} route in table {route[1]}")
            self.file.remove("routes", route)
        for path, old in list(state.sysctls):
            Path(path).write_text(old, encoding="ascii")
            done.append(f"{path} is {old} again")
            self.file.remove("sysctls", [path, old])
        return done

    # -- cgroups -------------------------------------------------------------------------------------------------

    def attach_cgroup(self, path: Path, prog_fd: int, mark: int, ours: int) -> None:
        """Mark the sockets of a cgroup, new ones by the program. A predecessor's program goes after ours has come."""
        older = [entry for entry in self.file.state.cgroups if entry[0] == str(path)]
        self.file.add("cgroups", [str(path), bpfmap.program_id(prog_fd), ours])
        with _directory(path) as fd:
            bpfmap.attach_cgroup(fd, prog_fd, cgroups.INET_SOCK_CREATE)
        for entry in older:
            self._detach_cgroup_program(entry)
        cgroups.mark_existing(path, mark, ours)

    def detach_cgroup(self, path: Path) -> list[str]:
        """Undo attach_cgroup, marks included."""
        done = []
        for entry in [e for e in self.file.state.cgroups if e[0] == str(path)]:
            if self._detach_cgroup_program(entry):
                done.append(f"program of cgroup {path}")
            cgroups.mark_existing(path, 0, entry[2])
        return done

    def _detach_cgroup_program(self, entry: list[object]) -> bool:
        path, number = Path(str(entry[0])), int(str(entry[1]))
        done = False
        if path.is_dir():
            with _directory(path) as fd:
                if number in bpfmap.cgroup_programs(fd, cgroups.INET_SOCK_CREATE):
                    prog_fd = bpfmap.program_fd(number)
                    bpfmap.detach_cgroup(fd, prog_fd, cgroups.INET_SOCK_CREATE)
                    os.close(prog_fd)
                    done = True
        self.file.remove("cgroups", entry)
        return done

    # -- all of it -----------------------------------------------------------------------------------------------

    def interfaces(self) -> Iterator[tuple[int, str]]:
        """Every interface that something is written down for."""
        state = self.file.state
        yield from {(entry[0], entry[1]): None for entry in [*state.filters, *state.qdiscs]}

    def undo(self) -> list[str]:
        """Leave the node as it was; says what was done."""
        done = []
        for ifindex, interface in list(self.interfaces()):
            done += self.detach(ifindex, interface)
        for path in {entry[0] for entry in self.file.state.cgroups}:
            done += self.detach_cgroup(Path(path))
        return done + self.remove_routing()


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_there(ifindex: int, interface: str) -> bool:
    """Whether this is still the interface it was: a new one of the same name has another index."""
    try:
        return socket.if_nametoindex(interface) == ifindex
    except OSError:
        return False


def _families() -> list[int]:
    families = [int(socket.AF_INET)]
    if (_IPV6 / "conf/lo/disable_ipv6").exists() and (_IPV6 / "conf/lo/disable_ipv6").read_text().strip() == "0":
        families.append(int(socket.AF_INET6))
    return families


def _family_name(family: int) -> str:
    return "IPv6" if family == socket.AF_INET6 else "IPv4"
