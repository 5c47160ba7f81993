"""Notes an order and the card that pays for it, in one batch: buy.py HOST ID ITEM CARD"""

from __future__ import annotations

import sys

from cassandra import Unauthorized
from cassandra.cluster import Cluster
from cassandra.query import BatchStatement, SimpleStatement


def main(host: str, number: str, item: str, card: str) -> None:
    """One statement of it is prepared, the other is text."""
    cluster = Cluster([host])
    session = cluster.connect()
    batch = BatchStatement()
    batch.add(session.prepare("INSERT INTO shop.orders (id, item) VALUES (?, ?)"), (int(number), item))
    batch.add(SimpleStatement("INSERT INTO shop.cards (id, number) VALUES (%s, %s)"), (int(number), card))
    try:
        session.execute(batch)
        print("bought")
    except Unauthorized as error:
        print(f"Unauthorized: {error}")
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
