"""Qdrant through its own client: a server, a cluster, or the client's local mode.

One Qdrant collection for each embedding model holds the chunks of all collections, with the tenant
and the collection in every payload. One more holds the catalogue, so that any number of retrieves
may work over the same Qdrant (ADR 22).
"""
