"""Back-ends of retrieve, by the names that settings use. Only the chosen ones are imported."""

ENCODERS = {
    "auto": "services.retrieve.adapters.automatic:Automatic",
    "nim": "services.retrieve.adapters.nim:NimEncoder",
    "nim-embed": "services.retrieve.adapters.nim:NimEncoder",
    "onnx": "services.retrieve.adapters.onnx:Model",
    "openai": "services.retrieve.adapters.openai:RemoteEncoder",
    "openvino": "services.retrieve.adapters.openvino:Model",
    "sentence-transformers": "services.retrieve.adapters.sentence_transformers:Model",
}
"""Each has ``from_settings(settings)``, which makes an `EncoderModel`."""
STORES = {
    "edge": "services.retrieve.adapters.edge.client:EdgeStore",
    "faiss": "services.retrieve.adapters.faiss.store:FaissStore",
    "memory": "services.retrieve.adapters.memory:MemoryStore",
    "redis": "services.retrieve.adapters.redis.store:RedisStore",
    "rediss": "services.retrieve.adapters.redis.store:RedisStore",
    "qdrant+local": "services.retrieve.adapters.qdrant.store:LocalQdrantStore",
    "grpc": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
    "grpcs": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
    "http": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
    "https": "services.retrieve.adapters.qdrant.store:RemoteQdrantStore",
}
SERVER_STORES = frozenset({"grpc", "grpcs", "http", "https"})
"""Those that are elsewhere: made from a URL and the cluster's options, not from a folder."""
REDIS_STORES = frozenset({"redis", "rediss"})
"""Those that are elsewhere, and whose catalogue one process has in a folder."""
SPARSE_BACKENDS = {
    "engine": "services.retrieve.adapters.sparse:engine_arm",
    "whoosh": "services.retrieve.adapters.whoosh.shards:WhooshShards",
}
LOCAL_STORES = frozenset({"edge", "faiss", "memory"})
"""Those that one process owns, shard by shard: a sparse arm of another kind can stand beside."""
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
CACHES = {
    "redis": "services.retrieve.adapters.redis_vectors:RedisVectors",
}
"""Each has ``from_settings(settings)``, which makes a `VectorCache`."""
