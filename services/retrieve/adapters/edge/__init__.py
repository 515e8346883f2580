"""Qdrant Edge: the embedded engine, in a process of its own (ADR 0004).

`client` is the store as the servicer's process sees it; `engine` is the other process's main,
which puts `services.retrieve.adapters.index` over `shards`; `frames` is what the two say to each
other.
"""
