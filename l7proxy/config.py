"""node.yaml: what it may hold, read and checked. Unknown keys and bad values are errors with file, line and key."""

from __future__ import annotations

import os
import socket
from dataclasses import astuple, dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from l7proxy.accelerate_config import AccelerateConfig, read_needed
from l7proxy.endpoint import Endpoint, check_together, endpoint_from_json, endpoint_from_node, interface_name
from l7proxy.limits import Limits
from l7proxy.schema import INVALID, Converter, bounds, describe, read, sequence, text
from parsers.options import CassandraOptions, HttpOptions, KafkaOptions
from policies.document import DocumentError, Node, Problem, load
from sockmap.config import DatapathConfig, Lifetimes

__all__ = [
    "AdminConfig",
    "DatapathOptions",
    "Endpoint",
    "FlowLogConfig",
    "NodeConfig",
    "PolicyChangeConfig",
    "RedactConfig",
    "endpoint_from_json",
    "load_config",
]


@dataclass(frozen=True, slots=True)
class RedactConfig:
    """What is left out of flow records. `query`: the query string of every URL. `headers`: names (any case) whose
    values are left out, beside those that always are: authorization, proxy-authorization, cookie, set-cookie."""

    query: bool = False
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowLogConfig:
    """`file`: where records go, ``-`` for stdout, None for nowhere but the admin API's `/flows`. It is moved aside as
    ``FILE.1`` .. ``FILE.keep`` at `max_bytes`. `headers`: record the request's headers as well."""

    file: str | None = None
    max_bytes: int = field(default=64 << 20, metadata=bounds(4096))
    keep: int = field(default=5, metadata=bounds(0, 1000))
    headers: bool = False
    redact: RedactConfig = RedactConfig()


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """`listen`: ``host:port`` or ``unix:/path``. Whoever can connect may change endpoints, so an address that is not
    loopback needs `allow_remote`. `hosts`: further names that a request's Host header may have."""

    listen: str = "127.0.0.1:9878"
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def unix_path(self) -> Path | None:
        """The socket's path, or None for TCP."""
        return Path(self.listen[5:]) if self.listen.startswith("unix:") else None

    @property
    def host_port(self) -> tuple[str, int]:
        """The address to listen on. Raises ValueError if `listen` is none."""
        host, colon, port = self.listen.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{self.listen!r} is neither host:port nor unix:/path")
        return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, slots=True)
class PolicyChangeConfig:
    """What a new policy does with what runs. `streams`: the next request message of a gRPC stream is judged by it, and
    the stream ``cut`` if it is refused; or ``keep``: a stream that was let through lives on."""

    streams: Literal["cut", "keep"] = "cut"


@dataclass(frozen=True, slots=True)
class DatapathOptions:
    """The kernel's side: where state is kept, which mark bits and routing table are ours, and the sizes of maps.

    The three values lie inside `mark_mask`, differ, and are not 0; the mark's upper 16 bits carry the identity.
    `event_rate` is drop events per second and CPU. `lifetimes` are seconds that a tracked flow lives without a packet.
    """

    state_dir: Path = Path("/run/l7proxy")
    mark_mask: int = field(default=0x0F00, metadata=bounds(1, 0xFFFF))
    mark_steer: int = field(default=0x0200, metadata=bounds(1, 0xFFFF))
    mark_proxy: int = field(default=0x0A00, metadata=bounds(1, 0xFFFF))
    mark_identity: int = field(default=0x0C00, metadata=bounds(1, 0xFFFF))
    route_table: int = field(default=2005, metadata=bounds(1, 0xFFFFFFFF))
    rule_priority: int = field(default=9, metadata=bounds(1, 32765))
    event_rate: int = field(default=1000, metadata=bounds(1, 1_000_000))
    ct_entries: int = field(default=262_144, metadata=bounds(1024, 1 << 24))
    frag_entries: int = field(default=8192, metadata=bounds(64, 1 << 24))
    ipcache_entries: int = field(default=524_288, metadata=bounds(1024, 1 << 24))
    policy_entries: int = field(default=4_194_304, metadata=bounds(1024, 1 << 26))
    lifetimes: Lifetimes = field(default_factory=Lifetimes)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All of node.yaml. Relative paths in it are relative to the file's folder.

    `workers` None means one for each CPU (`worker_count`). `on_proxy_down`: what the kernel does with flows that need
    the proxy while no worker lives. `on_upstream_refused`: what a client gets when its server cannot be reached.
    `allow_localhost`: whether the host itself reaches local endpoints whatever allow rules say (Cilium's default).
    `splice`: whether the proxy's own connections are, where the other end is on this node; `fast_path`: whether known
    requests go past it then. `accelerate`: which connections that are not proxied are spliced; None for none.
    """

    policies: tuple[Path, ...]
    node_name: str = field(default_factory=socket.gethostname)
    mode: Literal["enforce", "audit"] = "enforce"
    endpoints: tuple[Endpoint, ...] = ()
    node_interfaces: tuple[str, ...] = ()
    flow_log: FlowLogConfig = FlowLogConfig()
    admin: AdminConfig = AdminConfig()
    workers: int | None = None
    on_proxy_down: Literal["closed", "open"] = "closed"
    on_upstream_refused: Literal["reset", "503"] = "reset"
    on_policy_change: PolicyChangeConfig = PolicyChangeConfig()
    allow_localhost: Literal["never", "always"] = "never"
    limits: Limits = field(default_factory=Limits)
    http: HttpOptions = field(default_factory=HttpOptions)
    kafka: KafkaOptions = field(default_factory=KafkaOptions)
    cassandra: CassandraOptions = field(default_factory=CassandraOptions)
    datapath: DatapathOptions = DatapathOptions()
    splice: bool = False
    fast_path: bool = True
    accelerate: AccelerateConfig | None = None
    file: Path = field(default=Path("node.yaml"), init=False)

    @property
    def audit(self) -> bool:
        """True if the whole node only records what it would refuse."""
        return self.mode == "audit"

    @property
    def worker_count(self) -> int:
        """How many worker processes to run."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def datapath_config(self) -> DatapathConfig:
        """All that the datapath is told."""
        options = {option.name: getattr(self.datapath, option.name) for option in fields(self.datapath)}
        return DatapathConfig(**options, workers=self.worker_count, on_proxy_down=self.on_proxy_down)


def load_config(path: Path | str) -> NodeConfig:
    """Read node.yaml. Raises DocumentError with every problem found."""
    file = Path(path)
    documents = load(file)
    if len(documents) != 1:
        raise DocumentError([Problem(str(file), 0, "", f"holds {len(documents)} documents, not one configuration")])
    problems: list[Problem] = []
    config = read(NodeConfig, documents[0], problems, _converters(file.absolute().parent))
    if config is not None:
        _check_node(config, documents[0], problems)
    if problems or config is None:
        raise DocumentError(problems)
    # `file` is no key of the schema, so it is not an argument either.
    object.__setattr__(config, "file", file)
    return config


def _check_node(config: NodeConfig, root: Node, problems: list[Problem]) -> None:
    items = _items(root, "endpoints")
    if len(items) == len(config.endpoints):
        check_together(list(zip(config.endpoints, items, strict=True)), problems)
    if config.limits.buffered_bytes < config.http.max_head:
        place = root.get("limits") or root.get("http") or root
        problems.append(
            place.problem(
                f"buffered_bytes {config.limits.buffered_bytes} is less than http.max_head {config.http.max_head}: "
                "a head of that size would never be complete"
            )
        )
    owned = {endpoint.interface: endpoint.name for endpoint in config.endpoints if endpoint.interface}
    for item in _items(root, "node_interfaces"):
        if isinstance(item.value, str) and item.value in owned:
            problems.append(item.problem(f"interface {item.value} belongs to endpoint {owned[item.value]!r} already"))


def _items(root: Node, key: str) -> list[Node]:
    node = root.get(key)
    return node.value if node is not None and isinstance(node.value, list) else []


def _converters(folder: Path) -> dict[str, Converter]:
    return {
        "endpoints": _each(lambda node, problems: endpoint_from_node(node, problems) or INVALID),
        "node_interfaces": _each(interface_name),
        "policies": _each(lambda node, problems: _existing(folder, node, problems)),
        "flow_log": lambda node, problems: _flow_log(folder, node, problems),
        "admin": lambda node, problems: _admin(folder, node, problems),
        "workers": _workers,
        "datapath": _datapath,
        "accelerate": read_needed,
    }


def _each(convert: Converter) -> Converter:
    """A converter for lists of what `convert` takes."""

    def collect(node: Node, problems: list[Problem]) -> Any:
        items = [convert(item, problems) for item in sequence(node, problems)]
        return tuple(item for item in items if item is not INVALID)

    return collect


def _existing(folder: Path, node: Node, problems: list[Problem]) -> Any:
    value = text(node, problems)
    if value is INVALID:
        return value
    path = folder / value
    try:
        path.stat()
    except (OSError, ValueError) as error:
        cause = "there is no such file or folder" if isinstance(error, FileNotFoundError) else str(error)
        problems.append(node.problem(f"{path}: {cause}"))
        return INVALID
    return path


def _flow_log(folder: Path, node: Node, problems: list[Problem]) -> Any:
    value = read(FlowLogConfig, node, problems)
    if value is None or value.file in (None, "-"):
        return value or INVALID
    return replace(value, file=str(folder / str(value.file)))


def _admin(folder: Path, node: Node, problems: list[Problem]) -> Any:
    value = read(AdminConfig, node, problems)
    if value is None:
        return INVALID
    place = node.get("listen") or node
    if value.unix_path is not None:
        return replace(value, listen=f"unix:{folder / value.unix_path}")
    try:
        host, _ = value.host_port
    except ValueError as error:
        problems.append(place.problem(str(error)))
        return INVALID
    if not value.allow_remote and not _is_loopback(host):
        message = f"{host} is not a loopback address: anyone who reaches it could change endpoints; "
        problems.append(place.problem(message + "set allow_remote: true if that is meant"))
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _workers(node: Node, problems: list[Problem]) -> Any:
    count = node.value
    if count == "auto":
        return None
    if isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= 256:
        return count
    problems.append(node.problem(f"must be auto, or 1 to 256, not {describe(node)}"))
    return INVALID


def _datapath(node: Node, problems: list[Problem]) -> Any:
    value = read(DatapathOptions, node, problems)
    if value is None:
        return INVALID
    if not value.state_dir.is_absolute():
        problems.append((node.get("state_dir") or node).problem("must be an absolute path"))
    if min(astuple(value.lifetimes)) < 1:
        problems.append((node.get("lifetimes") or node).problem("a lifetime is at least 1 second"))
    names = ("mark_steer", "mark_proxy", "mark_identity")
    marks: list[int] = [getattr(value, name) for name in names]
    for name, mark in zip(names, marks, strict=True):
        if mark & ~value.mark_mask or marks.count(mark) > 1:
            place = node.get(name) or node.get("mark_mask") or node
            problems.append(
                place.problem(f"{name} {mark:#x} must lie inside mark_mask {value.mark_mask:#x} and differ")
            )
    return value
