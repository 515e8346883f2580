"""Qdrant Edge: the embedded engine, in a process of its own (ADR 0004).

`client` is the store as the servicer's process sees it; `engine` is the other process's main;
`shards`, `catalog`, `publisher` and `conditions` are its parts; `frames` is what they say to
each other.
"""
