"""Prepares a statement once and executes it again and again, in one session, whatever it is told: watch.py HOST"""

from __future__ import annotations

import sys
import time

from cassandra import Unauthorized
from cassandra.cluster import Cluster


def main(host: str) -> None:
    """Print what is found whenever it is something else than before."""
    session = Cluster([host]).connect()
    select, last = session.prepare("SELECT item FROM shop.orders WHERE id = 1"), ""
    while True:
        try:
            found = session.execute(select).one().item
        except Unauthorized as error:
            found = f"Unauthorized: {error}"
        if found != last:
            print(found, flush=True)
        last = found
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
