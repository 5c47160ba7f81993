"""The demo: a short play on a small network of namespaces. Run it with `make demo`."""
