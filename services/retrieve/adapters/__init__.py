"""Back-ends of retrieve, by the names that settings use. Only the chosen ones are imported."""

ENCODERS = {
    "sentence-transformers": "services.retrieve.adapters.sentence_transformers:Model",
}
STORES = {
    "edge": "services.retrieve.adapters.edge.client:EdgeStore",
    "memory": "services.retrieve.adapters.memory:MemoryStore",
    "qdrant+local": "services.retrieve.adapters.qdrant:QdrantStore",
}
SPARSE_BACKENDS = {
    "engine": "services.retrieve.adapters:ANALYZERS",
}
ANALYZERS = {
    "morphemes": "services.retrieve.adapters.morphemes:MorphemesAnalyzer",
    "terms": "services.retrieve.adapters.terms:TermsAnalyzer",
}
RERANKERS = {
    "cohere": "services.retrieve.adapters.remote_rerankers:cohere",
    "cross-encoder": "services.retrieve.adapters.cross_encoder:reranker",
    "nim": "services.retrieve.adapters.remote_rerankers:nim",
    "onnx": "services.retrieve.adapters.onnx_cross_encoder:reranker",
    "tei": "services.retrieve.adapters.remote_rerankers:tei",
    "vllm": "services.retrieve.adapters.remote_rerankers:vllm",
}
"""Each makes a `Reranker` of the settings."""

PLANNED_ENCODERS = frozenset({"onnx", "nim", "nim-embed", "openai"})
PLANNED_STORES = frozenset({"faiss", "grpc", "grpcs", "http", "https", "redis", "rediss"})
PLANNED_SPARSE_BACKENDS = frozenset({"whoosh"})
