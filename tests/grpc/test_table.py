"""What real clients do with HPACK's table when they are told SETTINGS_HEADER_TABLE_SIZE=0, as the proxy tells them.

All of them obey with the first block behind their acknowledgement, so that a block kept back for a refusal parts no
tables. What they sent before that is another matter, and the reason why the proxy re-encodes:

========================  =======================================================================================
grpcio, grpc-java, -go     wait for the server's SETTINGS: no block comes before the acknowledgement
curl --http2, the JDK's   begin with HTTP/1.1: none either
httpx                     the first block comes before and inserts into the table
nghttp, h2load            all requests that may be in flight come before, with insertions and references
========================  =======================================================================================

httpx and grpcio go on with literals that ask for a place in the table (RFC 7541, section 6.2.1): there is none.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.grpc import common
from tests.grpc.tap import Tap, read_block

HTTPX = """
import httpx, sys
with httpx.Client(http1=False, http2=True) as client:
    for url in sys.argv[1:]:
        client.get(url, headers={"x-token": "secret"})
"""
GRPCIO = [str(common.CLIENTS / f"{api}_client.py") for api in ("sync", "aio")]
CLIENTS = {
    "grpcio": [sys.executable, GRPCIO[0], "TARGET", "thousand"],
    "grpc.aio": [sys.executable, GRPCIO[1], "TARGET", "thousand"],
    "grpc-java": [*common.java(), "Client", "127.0.0.1", "PORT", "thousand"],
    "grpc-go": [*common.go(), "127.0.0.1", "PORT", "thousand"],
    "h2load": ["h2load", "-n40", "-c1", "-m2", "URLS"],
    "curl": ["curl", "-s", "-o", "/dev/null", "--http2", "URLS"],
    "httpx": [sys.executable, "-c", HTTPX, "URLS"],
    "jdk": [*common.java(), "Upgrading", "URL"],
}
WAITING = {"grpcio", "grpc.aio", "grpc-java", "grpc-go", "curl", "jdk"}
"""Clients that send no block before they have acknowledged the server's SETTINGS."""


def words(template: list[str], port: int) -> list[str]:
    """A command for a server on this port."""
    base = f"http://127.0.0.1:{port}"
    found = []
    for word in template:
        known = {"TARGET": [f"127.0.0.1:{port}"], "PORT": [str(port)], "URL": [base]}
        known["URLS"] = [f"{base}/public/{number}" for number in range(6)]
        found += known.get(word, [word])
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_obey_at_once(client: str) -> None:
    with Tap() as tap:
        subprocess.run(words(CLIENTS[client], tap.port), capture_output=True, check=True, timeout=60)
    blocks = max(tap.blocks, key=len)
    before, behind = ([block for block in blocks if block.acknowledged is so] for so in (False, True))
    assert len(behind) >= 5
    assert behind[0].sizes == [0] and not any(block.sizes for block in behind[1:])
    assert sum(block.references for block in behind) == 0
    assert not before or client not in WAITING


def test_the_tap_sees_a_client_that_does_not() -> None:
    block = read_block(b"\x3f\xe1\x1f\x20\x82\x40\x01a\x01b\xbe\x0f\x2f\x01c", acknowledged=True)
    assert (block.sizes, block.inserts, block.references) == ([4096, 0], 1, 2)
