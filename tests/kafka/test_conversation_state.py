"""Dialogues of Kafka that depend on what was said before: fetch sessions, topic ids, SASL."""

from __future__ import annotations

import os
from typing import Any

import pytest

from l7proxy.kafka_known import KafkaKnown
from parsers.options import KafkaOptions
from tests.conversations import REQUEST
from tests.kafka.rig import (
    IDS,
    Rig,
    Teller,
    answer,
    ask,
    fetch,
    fetched,
    framed,
    metadata,
    produce,
    produced,
    say,
)

# -- fetch sessions ------------------------------------------------------------------------------------------------


def opened(*topics: str, judge: Teller | None = None, number: int = 77, known: KafkaKnown | None = None) -> Rig:
    """A connection with a session of these topics."""
    rig = Rig(judge, known).ask(fetch(*topics)).say(fetched(*topics, session=number))
    assert len(rig.served()) == 1 and rig.heard() == [fetched(*topics, session=number)]
    return rig


def lost(rig: Rig, version: int = 12) -> bool:
    """The client was told that it has no session, and the server heard nothing."""
    (frame,) = rig.heard()
    said = answer(frame, "Fetch", version)
    assert (said["session_id"], said["responses"]) == (0, []) and not rig.served()
    return bool(said["error_code"] == 70)


def test_a_session_goes_on() -> None:
    rig = opened("orders")
    for epoch in (1, 2, 3):
        rig.ask(fetch(session=77, epoch=epoch)).say(fetched(session=77))
        assert len(rig.served()) == 1 and rig.heard() == [fetched(session=77)]
        assert rig.topics() == {"orders": "FORWARDED"} and rig.told[-1][:2] == ("FORWARDED", "Fetch")
    count = len(rig.judge.judged)
    rig.ask(fetch(session=77, epoch=4)).say(fetched(session=77))
    assert len(rig.judge.judged) == count


@pytest.mark.parametrize("epoch", [0, 1, 5, -1])
def test_a_session_of_somebody_else(epoch: int) -> None:
    mine = opened("orders")
    thief = Rig(Teller(), mine.known, owner=301).ask(fetch(session=77, epoch=epoch))
    assert lost(thief) and thief.told == [("DROPPED", "Fetch", 1, 70, False)]
    # The same client on another connection has it.
    again = Rig(Teller(), mine.known).ask(fetch(session=77, epoch=1))
    assert len(again.served()) == 1


def test_sessions_that_nobody_knows() -> None:
    for session, epoch in ((5, 1), (5, 0), (5, -1), (0, 1), (-1, 1), (0, -2)):
        assert lost(Rig().ask(fetch(session=session, epoch=epoch))), (session, epoch)
    assert len(Rig().ask(fetch("orders", session=0, epoch=-1)).served()) == 1


def test_a_session_that_the_server_did_not_open() -> None:
    for reply in (fetched("orders"), fetched("orders", session=77, error=70)):
        rig = Rig().ask(fetch("orders")).say(reply)
        rig.heard(), rig.served()
        assert lost(rig.ask(fetch(session=77, epoch=1)))


def test_where_a_topic_is_refused_no_session_is_opened() -> None:
    rig = Rig().ask(fetch("orders", "secret-x"))
    ((_, tree),) = rig.served()
    assert (tree["session_id"], tree["session_epoch"], len(tree["topics"])) == (0, -1, 1)
    rig.say(fetched("orders"))
    said = answer(rig.heard()[0], "Fetch", 12)
    assert said["session_id"] == 0 and len(said["responses"]) == 2
    # All refused: the answer is ours.
    rig.ask(fetch("secret-x"))
    (one,) = answer(rig.heard()[0], "Fetch", 12)["responses"]
    assert one["partitions"][0]["error_code"] == 29 and not rig.served()


def test_a_session_is_judged_anew() -> None:
    rig = opened("orders", "payments")
    rig.talk.judge = Teller(refused=["payments"])
    assert lost(rig.ask(fetch(session=77, epoch=1)))
    assert rig.topics() == {"payments": "DROPPED", "orders": "FORWARDED"}
    assert lost(rig.ask(fetch(session=77, epoch=1)))
    # The client opens another, and gets what it may have.
    rig.ask(fetch("orders", "payments")).say(fetched("orders"))
    assert len(rig.served()) == 1 and len(answer(rig.heard()[0], "Fetch", 12)["responses"]) == 2
    rig.talk.judge = Teller()
    rig.ask(fetch("orders", "payments")).say(fetched("orders", "payments", session=78))
    assert rig.heard() == [fetched("orders", "payments", session=78)]


def test_another_client_id_is_judged_by_its_own_rules() -> None:
    rig = opened("orders", judge=Teller(clients=["other"]))
    request = ask("Fetch", 12, {"replica_id": -1, "session_id": 77, "session_epoch": 1}, client="other")
    assert lost(rig.ask(request))


def test_topics_that_come_into_a_session() -> None:
    rig = opened("orders")
    rig.ask(fetch("payments", session=77, epoch=1)).say(fetched("payments", session=77))
    assert len(rig.served()) == 1 and rig.heard()
    rig.talk.judge = Teller(refused=["payments"])
    assert lost(rig.ask(fetch(session=77, epoch=2)))
    rig = opened("orders")
    assert lost(rig.ask(fetch("secret-x", session=77, epoch=1)))
    many = opened("orders", judge=Teller(KafkaOptions(max_names=2)))
    assert len(many.ask(fetch("a", session=77, epoch=1)).served()) == 1
    many.say(fetched(session=77))
    many.heard()
    assert lost(many.ask(fetch("b", session=77, epoch=2)))


def test_a_session_that_the_server_has_ended() -> None:
    rig = opened("orders")
    rig.ask(fetch(session=77, epoch=1)).say(fetched(error=71))
    rig.heard(), rig.served()
    assert lost(rig.ask(fetch(session=77, epoch=2)))


def test_closing_a_session() -> None:
    rig = opened("orders")
    rig.ask(fetch(session=77, epoch=-1)).say(fetched())
    assert len(rig.served()) == 1 and rig.heard()
    assert lost(rig.ask(fetch(session=77, epoch=1)))


def test_sessions_are_forgotten() -> None:
    known = KafkaKnown(10, 2)
    for number in (1, 2, 3):
        opened("orders", number=number, known=known)
    assert len(known.sessions) == 2
    assert lost(Rig(Teller(), known).ask(fetch(session=1, epoch=1)))
    assert len(Rig(Teller(), known).ask(fetch(session=3, epoch=1)).served()) == 1


def test_sessions_in_audit_mode() -> None:
    rig = Rig(Teller(audit_only=True)).ask(fetch(session=5, epoch=1)).say(fetched(session=5))
    assert rig.server == fetch(session=5, epoch=1) and rig.client == fetched(session=5)
    assert rig.told == [("AUDIT", "Fetch", 1, 0, True)]
    rig.ask(fetch("secret-x", session=0, epoch=0)).say(fetched("secret-x", session=6))
    assert rig.told[1] == ("AUDIT", "Fetch", 1, 0, True) and rig.topics() == {"secret-x": "AUDIT"}


# -- share sessions ------------------------------------------------------------------------------------------------


def share(*topics: str, epoch: int = 0, group: str = "g", member: str = "m") -> bytes:
    named = [{"topic_id": IDS[one], "partitions": [{"partition_index": 0}]} for one in topics]
    tree = {"group_id": group, "member_id": member, "share_session_epoch": epoch, "topics": named}
    return ask("ShareFetch", 1, tree)


def shared(*topics: str, error: int = 0) -> bytes:
    named = [{"topic_id": IDS[one], "partitions": [{"partition_index": 0, "records": b"r"}]} for one in topics]
    return say("ShareFetch", 1, {"error_code": error, "responses": named})


def sharing(*topics: str, judge: Teller | None = None, error: int = 0) -> Rig:
    """A connection with a share session."""
    rig = Rig(judge)
    for name, topic_id in IDS.items():
        rig.known.topics.put((("10.0.0.9", 9092), topic_id), name, 1)
    rig.ask(share(*topics)).say(shared(*topics, error=error))
    rig.served(), rig.heard()
    return rig


def gone(rig: Rig) -> bool:
    (frame,) = rig.heard()
    assert not rig.served()
    return bool(answer(frame, "ShareFetch", 1)["error_code"] == 122)


def test_a_share_session_goes_on() -> None:
    rig = sharing("orders").ask(share(epoch=1)).say(shared("orders"))
    assert len(rig.served()) == 1 and rig.heard() == [shared("orders")]


def test_a_share_session_of_somebody_else() -> None:
    mine = sharing("orders")
    assert gone(Rig(Teller(), mine.known, owner=301).ask(share(epoch=1)))
    assert gone(Rig(Teller(), mine.known).ask(share(epoch=1, member="n")))
    assert gone(sharing("orders", error=30).ask(share(epoch=1)))


def test_a_share_session_is_judged_anew() -> None:
    rig = sharing("orders")
    rig.talk.judge = Teller(refused=["orders"])
    assert gone(rig.ask(share(epoch=1)))
    rig.ask(share("orders", "payments")).say(shared("payments"))
    assert len(rig.served()) == 1
    said = {
        one["topic_id"]: one["partitions"][0]["error_code"]
        for one in answer(rig.heard()[0], "ShareFetch", 1)["responses"]
    }
    assert said == {IDS["orders"]: 29, IDS["payments"]: 0}
    assert len(rig.ask(share(epoch=1)).say(shared()).served()) == 1
    rig.heard()
    # What its client believes to be in it is allowed now.
    rig.talk.judge = Teller()
    assert gone(rig.ask(share(epoch=2)))


# -- topic ids -----------------------------------------------------------------------------------------------------


def asked_for(rig: Rig) -> list[bytes]:
    """The ids of the proxy's question, the only thing that the server got."""
    ((head, tree),) = rig.served()
    assert (head.api_key, head.version, tree["allow_auto_topic_creation"]) == (3, 12, False)
    assert not any(one["name"] for one in tree["topics"])
    return [one["topic_id"] for one in tree["topics"]]


def test_the_server_is_asked_for_names() -> None:
    rig, data = Rig(), fetch("orders", version=13, number=9)
    rig.ask(produce("orders", number=8) + data + produce("orders", number=10))
    assert len(rig.served()) == 2 and rig.halves[REQUEST].waiting
    rig.say(produced("orders", number=8) + metadata(9, orders=IDS["orders"]))
    assert rig.heard() == [produced("orders", number=8)]
    rig.say(fetched("orders", version=13, number=9) + produced("orders", number=10))
    assert [head.correlation_id for head, _ in rig.served()] == [9, 10] and data in rig.server
    assert rig.heard() == [fetched("orders", version=13, number=9), produced("orders", number=10)]
    assert [one[1] for one in rig.told] == ["Produce", "Fetch", "Produce"] and rig.topics(1) == {"orders": "FORWARDED"}
    # Once is enough, on every connection to that server.
    again = Rig(Teller(), rig.known).ask(data)
    assert again.server == data


def test_ids_of_refused_topics() -> None:
    rig = Rig().ask(fetch("orders", "secret-x", version=13))
    assert asked_for(rig) == [IDS["orders"], IDS["secret-x"]]
    rig.say(metadata(orders=IDS["orders"], secret_x=IDS["secret-x"]))
    ((_, tree),) = rig.served()
    assert [one["topic_id"] for one in tree["topics"]] == [IDS["orders"]]
    rig.say(fetched("orders", version=13))
    said = answer(rig.heard()[0], "Fetch", 13)["responses"]
    assert {one["topic_id"]: one["partitions"][0]["error_code"] for one in said} == {
        IDS["secret-x"]: 29,
        IDS["orders"]: 0,
    }


def test_ids_that_nobody_knows() -> None:
    new = os.urandom(16)
    rig = Rig().ask(produce("orders", new, version=13))
    asked_for(rig)
    topics: list[dict[str, Any]] = [{"name": "orders", "topic_id": IDS["orders"]}, {"error_code": 100, "topic_id": new}]
    rig.say(say("Metadata", 12, {"topics": topics}))
    ((_, tree),) = rig.served()
    assert [one["topic_id"] for one in tree["topic_data"]] == [IDS["orders"]]
    rig.say(produced("orders", version=13))
    said = answer(rig.heard()[0], "Produce", 13)["responses"]
    codes = {one["topic_id"]: one["partition_responses"][0]["error_code"] for one in said}
    assert codes == {IDS["orders"]: 0, new: 100} and rig.topics()[new.hex()] == "DROPPED"
    # It is asked for again: it may be there now. A server that says nothing of it says no.
    rig.ask(produce(new, version=13))
    assert asked_for(rig) == [new]
    rig.say(metadata())
    assert answer(rig.heard()[0], "Produce", 13)["responses"][0]["partition_responses"][0]["error_code"] == 100
    # One that the server refuses to name is refused as it does.
    rig.ask(produce(new, version=13)).say(say("Metadata", 12, {"topics": [{"error_code": 29, "topic_id": new}]}))
    assert answer(rig.heard()[0], "Produce", 13)["responses"][0]["partition_responses"][0]["error_code"] == 29


def test_a_refused_transaction_is_said_of_unknown_topics_too() -> None:
    new = os.urandom(16)
    data = [{"topic_id": one, "partition_data": [{"index": 0, "records": b"r"}]} for one in (IDS["orders"], new)]
    rig = Rig().ask(ask("Produce", 13, {"transactional_id": "secret", "acks": 1, "topic_data": data}))
    rig.say(
        say(
            "Metadata",
            12,
            {"topics": [{"name": "orders", "topic_id": IDS["orders"]}, {"error_code": 100, "topic_id": new}]},
        )
    )
    rows = answer(rig.heard()[0], "Produce", 13)["responses"]
    assert [row["partition_responses"][0]["error_code"] for row in rows] == [53, 53]


def test_no_id_is_no_topic() -> None:
    rig = Rig().ask(fetch(bytes(16), version=13))
    assert rig.server == b"" and rig.told == [("DROPPED", "Fetch", 1, 100, False)]


def test_one_servers_word_is_not_believed_of_another() -> None:
    known = KafkaKnown(10, 10)
    known.topics.put((("10.6.6.6", 9092), IDS["secret-x"]), "orders", 1)
    rig = Rig(Teller(), known).ask(fetch("secret-x", version=13))
    assert asked_for(rig) == [IDS["secret-x"]]


def test_the_id_decides() -> None:
    topics = [{"name": "orders", "topic_id": IDS["secret-x"]}]
    rig = Rig().ask(ask("Metadata", 12, {"topics": topics}))
    assert asked_for(rig) == [IDS["secret-x"]]
    rig.say(metadata(secret_x=IDS["secret-x"]))
    ((_, tree),) = rig.served()
    assert tree["topics"] == []


def test_a_held_request_waits_for_names() -> None:
    rig, data = Rig(), fetch("orders", version=13)
    rig.ask(data[:20]).ask(data[20:] + produce("orders", number=2))
    assert asked_for(rig) == [IDS["orders"]]
    rig.say(metadata(orders=IDS["orders"]))
    assert rig.server.endswith(data + produce("orders", number=2))


def test_names_in_audit_mode() -> None:
    new = os.urandom(16)
    rig = Rig(Teller(audit_only=True)).ask(fetch("secret-x", new, version=13)).say(metadata(secret_x=IDS["secret-x"]))
    assert rig.server.endswith(fetch("secret-x", new, version=13))
    rig.say(fetched("secret-x", version=13))
    assert rig.told == [("AUDIT", "Fetch", 1, 0, True)] and rig.topics() == {"secret-x": "AUDIT", new.hex(): "AUDIT"}


# -- SASL ----------------------------------------------------------------------------------------------------------

SHAKEN = say("SaslHandshake", 0, {"error_code": 0, "mechanisms": ["PLAIN"]})


def shake(mechanism: str = "PLAIN", version: int = 0) -> bytes:
    return ask("SaslHandshake", version, {"mechanism": mechanism})


def test_tokens_of_plain() -> None:
    token = framed(b"\0user\0word")
    rig = Rig().ask(shake() + token + produce("orders"))
    assert rig.server == shake()
    rig.say(SHAKEN)
    assert rig.server == shake() + token + produce("orders")
    rig.say(framed(b"") + produced("orders"))
    assert rig.client == SHAKEN + framed(b"") + produced("orders") and rig.ending is None
    assert [one[1] for one in rig.told] == ["SaslHandshake", "Produce"]
    assert not rig.ask(produce("secret-x")).server.endswith(produce("secret-x"))


def test_one_token_of_plain_is_all() -> None:
    rig = Rig().ask(shake()).say(SHAKEN).ask(produce("secret-x") + produce("secret-x"))
    assert rig.server == shake() + produce("secret-x")
    rig.finish()
    assert rig.told[1][:2] == ("DROPPED", "Produce")


def test_tokens_of_other_mechanisms() -> None:
    rig = Rig().ask(shake("SCRAM-SHA-256")).say(SHAKEN)
    for _ in range(3):
        rig.ask(framed(b"n,,n=user") + framed(b"")).say(framed(b"r=") + framed(b""))
    assert rig.server.endswith((framed(b"n,,n=user") + framed(b"")) * 3)
    rig.ask(produce("secret-x"))
    assert not rig.server.endswith(produce("secret-x")) and rig.told[-1][:2] == ("DROPPED", "Produce")
    # Once a request has come, no token is one.
    assert rig.ask(framed(b"n,,n=user")).closed


@pytest.mark.parametrize(
    ("version", "reply"),
    [(0, say("SaslHandshake", 0, {"error_code": 34})), (1, say("SaslHandshake", 1, {"error_code": 0}))],
)
def test_a_handshake_behind_which_requests_follow(version: int, reply: bytes) -> None:
    rig = Rig().ask(shake(version=version)).say(reply).ask(produce("secret-x"))
    assert rig.server == shake(version=version) and rig.told[-1][:2] == ("DROPPED", "Produce")
    assert rig.ask(framed(b"\0user\0word")).closed


def test_authentication_by_requests() -> None:
    data = ask("SaslAuthenticate", 2, {"auth_bytes": b"\0user\0word"})
    rig = Rig().ask(shake(version=1)).say(say("SaslHandshake", 1, {"error_code": 0})).ask(data)
    assert rig.server.endswith(data)
