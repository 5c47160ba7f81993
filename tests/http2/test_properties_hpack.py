"""Ten thousand random refusals, and the tables of both ends are still in step."""

from __future__ import annotations

from random import Random

import pytest

from tests.http2.frames import encoder, grpc, request
from tests.http2.peers import Peer, Wire
from tests.http2.rig import Stage

REFUSALS = 1700
SIZES = (0, 64, 4096, 100, 16_384)


def random_request(random: Random) -> list[tuple[bytes, bytes]]:
    """Fields of which many come again, some are large, and some never do."""
    path = random.choice(("/public", "/secret")) + random.choice((".S/M", "/x", f"/{random.randrange(50)}"))
    more = [("x-" + random.choice("abc"), random.choice("abcd") * random.choice((1, 5, 60))) for _ in range(3)]
    if random.random() < 0.05:
        more.append(("x-large", random.choice("xy") * random.randrange(1, 3900)))
    return grpc(path, *more) if random.random() < 0.3 else request(path, *more)


def answer(random: Random, number: int) -> list[tuple[bytes, bytes]]:
    return [(b":status", random.choice((b"200", b"404", b"418"))), (b"x-n", b"%d" % (number % random.choice((3, 999))))]


@pytest.mark.parametrize("shrinks", [True, False], ids=["as it is told", "as it likes"])
@pytest.mark.parametrize("size", [0, 64, 4096])
def test_tables_stay_in_step(size: int, shrinks: bool) -> None:
    random = Random(size + shrinks)
    client = Peer(client=True, options={1: size, 2: 0}) if shrinks else Wire(client=True, options=((1, size),))
    if isinstance(client, Wire):
        client.encoder = encoder()  # Of 4096 bytes, whatever it is told.
        client.decoder.max_allowed_table_size = max(SIZES)
    stage = Stage(client=client, server=Peer(client=False, options={1: size}))
    refusals, number = 0, 0
    while refusals < REFUSALS:
        asked = {
            stage.client.ask(fields): fields for fields in [random_request(random) for _ in range(random.randrange(9))]
        }
        stage.settle()
        for stream, fields in asked.items():
            number += 1
            if dict(fields)[b":path"].startswith(b"/secret"):
                refusals += 1
                assert stream not in stage.server.seen and stage.client.seen[stream].ended
                continue
            assert stage.server.seen[stream].fields == fields
            said = answer(random, number)
            stage.server.reply(stream, said)
            stage.settle()
            assert stage.client.seen[stream].fields == said
        if random.random() < 0.02:
            changed = random.choice(SIZES)
            stage.server.change({1: changed})
            if shrinks:
                stage.client.change({1: random.choice(SIZES)})
        stage.rig.ops.clear()
        stage.lines.clear()
    assert [one.request.decision.verdict.value for one in stage.rig.records].count("DROPPED") == refusals
    assert len(stage.rig.records) == number and stage.ending is None
