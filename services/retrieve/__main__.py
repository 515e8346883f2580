"""``python -m services.retrieve``: the composition root."""

from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from services.retrieve.adapters import (
    ANALYZERS,
    CACHES,
    ENCODERS,
    LOCAL_STORES,
    REDIS_STORES,
    RERANKERS,
    SERVER_STORES,
    SPARSE_BACKENDS,
    STORES,
)
from services.retrieve.adapters.analyst import Analyst
from services.retrieve.adapters.morphemes import installed
from services.retrieve.adapters.qdrant.options import QdrantOptions
from services.retrieve.adapters.redis.options import RedisOptions
from services.retrieve.adapters.sparse import ENGINE
from services.retrieve.analysis import Analysis
from services.retrieve.core import CollectionOptions, Retrieval
from services.retrieve.encoding import Encoder
from services.retrieve.ports import Store, VectorCache
from services.retrieve.reranking import Reranking
from services.retrieve.servicer import SERVICE_NAME, RetrieveServicer, register
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition
from services.runtime.registry import resolve
from services.runtime.server import Service, run
from services.runtime.settings import load


def wire(settings: RetrieveSettings) -> Retrieval:
    """The chosen adapters together; nothing is started."""
    # Matrices are small here, and OpenBLAS' threads spin for a while after each product: with the
    # searches and writes of a busy service that took more than half of a processor.
    threadpool_limits(1, user_api="blas")
    model_class = resolve(ENCODERS, settings.embedding_backend, "EMBEDDING_BACKEND")
    resolve(SPARSE_BACKENDS, settings.sparse_backend, "SPARSE_BACKEND")
    reads_words = settings.sparse_backend != ENGINE
    if reads_words:
        _check_local(settings)
    encoder = Encoder(
        model_class.from_settings(settings),
        batch_tokens=settings.embedding_batch_tokens,
        queue=settings.embedding_queue,
        query_cache=settings.query_cache,
        shared_cache=_shared_cache(settings),
    )
    store = _store(settings)
    options = CollectionOptions(
        settings.chunk_tokens, settings.chunk_overlap, settings.max_collections
    )
    return Retrieval(
        store,
        encoder,
        _analysis(settings),
        options,
        _reranking(settings),
        reads_words=reads_words,
    )


def build(settings: RetrieveSettings) -> Service:
    """The service around them."""
    retrieval = wire(settings)
    store = retrieval.store
    backends = {
        "embedding_backend": settings.embedding_backend,
        "vector_backend": store.backend,
        "sparse_backend": settings.sparse_backend,
    }
    if settings.reranker_backend:
        backends["reranker_backend"] = settings.reranker_backend
    servicer = RetrieveServicer(retrieval, backends)
    return Service(
        name=settings.service,
        register=lambda server: register(servicer, server),
        service_names=(SERVICE_NAME,),
        ready=retrieval.start,
        availability=store.availability,
        aclose=retrieval.aclose,
    )


def _check_local(settings: RetrieveSettings) -> None:
    """A sparse arm outside the engine lies in a folder of one process.

    Raises:
        FailedPrecondition: SPARSE_BACKEND_NOT_LOCAL, where the store has no shards of this
            process that it could stand beside.
    """
    if settings.vector_backend not in LOCAL_STORES:
        local = ", ".join(f"{name}://" for name in sorted(LOCAL_STORES))
        raise FailedPrecondition(
            "SPARSE_BACKEND_NOT_LOCAL",
            f"SPARSE_BACKEND={settings.sparse_backend} keeps its index in the folder of one "
            f"process, beside the shards of {local}, and not beside {settings.vector_backend}://. "
            "Set SPARSE_BACKEND=engine, which every store has, or VECTOR_URL to one of them.",
        )


def _store(settings: RetrieveSettings) -> Store:
    """The store at `vector_url`."""
    backend = settings.vector_backend
    store_class = resolve(STORES, backend, "VECTOR_URL")
    if backend in REDIS_STORES:
        return _redis_store(store_class, settings)
    if backend not in SERVER_STORES:
        # A store that no other arm can stand beside is not told of one.
        arm = {} if settings.sparse_backend == ENGINE else {"sparse": settings.sparse_backend}
        merging = (
            {"merge_points": settings.merge_points, "merge_threads": settings.merge_threads}
            if backend == "edge"
            else {}
        )
        made: Store = store_class(
            settings.vector_location,
            settings.data,
            open_shards=settings.open_shards,
            **arm,
            **merging,
        )
        return made
    options = QdrantOptions(
        api_key=settings.vector_api_key.get_secret_value(),
        ca=settings.vector_ca,
        timeout=settings.vector_timeout,
        prefix=settings.qdrant_prefix,
        shards=settings.qdrant_shards,
        replicas=settings.qdrant_replicas,
        write_replicas=settings.qdrant_write_replicas,
        on_disk=settings.qdrant_on_disk,
        quantization=settings.qdrant_quantization,
        hnsw_m=settings.qdrant_hnsw_m,
        hnsw_ef_construct=settings.qdrant_hnsw_ef_construct,
        hnsw_ef=settings.qdrant_hnsw_ef,
        indexed_metadata=settings.qdrant_indexed_metadata,
    )
    server: Store = store_class(settings.vector_url, options)
    return server


def _redis_store(store_class: Any, settings: RetrieveSettings) -> Store:
    options = RedisOptions(
        password=settings.vector_api_key.get_secret_value(),
        ca=settings.vector_ca,
        timeout=settings.vector_timeout,
        prefix=settings.redis_prefix,
        durable=settings.redis_durable,
    )
    made: Store = store_class(settings.vector_url, settings.data, options)
    return made


def _reranking(settings: RetrieveSettings) -> Reranking | None:
    """The reranker; None where none is asked for."""
    if not settings.reranker_backend:
        return None
    make = resolve(RERANKERS, settings.reranker_backend, "RERANKER_BACKEND")
    return Reranking(make(settings), budget=settings.rerank_budget, depth=settings.rerank_depth)


def _shared_cache(settings: RetrieveSettings) -> VectorCache | None:
    """Where replicas share query vectors; None without a Redis."""
    if settings.redis_url is None:
        return None
    cache: VectorCache = resolve(CACHES, "redis", "REDIS_URL").from_settings(settings)
    return cache


def _analysis(settings: RetrieveSettings) -> Analysis:
    name = _analyzer(settings)
    analyzer = resolve(ANALYZERS, name, "RAGMESH_ANALYZER")()
    return Analyst(analyzer, ANALYZERS[name]) if settings.analysis_process else Analysis(analyzer)


def _analyzer(settings: RetrieveSettings) -> str:
    """The analyser's name; by default morphemes where the dictionary is installed."""
    if settings.analyzer != "auto":
        return settings.analyzer
    return "morphemes" if installed() else "terms"


if __name__ == "__main__":
    run(build, load(RetrieveSettings))
