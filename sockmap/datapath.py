"""The datapath of one node: BPF programs at its interfaces and cgroups, and the maps that tell them what holds."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

from sockmap import bpfmap, cgroups
from sockmap.config import DatapathConfig, DatapathError, IpEntry, Lifetimes, ProxyDown
from sockmap.events import Event, decode
from sockmap.flows import FLOW_KEY, FLOW_VALUE
from sockmap.netlink import Netlink
from sockmap.node import NodeChanges
from sockmap.program import SK_LOOKUP_ATTACH, Names, Program
from sockmap.rows import PolicyRow, RowVerdict, port_prefixes
from sockmap.state import StateFile, peek
from sockmap.tables import ENDPOINT, IPCACHE_KEY, NO_GENERATION, POLICY_KEY, Attached, Network, Tables

__all__ = [
    "Datapath",
    "DatapathConfig",
    "DatapathError",
    "Event",
    "IpEntry",
    "Lifetimes",
    "PolicyRow",
    "RowVerdict",
    "cleanup",
    "port_prefixes",
    "status",
]

Address = IPv4Address | IPv6Address | str
_CONFIG = struct.Struct("=IIII")
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


class Datapath:
    """The kernel's half of one node. Its methods are not thread-safe.

    Taking it up: loads the programs, sets up policy routing, and takes over what a killed predecessor left. Policy
    and addresses are set first, then hooks attached; nothing is attached before there is a policy.
    """

    def __init__(self, config: DatapathConfig) -> None:
        """Raises DatapathError: bad settings, another instance on this node, programs the kernel refuses."""
        config.check()
        self.config = config
        self._file = StateFile(config.state_dir)
        self._netlink: Netlink | None = None
        try:
            self._netlink = Netlink()
            self._node = NodeChanges(self._file, self._netlink)
            self._is_first = self._file.state.is_empty()
            self._inherited = dict.fromkeys(self._node.interfaces())
            self._inherited_cgroups = {entry[0] for entry in self._file.state.cgroups}
            self._load()
            self._lookup_link = self._attach_lookup()
            self._node.add_routing(config)
        except BaseException:
            self._give_up()
            raise

    def _load(self) -> None:
        self._names = Names.read()
        program = self._program = Program(self.config)
        self._config_map = program.map("config", 4, _CONFIG.size)
        self._counts = program.map("counts", 4, 8 * _possible_cpus())
        self._endpoints = program.map("endpoints", 4, ENDPOINT.size)
        self._host_endpoints = program.map("host_endpoints", 4, 4)
        self._cgroups = program.map("cgroups", 8, 4)
        policy = program.map("policy", POLICY_KEY.size, 4)
        self._tables = Tables(policy, program.map("ipcache", IPCACHE_KEY.size, ENDPOINT.size))
        self.flows_fd, self.listeners_fd = program.map_fd("flows"), program.map_fd("listeners")
        self._flows = bpfmap.BpfMap(self.flows_fd, FLOW_KEY.size, FLOW_VALUE.size)
        self._events: list[Event] = []
        program.bpf["events"].open_ring_buffer(self._take_event)
        self._proxy_down: ProxyDown = self.config.on_proxy_down
        self._attached: dict[str, Attached] = {}
        self._services: dict[Path, tuple[int, int]] = {}
        self._write_config()
        self._inherit_flows()

    def _attach_lookup(self) -> int:
        """A link that ends with this process; there is nothing to clean up after it."""
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return bpfmap.link_netns(self._program.fds["find_listener"], namespace, SK_LOOKUP_ATTACH)
        except OSError as error:
            raise DatapathError(f"the look-up of listeners cannot be attached: {error.strerror}") from error
        finally:
            os.close(namespace)

    def _give_up(self) -> None:
        """After a failed start: what a predecessor left stays as it is, else all is undone."""
        first = self._netlink is not None and self._is_first
        if self._netlink is not None:
            if first:
                self._node.undo()
            self._netlink.close()
        self._file.close(forget=first)

    def _inherit_flows(self) -> None:
        """The connections a predecessor tracked go on, to be judged anew at their next packet."""
        state = self._file.state
        if state.flows_map:
            with suppress(OSError):  # no program and no process may hold the old map any more
                _copy_flows(state.flows_map, self._flows)
        state.flows_map = bpfmap.map_id(self.flows_fd)
        self._file.write()

    # -- hooks ---------------------------------------------------------------------------------------------------

    def attach_endpoint(self, interface: str, endpoint_id: int, identity: int, addresses: Iterable[Address]) -> None:
        """Manage the workload behind the host-side interface. Its packets must come from `addresses`, or others that
        stage_policy gave this endpoint. Raises DatapathError."""
        self._need_policy()
        ifindex = self._node.netlink.ifindex(interface)
        networks = tuple(ip_network(str(address)) for address in addresses)
        self._endpoints.update(_U32.pack(ifindex), ENDPOINT.pack(identity, endpoint_id))
        self._attached[interface] = Attached(ifindex, endpoint_id, identity, networks)
        try:
            self._tables.sync(self._attached.values())
            self._hook(interface, from_="from_endpoint", to="to_endpoint")
        except BaseException:
            self.detach_endpoint(interface)
            raise

    def detach_endpoint(self, interface: str) -> None:
        """Stop managing it. Raises DatapathError if it is not attached."""
        attached = self._attached.get(interface)
        if attached is None:
            raise DatapathError(f"interface {interface} is not attached")
        self._node.detach(attached.ifindex, interface)
        del self._attached[interface]
        self._endpoints.delete(_U32.pack(attached.ifindex))
        self._tables.sync(self._attached.values())

    def attach_node_interface(self, interface: str) -> None:
        """Judge what comes from outside, and what services of the host send there. Raises DatapathError."""
        self._need_policy()
        self._hook(interface, from_="from_netdev", to="to_netdev")

    def attach_loopback(self) -> None:
        """Judge what services of the host send each other, and turn packets to the proxy. Raises DatapathError."""
        self._need_policy()
        self._hook("lo", from_="from_loopback", to=None)

    def _hook(self, interface: str, *, from_: str, to: str | None) -> None:
        fds = self._program.fds
        programs: dict[Any, tuple[int, str]] = {"ingress": (fds[from_], from_)}
        if to is not None:
            programs["egress"] = (fds[to], to)
        ifindex = self._node.attach(interface, programs, self.config.filter_priority)
        self._inherited.pop((ifindex, interface), None)

    def attach_cgroup(self, cgroup: str, identity: int, endpoint_id: int) -> None:
        """Manage the host's processes in a cgroup (its path below the cgroup2 mount, or in full) and those in cgroups
        below it that are not attached themselves. Raises DatapathError."""
        self._need_policy()
        path = cgroups.resolve(cgroup)
        self._services[path] = (identity, endpoint_id)
        self._host_endpoints.update(_U32.pack(identity), _U32.pack(endpoint_id))
        self._cgroups.update(_U64.pack(cgroups.cgroup_id(path)), _U32.pack(identity))
        self._write_config()
        mark = self.config.mark_identity | identity << 16
        self._node.attach_cgroup(path, self._program.fds["mark_socket"], mark, self._ours)
        self._inherited_cgroups.discard(str(path))

    def detach_cgroup(self, cgroup: str) -> None:
        """Stop managing it; the marks of its sockets are taken off. Raises DatapathError if it is not attached."""
        path = cgroups.path_of(cgroup)
        if path not in self._services:
            raise DatapathError(f"cgroup {cgroup} is not attached")
        identity, _ = self._services.pop(path)
        self._node.detach_cgroup(path)
        if path.is_dir():
            self._cgroups.delete(_U64.pack(cgroups.cgroup_id(path)))
        others = [endpoint for number, endpoint in self._services.values() if number == identity]
        if others:
            self._host_endpoints.update(_U32.pack(identity), _U32.pack(others[0]))
        else:
            self._host_endpoints.delete(_U32.pack(identity))
        self._write_config()

    def drop_inherited(self) -> list[str]:
        """Take away what a killed predecessor had attached and this instance has not; says what. Called once all that
        is wanted is attached: until then those hooks keep to the predecessor's last policy."""
        done = []
        for ifindex, interface in self._inherited:
            done += self._node.detach(ifindex, interface)
        for path in self._inherited_cgroups:
            done += self._node.detach_cgroup(Path(path))
        self._inherited, self._inherited_cgroups = {}, set()
        return done

    # -- what holds ----------------------------------------------------------------------------------------------

    def stage_policy(self, rows: Iterable[PolicyRow], entries: Mapping[Network, IpEntry], *, generation: int) -> None:
        """Write a policy and who has which address beside what is in force, all of it or nothing; switch_policy makes
        it count. In place of what was staged before; attaching or detaching an endpoint gives it up.

        The longest prefix counts, and what none holds is world (identity 2). An endpoint without rows in a direction
        is open there. `generation` (1 to 2**32 - 2) differs from the one in force. Raises DatapathError.
        """
        self._tables.stage(rows, entries, self._attached.values(), generation)

    def switch_policy(self) -> None:
        """Put in force what is staged, in one step: a word in the programs' configuration. Raises DatapathError if
        nothing is."""
        self._tables.switch(self._write_config)

    def set_proxy_down(self, mode: ProxyDown) -> None:
        """What happens to flows that need the proxy while no worker has a listener: dropped, or let through."""
        self._proxy_down = mode
        self._write_config()

    def _write_config(self) -> None:
        value = _CONFIG.pack(self._tables.number, self._proxy_down == "open", len(self._services), 0)
        self._config_map.update(_U32.pack(0), value)

    # -- what happened -------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """The events since the last call."""
        self._program.bpf.ring_buffer_consume()
        events, self._events = self._events, []
        return events

    def _take_event(self, _context: Any, data: int, size: int) -> None:
        self._events.append(decode(ctypes.string_at(data, size), self._names.reasons))

    def counters(self) -> dict[str, int]:
        """Packets since the start: drops by reason, and those forwarded, steered to the proxy and audited; and how
        many events were lost to the limit of their rate."""
        names = {**self._names.reasons, **self._names.counters}
        return {name: self._count(index) for index, name in names.items()}

    def _count(self, index: int) -> int:
        value = self._counts.lookup(_U32.pack(index)) or b""
        return sum(number for (number,) in _U64.iter_unpack(value))

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the node exactly as it was."""
        self._node.undo()
        os.close(self._lookup_link)
        self._node.netlink.close()
        self._file.close(forget=True)
        self._program.close()

    @property
    def _ours(self) -> int:
        return self.config.mark_mask | 0xFFFF0000

    def _need_policy(self) -> None:
        if not self._tables.number:
            raise DatapathError("no policy is set yet: everything would pass")


def _copy_flows(number: int, to: bpfmap.BpfMap) -> None:
    fd = bpfmap.map_fd(number)
    try:
        source = bpfmap.BpfMap(fd, FLOW_KEY.size, FLOW_VALUE.size)
        to.update_many([(key, value[:8] + _U32.pack(NO_GENERATION) + value[12:]) for key, value in source.items()])
    finally:
        os.close(fd)


def _possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip().replace(",", "-")
    return int(last.rpartition("-")[2]) + 1


def cleanup(state_dir: Path) -> list[str]:
    """Remove what a killed instance left on the node; says what. Raises DatapathError while one runs."""
    file = StateFile(state_dir)
    netlink = Netlink()
    try:
        done = NodeChanges(file, netlink).undo()
    except BaseException:
        netlink.close()
        file.close(forget=False)
        raise
    netlink.close()
    file.close(forget=True)
    return done


def status(state_dir: Path) -> dict[str, Any]:
    """What runs and what is changed on the node, as JSON: pid (0: none), interfaces, cgroups."""
    state, pid = peek(state_dir)
    interfaces = sorted({entry[1] for entry in state.filters}) if state else []
    return {"pid": pid, "interfaces": interfaces, "cgroups": [entry[0] for entry in state.cgroups] if state else []}
