"""Dialogues: who says what, and exactly what server and client get, what is recorded, and how it ends."""

from __future__ import annotations

import pytest

from l7proxy.ops import FOREVER, Drop, Inject, Pass, Record, Wait
from parsers.options import HttpOptions
from tests.conversations import REQUEST, RESPONSE
from tests.http1.rig import DENIED, OK, PublicOnly, Rig, get
from tests.http1.scene import GET, LENGTH, WITH_LENGTH, Scene
from tests.http1.scenes_malformed import MALFORMED
from tests.http1.scenes_refused import REFUSED
from tests.http1.scenes_served import SERVED

SCENES = SERVED | REFUSED | MALFORMED


def perform(one: Scene, size: int = 0) -> Rig:
    """The scene, its lines in pieces of `size` bytes."""
    rig = Rig(PublicOnly(one.options, audit_only=one.audit_only))
    for who, data in one.lines:
        direction = REQUEST if who in "cC" else RESPONSE
        for start in range(0, len(data), size or len(data) or 1):
            rig.arrive(direction, data[start : start + (size or len(data))])
        rig.arrive(direction, b"", who.isupper())
    return rig.finish()


def check(one: Scene, rig: Rig) -> None:
    assert (rig.server, rig.client) == (one.server, one.client)
    assert rig.log == one.log
    assert type(rig.ending) is (one.ended or type(None)), rig.ending


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 31])
def test_scene(name: str, size: int) -> None:
    check(SCENES[name], perform(SCENES[name], size))


@pytest.mark.parametrize("name", SCENES)
def test_every_split_of_every_line(name: str) -> None:
    one = SCENES[name]
    for number, (who, data) in enumerate(one.lines):
        for cut in range(1, len(data)):
            before, after = (who.lower(), data[:cut]), (who, data[cut:])
            lines = [*one.lines[:number], before, after, *one.lines[number + 1 :]]
            check(one, perform(Scene(lines, one.server, one.client, one.log, one.ended, one.options, one.audit_only)))


def test_the_exact_operations() -> None:
    judge = PublicOnly()
    talk = Rig(judge).talk
    size, denied = len(GET), get("/secret", LENGTH, method="PUT")
    assert list(talk.receive(REQUEST, GET, False, 1.0)) == [Pass(size)]
    assert list(talk.receive(REQUEST, denied + b"he", False, 2.0)) == [Drop(len(denied) + 5)]
    assert list(talk.receive(REQUEST, WITH_LENGTH, False, 3.0)) == [Pass(len(WITH_LENGTH) + 5)]
    ops = list(talk.receive(RESPONSE, OK, False, 4.0))
    first, passed, injected, second = ops
    assert isinstance(first, Record) and (first.code, first.started, first.ended) == (200, 1.0, 4.0)
    assert (passed, injected) == (Pass(len(OK)), Inject(RESPONSE, DENIED))
    assert isinstance(second, Record) and (second.code, second.started, second.ended) == (403, 2.0, 4.0)
    assert list(talk.receive(RESPONSE, b"HTTP/1.1 200 OK\r\n\r\n", False, 5.0))[1:] == [Pass(FOREVER + 19)]


def test_the_pipeline_has_an_end() -> None:
    rig = Rig(PublicOnly(HttpOptions(max_pipeline=2))).ask(GET * 5)
    assert rig.server == GET * 2 and rig.ops[-1] == Wait()
    rig.say(OK)
    assert rig.server == GET * 3
    rig.say(OK * 2)
    assert rig.server == GET * 5
