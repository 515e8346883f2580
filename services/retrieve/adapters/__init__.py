"""Back-ends of retrieve, by the names that settings use. Only the chosen ones are imported."""

ENCODERS = {
    "sentence-transformers": "services.retrieve.adapters.sentence_transformers:Model",
}
STORES = {
    "edge": "services.retrieve.adapters.edge.client:EdgeStore",
    "memory": "services.retrieve.adapters.memory:MemoryStore",
    "qdrant+local": "services.retrieve.adapters.qdrant.store:LocalQdrantStore",
    "grpc": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
    "grpcs": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
    "http": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
    "https": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
}
SERVER_STORES = frozenset({"grpc", "grpcs", "http", "https"})
"""Those that are elsewhere: made from a URL and the cluster's options, not from a folder."""
SPARSE_BACKENDS = {
    "engine": "services.retrieve.adapters:ANALYZERS",
}
ANALYZERS = {
    "morphemes": "services.retrieve.adapters.morphemes:MorphemesAnalyzer",
    "terms": "services.retrieve.adapters.terms:TermsAnalyzer",
}
RERANKERS: dict[str, str] = {}

PLANNED_ENCODERS = frozenset({"onnx", "nim", "nim-embed", "openai"})
PLANNED_STORES = frozenset({"faiss", "redis", "rediss"})
PLANNED_SPARSE_BACKENDS = frozenset({"whoosh"})
