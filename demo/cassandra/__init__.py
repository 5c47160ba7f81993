"""The demo of Cassandra: ``python -m demo.cassandra``."""
