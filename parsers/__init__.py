"""Parsers: bytes to frames with typed, frozen facts. They do no I/O, log nothing and know no policy."""
