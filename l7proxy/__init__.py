"""l7proxy: a node-local, transparent, protocol-aware policy proxy."""

__version__ = "0.1.0"
