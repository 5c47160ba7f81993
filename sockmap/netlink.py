"""Links, TC filters, rules and routes through pyroute2.

pyroute2 runs an event loop of its own and so refuses to work in a thread where one runs already: all of it happens in
a thread kept for that.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sockmap.config import DatapathError

T = TypeVar("T")
Hook = Literal["ingress", "egress"]
_PARENTS: dict[Hook, int] = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_CLSACT = 0xFFFF0000
_ETH_P_ALL = 3
_HANDLE = 1
_SCOPE_HOST = 254
_IFF_UP = 1
NAME_PREFIX = "l7proxy/"


class Netlink:
    """This network namespace's configuration."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._ip: Any = self._thread.submit(IPRoute).result()

    def close(self) -> None:
        """Close the socket and end the thread."""
        self._call(self._ip.close)
        self._thread.shutdown()

    def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return self._thread.submit(function, *args, **kwargs).result()

    def _list(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        return self._thread.submit(lambda: list(function(*args, **kwargs))).result()

    def _unless(self, numbers: tuple[int, ...], function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """True if it was done, False if the kernel answered one of these errors."""
        try:
            self._call(function, *args, **kwargs)
        except NetlinkError as error:
            if error.code in numbers:
                return False
            raise
        return True

    # -- links and qdiscs ----------------------------------------------------------------------------------------

    def ifindex(self, interface: str) -> int:
        """Raises DatapathError if there is no such interface."""
        try:
            return socket.if_nametoindex(interface)
        except OSError as error:
            raise DatapathError(f"interface {interface}: {error.strerror}") from error

    def is_up(self, ifindex: int) -> bool:
        """Whether packets can pass the interface."""
        return any(link["flags"] & _IFF_UP for link in self._list(self._ip.get_links, ifindex))

    def has_clsact(self, ifindex: int) -> bool:
        """Whether the interface has a place for TC filters."""
        kinds = [qdisc.get_attr("TCA_KIND") for qdisc in self._list(self._ip.get_qdiscs, index=ifindex)]
        return "clsact" in kinds

    def add_clsact(self, ifindex: int) -> None:
        """Make the place. Raises NetlinkError."""
        self._call(self._ip.tc, "add", "clsact", ifindex)

    def delete_clsact(self, ifindex: int) -> bool:
        """Take it away, with every filter in it; False if it was not there."""
        gone = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
        return self._unless(gone, self._ip.tc, "del", "clsact", ifindex)

    # -- filters -------------------------------------------------------------------------------------------------

    def put_filter(self, ifindex: int, hook: Hook, prog_fd: int, name: str, priority: int) -> None:
        """Attach a program, in one step in place of the one that is there at this priority. Raises DatapathError."""
        where = {"parent": _PARENTS[hook], "prio": priority, "handle": _HANDLE, "protocol": _ETH_P_ALL}
        what = {"fd": prog_fd, "name": NAME_PREFIX + name, "classid": 1, "direct_action": True}
        try:
            self._call(self._ip.tc, "replace-filter", "bpf", ifindex, **where, **what)
        except NetlinkError as error:
            raise DatapathError(f"TC {hook} filter {priority} of interface {ifindex}: {error}") from error

    def delete_filter(self, ifindex: int, hook: Hook, priority: int) -> bool:
        """Detach our program, if it is ours; False if there is none."""
        if not any(name.startswith(NAME_PREFIX) and at == priority for at, name in self.filters(ifindex, hook)):
            return False
        where = {"parent": _PARENTS[hook], "prio": priority, "handle": _HANDLE, "protocol": _ETH_P_ALL}
        gone = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
        return self._unless(gone, self._ip.tc, "del-filter", "bpf", ifindex, **where)

    def filters(self, ifindex: int, hook: Hook) -> list[tuple[int, str]]:
        """(priority, name or kind) of every filter."""
        try:
            found = self._list(self._ip.get_filters, index=ifindex, parent=_PARENTS[hook])
        except NetlinkError:
            return []
        result = []
        for message in found:
            options = message.get_attr("TCA_OPTIONS")
            name = options.get_attr("TCA_BPF_NAME") if options is not None and hasattr(options, "get_attr") else None
            if name is not None or message.get("handle"):
                result.append((message["info"] >> 16, str(name or message.get_attr("TCA_KIND"))))
        return result

    # -- policy routing ------------------------------------------------------------------------------------------

    def add_rule(self, family: int, priority: int, mark: int, mask: int, table: int) -> bool:
        """Packets with the mark use the table; False if that rule is there already."""
        return self._rule("add", family, priority, mark, mask, table, errno.EEXIST)

    def delete_rule(self, family: int, priority: int, mark: int, mask: int, table: int) -> bool:
        """False if there is no such rule."""
        return self._rule("del", family, priority, mark, mask, table, errno.ENOENT)

    def _rule(self, verb: str, family: int, priority: int, mark: int, mask: int, table: int, known: int) -> bool:
        fields = {"priority": priority, "fwmark": mark, "fwmask": mask, "table": table, "family": family}
        return self._unless((known,), self._ip.rule, verb, **fields)

    def add_local_route(self, family: int, table: int) -> bool:
        """Every address is local, in this table; False if that route is there already."""
        return self._route("add", family, table, errno.EEXIST)

    def delete_local_route(self, family: int, table: int) -> bool:
        """False if there is no such route."""
        return self._route("del", family, table, errno.ESRCH)

    def _route(self, verb: str, family: int, table: int, known: int) -> bool:
        everything = "0.0.0.0/0" if family == socket.AF_INET else "::/0"
        fields: dict[str, Any] = {"dst": everything, "type": "local", "oif": 1, "table": table, "family": family}
        if family == socket.AF_INET:
            fields["scope"] = _SCOPE_HOST
        return self._unless((known, errno.ENOENT), self._ip.route, verb, **fields)
