"""``python -m services.retrieve``: the composition root."""

from services.retrieve.adapters import (
    ENCODERS,
    PLANNED_ENCODERS,
    PLANNED_SPARSE_BACKENDS,
    PLANNED_STORES,
    RERANKERS,
    SPARSE_BACKENDS,
    STORES,
)
from services.retrieve.adapters.morphemes import installed
from services.retrieve.core import CollectionOptions, Retrieval
from services.retrieve.encoding import Encoder
from services.retrieve.reranking import Reranking
from services.retrieve.servicer import SERVICE_NAME, RetrieveServicer, register
from services.retrieve.settings import RetrieveSettings
from services.runtime.registry import resolve
from services.runtime.server import Service, run
from services.runtime.settings import load


def build(settings: RetrieveSettings) -> Service:
    """Wire the chosen adapters together."""
    model_class = resolve(
        ENCODERS, settings.embedding_backend, "EMBEDDING_BACKEND", planned=PLANNED_ENCODERS
    )
    store_class = resolve(STORES, settings.vector_backend, "VECTOR_URL", planned=PLANNED_STORES)
    analyzers = resolve(
        SPARSE_BACKENDS,
        settings.sparse_backend,
        "SPARSE_BACKEND",
        planned=PLANNED_SPARSE_BACKENDS,
    )
    analyzer_class = resolve(analyzers, _analyzer(settings), "RAGMESH_ANALYZER")
    model = model_class(
        settings.embedding_model,
        languages=settings.embedding_languages,
        device=settings.embedding_device,
        precision=settings.embedding_precision,
        threads=settings.embedding_threads,
    )
    encoder = Encoder(
        model,
        batch_tokens=settings.embedding_batch_tokens,
        queue=settings.embedding_queue,
        query_cache=settings.query_cache,
    )
    merging = (
        {"merge_points": settings.merge_points, "merge_threads": settings.merge_threads}
        if settings.vector_backend == "edge"
        else {}
    )
    store = store_class(
        settings.vector_location, settings.data, open_shards=settings.open_shards, **merging
    )
    options = CollectionOptions(
        settings.chunk_tokens, settings.chunk_overlap, settings.max_collections
    )
    retrieval = Retrieval(store, encoder, analyzer_class(), options, _reranking(settings))
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


def _reranking(settings: RetrieveSettings) -> Reranking | None:
    """The reranker; None where none is asked for."""
    if not settings.reranker_backend:
        return None
    make = resolve(RERANKERS, settings.reranker_backend, "RERANKER_BACKEND")
    return Reranking(make(settings), budget=settings.rerank_budget, depth=settings.rerank_depth)


def _analyzer(settings: RetrieveSettings) -> str:
    """The analyser's name; by default morphemes where the dictionary is installed."""
    if settings.analyzer != "auto":
        return settings.analyzer
    return "morphemes" if installed() else "terms"


if __name__ == "__main__":
    run(build, load(RetrieveSettings))
