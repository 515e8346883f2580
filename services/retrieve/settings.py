"""What retrieve can be told."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr

from services.runtime.settings import RuntimeSettings, Seconds

Count = Annotated[int, Field(ge=1)]


class RetrieveSettings(RuntimeSettings):
    """Settings of the retrieve service."""

    service: ClassVar[str] = "retrieve"

    embedding_backend: str = Field(
        "auto",
        validation_alias=AliasChoices("RAGMESH_EMBEDDING_BACKEND", "EMBEDDING_BACKEND"),
    )
    """What computes embeddings: `sentence-transformers` (torch), `onnx`, `openvino`, `openai` (any
    server of its protocol), `nim`. auto: the fastest that is installed at torch's quality, which on
    a CPU is openvino, then onnx."""
    embedding_model: str = Field(
        "", validation_alias=AliasChoices("RAGMESH_EMBEDDING_MODEL", "EMBEDDING_MODEL")
    )
    """A folder or a hub id; empty for the packaged all-MiniLM-L6-v2. Of a server, the model's name
    there."""
    embedding_url: str = Field(
        "", validation_alias=AliasChoices("RAGMESH_EMBEDDING_URL", "EMBEDDING_URL")
    )
    """Where an embedding server is, such as ``http://tei:8080/v1``; empty: OpenAI's own,
    for `openai`."""
    embedding_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("RAGMESH_EMBEDDING_API_KEY", "EMBEDDING_API_KEY"),
    )
    """Its key; empty: OPENAI_API_KEY for `openai` without a URL, NIM_API_KEY or NGC_API_KEY for
    `nim`."""
    openai_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("RAGMESH_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    """OpenAI's key; sent to OpenAI only."""
    nim_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("RAGMESH_NIM_API_KEY", "NIM_API_KEY", "NGC_API_KEY"),
    )
    """Key of NIM, for embedding and reranking, where theirs is not set."""
    embedding_timeout: Annotated[float, Field(gt=0, le=600)] = 60.0
    """Seconds of silence after which an embedding server is given up."""
    embedding_parallel: Annotated[int, Field(ge=1, le=64)] = 4
    """Requests with passages that an embedding server gets at a time."""
    embedding_batch: Annotated[int, Field(ge=1, le=2048)] = 32
    """Texts of one request to an embedding server; TEI takes 32 unless it is told otherwise."""
    embedding_dimensions: Annotated[int, Field(ge=0)] = 0
    """Dimensions to ask an embedding server for, where the model can be cut; 0: all it has."""
    embedding_max_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that an embedding server's model reads; 0: 512."""
    embedding_tokenizer: Path | None = None
    """The ``tokenizer.json`` of an embedding server's model, or the folder it is in, to cut
    documents with; unset: tokens are estimated, rather too many."""
    embedding_revision: str = ""
    """Any word; a new one tells that an embedding server's model has changed under its name."""
    embedding_query_prompt: str | None = None
    """What stands before a question, such as ``query: ``; unset: what the model's files say."""
    embedding_passage_prompt: str | None = None
    """What stands before a passage, such as ``passage: ``; unset: what the model's files say."""
    embedding_languages: tuple[str, ...] = ()
    """Languages that the encoder represents, as a JSON list; empty: as its model card says."""
    embedding_device: str = "cpu"
    """Device as torch names it: ``cpu``, ``cuda``, ``cuda:1``."""
    embedding_precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """auto: bfloat16 where processor and back-end compute in it, else float32. int8: with `onnx`
    only; its vectors are another encoder's."""
    embedding_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of a forward pass; 0: as many as cores, at most 4."""
    embedding_batch_tokens: Count = 2048
    """Tokens of a forward pass, padding included."""
    embedding_queue: Count = 4096
    """Inputs that may wait; more are refused with ENCODER_BUSY."""
    query_cache: Annotated[int, Field(ge=0)] = 4096
    """Query embeddings that are kept in memory."""
    redis_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("RAGMESH_REDIS_URL", "REDIS_URL")
    )
    """``redis://``, ``rediss://`` or ``unix://``, where replicas share query embeddings; unset:
    each keeps its own."""
    query_cache_redis_timeout: Annotated[float, Field(gt=0, le=5)] = 0.02
    """Seconds that a question waits for Redis, before it is encoded instead."""
    query_cache_ttl: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
    """Seconds that Redis keeps a query embedding."""

    reranker_backend: str = Field(
        "", validation_alias=AliasChoices("RAGMESH_RERANKER_BACKEND", "RERANKER_BACKEND")
    )
    """What reranks: `cross-encoder` (torch), `onnx`, `cohere` (any server of that shape), `vllm`,
    `tei`, `nim`; empty: nothing does."""
    reranker_model: str = Field(
        "", validation_alias=AliasChoices("RAGMESH_RERANKER_MODEL", "RERANKER_MODEL")
    )
    """A cross-encoder's folder or hub id; of a server, the model's name there."""
    reranker_url: str = Field(
        "", validation_alias=AliasChoices("RAGMESH_RERANKER_URL", "RERANKER_URL")
    )
    """Where a server is, such as ``http://reranker:8000/v1``; its route is added where it is not
    named. Empty: Cohere's own, for `cohere`."""
    reranker_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("RAGMESH_RERANKER_API_KEY", "RERANKER_API_KEY")
    )
    """A server's key, where it wants one."""
    reranker_languages: tuple[str, ...] = ()
    """Languages that the reranker reads, as a JSON list; empty: as its model card says, else all. A
    query in another language is answered without it."""
    reranker_device: str = "cpu"
    """Device as torch names it: ``cpu``, ``cuda``, ``cuda:1``."""
    reranker_precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """auto: with torch bfloat16 where the processor computes in it, else float32. int8: with `onnx`
    only."""
    reranker_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of a forward pass; 0: as many as cores, at most 4."""
    reranker_max_tokens: Annotated[int, Field(ge=0)] = 512
    """Tokens of a query and a text together, past which they are cut; 0: as the model has it."""
    reranker_batch_tokens: Count = 4096
    """Tokens of a forward pass, padding included."""
    reranker_queue: Count = 4096
    """Pairs that may wait; more are refused with RERANKER_BUSY."""
    rerank_depth: Annotated[int, Field(ge=1, le=200)] = 50
    """Candidates of a search that are reranked, where it does not say; at least as many as hits."""
    rerank_budget: Seconds = 2.0
    """Seconds that a search waits for the reranker, and no longer than its caller waits; then the
    hits keep the order of the arms."""

    vector_url: str = Field(
        "edge://", validation_alias=AliasChoices("RAGMESH_VECTOR_URL", "VECTOR_URL")
    )
    """``edge://PATH``; without a path, ``retrieve`` in the data folder. ``grpc://HOST:6334`` or
    ``http://HOST:6333`` for a Qdrant server or cluster (``grpcs``, ``https`` with TLS), which any
    number of replicas may share. ``faiss://PATH`` (``faiss://local``: ``faiss`` there) holds open
    collections in memory, ``redis://[USER@]HOST:6379/0`` (``rediss``) holds the chunks in a Redis 8
    and the catalogue in the data folder, ``qdrant+local://PATH`` (without a path, ``qdrant`` there)
    is for small collections, ``memory://`` for tests: it keeps nothing."""
    vector_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("RAGMESH_VECTOR_API_KEY", "VECTOR_API_KEY")
    )
    """The key, or Redis's password, of a vector database that is a server."""
    vector_ca: Path | None = Field(
        None, validation_alias=AliasChoices("RAGMESH_VECTOR_CA", "VECTOR_CA")
    )
    """Certificates (PEM) that sign the vector database's; unset: those the machine trusts."""
    vector_timeout: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds of one call to a vector database that is a server, where the request leaves more."""
    qdrant_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "ragmesh"
    """Names of Qdrant collections begin with it; one mesh, one prefix."""
    qdrant_shards: Annotated[int, Field(ge=0, le=1024)] = 0
    """Shards of each new Qdrant collection of chunks; 0: as Qdrant decides, one for each node."""
    qdrant_replicas: Annotated[int, Field(ge=1, le=32)] = 1
    """Copies of each shard of new Qdrant collections; in a cluster at least 2."""
    qdrant_write_replicas: Annotated[int, Field(ge=0, le=32)] = 0
    """Copies that have a write before it is acknowledged; 0: more than half."""
    qdrant_on_disk: bool = False
    """Whether the vectors of new Qdrant collections are read from disk instead of memory."""
    qdrant_quantization: Literal["none", "scalar", "binary"] = "none"
    """Smaller copies of the vectors that searches look at first; scalar has a quarter of the size,
    binary, for vectors of 1,024 numbers or more, a 32nd."""
    qdrant_hnsw_m: Annotated[int, Field(ge=4, le=128)] = 16
    """Links of a vector in the graph of new Qdrant collections."""
    qdrant_hnsw_ef_construct: Annotated[int, Field(ge=4, le=4096)] = 128
    """Neighbours that are looked at when such a graph is built."""
    qdrant_hnsw_ef: Annotated[int, Field(ge=0, le=65536)] = 0
    """Neighbours that a search looks at; 0: as Qdrant decides."""
    qdrant_indexed_metadata: tuple[str, ...] = ()
    """Metadata paths that Qdrant gets an index for, as a JSON list: ``["year", "author.name"]``.
    Filters work without one, unless Qdrant is in strict mode, but look at every chunk."""
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "ragmesh"
    """Keys in a Redis that holds the chunks begin with it; one mesh, one prefix."""
    redis_durable: bool = True
    """Whether a Redis that may lose acknowledged chunks (no append-only file, eviction, a replica)
    is refused, and each acknowledgement waits for its disk."""
    sparse_backend: str = Field(
        "engine", validation_alias=AliasChoices("RAGMESH_SPARSE_BACKEND", "SPARSE_BACKEND")
    )
    """Where the sparse arm lives: ``engine``, the vector engine; ``whoosh``, an index of words
    beside a store that one process owns, with "phrases" and ``title:``, ``heading:`` and ``body:``
    in queries, and slower (ADR 24)."""
    analyzer: Literal["auto", "morphemes", "terms"] = "auto"
    """Of new and existing collections; auto: morphemes where the extra `japanese` is installed."""
    analysis_process: bool = True
    """Whether what is indexed is analysed in a process of its own, so that searches do not wait for
    it. It takes 60 MB of memory, as much again of it shared."""
    open_shards: Annotated[int, Field(ge=1, le=800)] = 128
    """Collections that are open at once; the longest unused is closed. One costs a thread, a file
    descriptor, some 75 of the 65,530 memory maps that Linux gives a process, 1 MB of memory and,
    until the kernel wants it back, some 15 MB of page cache."""
    merge_points: Annotated[int, Field(ge=1000)] = 10_000
    """Chunks of an embedded collection that are searched without an index (about 0.6 ms); then they
    are merged into an indexed run, in the background."""
    merge_threads: Count = 1
    """Threads that build such an index, at the lowest priority."""
    max_collections: Count = 1000
    """Collections of one tenant."""
    chunk_tokens: Count = 250
    """Tokens of a chunk, heading included, where its collection does not say."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 24
    """Tokens that neighbouring chunks share, where their collection does not say."""

    @property
    def vector_backend(self) -> str:
        """The scheme of `vector_url`."""
        return self.vector_url.partition("://")[0].lower()

    @property
    def vector_location(self) -> str:
        """What follows the scheme."""
        return self.vector_url.partition("://")[2]
