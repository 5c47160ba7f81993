"""A stand-in for the worker processes: accepts steered connections and, if told, joins each to its server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from sockmap.datapath import Datapath
from sockmap.flows import FlowTable, ListenerTable

_TRANSPARENT = {socket.AF_INET: (socket.IPPROTO_IP, 19), socket.AF_INET6: (socket.IPPROTO_IPV6, 75)}


class Proxy:
    """Workers by number, each with a listener of either family.

    With `relay`, every connection is joined to its server under the client's address; without, the proxy itself
    answers what it is sent with ``(own address) (peer's address)`` in front.
    """

    def __init__(self, datapath: Datapath, mark: int) -> None:
        self._table, self._flows = ListenerTable(datapath.listeners_fd), FlowTable(datapath.flows_fd)
        self._mark = mark
        self._listeners: dict[int, list[socket.socket]] = {}
        self._relay = False
        self.accepted: list[tuple[Any, ...]] = []

    def start(self, workers: int = 1, *, relay: bool = False) -> None:
        """Open the listeners of workers 0..workers-1."""
        self._relay = relay
        for worker in range(workers):
            for offset, family in enumerate((socket.AF_INET, socket.AF_INET6)):
                sock = self._socket(family)
                sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
                sock.listen(128)
                self._table.put(2 * worker + offset, sock.fileno())
                self._listeners.setdefault(worker, []).append(sock)
                threading.Thread(target=self._accept, args=(sock, worker), daemon=True).start()

    def stop(self, worker: int) -> None:
        """The worker dies: its listeners close."""
        for sock in self._listeners.pop(worker):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def stop_all(self) -> None:
        """All workers die."""
        for worker in list(self._listeners):
            self.stop(worker)

    def seen(self) -> list[tuple[Any, ...]]:
        """(worker, own address, peer's address, flow) of each connection since the last call."""
        seen, self.accepted = self.accepted, []
        return seen

    def _socket(self, family: socket.AddressFamily) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(*_TRANSPARENT[family], 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock

    def _accept(self, listener: socket.socket, worker: int) -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=self._serve, args=(sock, worker), daemon=True).start()

    def _serve(self, client: socket.socket, worker: int) -> None:
        with suppress(ConnectionError), client:
            own, peer = client.getsockname()[:2], client.getpeername()[:2]
            flow = self._flows.lookup(*peer, *own)
            self.accepted.append((worker, own, peer, flow))
            if not self._relay:
                while data := client.recv(65536):
                    client.sendall(f"{own} {peer} ".encode() + data)
                    if data == b"bye":
                        break
                return
            with self._dial(client.family, peer, own, flow is not None and flow.host_server) as server:
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()

    def _dial(self, family: int, client: tuple[str, int], server: tuple[str, int], other_port: bool) -> socket.socket:
        for port in (0,) if other_port else (client[1], 0):
            sock = self._socket(socket.AddressFamily(family))
            try:
                sock.settimeout(5)
                sock.bind((client[0], port))
                sock.connect(server)
                sock.settimeout(None)
                return sock
            except OSError:
                sock.close()
                if port == 0:
                    raise
        raise AssertionError("not reached")


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
