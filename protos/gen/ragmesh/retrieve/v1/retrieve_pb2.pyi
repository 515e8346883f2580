import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ragmesh.retrieve.v1 import filter_pb2 as _filter_pb2
from ragmesh.type.v1 import passage_pb2 as _passage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]
    SEARCH_MODE_DENSE: _ClassVar[SearchMode]
    SEARCH_MODE_SPARSE: _ClassVar[SearchMode]

class InputType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INPUT_TYPE_UNSPECIFIED: _ClassVar[InputType]
    INPUT_TYPE_QUERY: _ClassVar[InputType]
    INPUT_TYPE_PASSAGE: _ClassVar[InputType]

class GroupBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GROUP_BY_UNSPECIFIED: _ClassVar[GroupBy]
    GROUP_BY_DOCUMENT: _ClassVar[GroupBy]

class RerankStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RERANK_STATUS_UNSPECIFIED: _ClassVar[RerankStatus]
    RERANK_STATUS_APPLIED: _ClassVar[RerankStatus]
    RERANK_STATUS_TIMED_OUT: _ClassVar[RerankStatus]
    RERANK_STATUS_FAILED: _ClassVar[RerankStatus]
    RERANK_STATUS_SKIPPED: _ClassVar[RerankStatus]

class IndexStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INDEX_STATUS_UNSPECIFIED: _ClassVar[IndexStatus]
    INDEX_STATUS_INDEXED: _ClassVar[IndexStatus]
    INDEX_STATUS_REPLACED: _ClassVar[IndexStatus]
    INDEX_STATUS_UNCHANGED: _ClassVar[IndexStatus]

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_ENCODER: _ClassVar[ModelKind]
    MODEL_KIND_RERANKER: _ClassVar[ModelKind]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_HYBRID: SearchMode
SEARCH_MODE_DENSE: SearchMode
SEARCH_MODE_SPARSE: SearchMode
INPUT_TYPE_UNSPECIFIED: InputType
INPUT_TYPE_QUERY: InputType
INPUT_TYPE_PASSAGE: InputType
GROUP_BY_UNSPECIFIED: GroupBy
GROUP_BY_DOCUMENT: GroupBy
RERANK_STATUS_UNSPECIFIED: RerankStatus
RERANK_STATUS_APPLIED: RerankStatus
RERANK_STATUS_TIMED_OUT: RerankStatus
RERANK_STATUS_FAILED: RerankStatus
RERANK_STATUS_SKIPPED: RerankStatus
INDEX_STATUS_UNSPECIFIED: IndexStatus
INDEX_STATUS_INDEXED: IndexStatus
INDEX_STATUS_REPLACED: IndexStatus
INDEX_STATUS_UNCHANGED: IndexStatus
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_ENCODER: ModelKind
MODEL_KIND_RERANKER: ModelKind

class SearchRequest(_message.Message):
    __slots__ = ("collection", "query", "language", "mode", "top_k", "filter", "rerank", "weights", "queries", "diversity", "group_by", "group_size", "min_score", "relevant_only", "highlights", "neighbors", "explain", "rerank_depth")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    RELEVANT_ONLY_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHTS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    RERANK_DEPTH_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: str
    language: str
    mode: SearchMode
    top_k: int
    filter: _filter_pb2.Filter
    rerank: bool
    weights: ArmWeights
    queries: _containers.RepeatedScalarFieldContainer[str]
    diversity: float
    group_by: GroupBy
    group_size: int
    min_score: float
    relevant_only: bool
    highlights: bool
    neighbors: int
    explain: bool
    rerank_depth: int
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[str] = ..., language: _Optional[str] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., top_k: _Optional[int] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., rerank: _Optional[bool] = ..., weights: _Optional[_Union[ArmWeights, _Mapping]] = ..., queries: _Optional[_Iterable[str]] = ..., diversity: _Optional[float] = ..., group_by: _Optional[_Union[GroupBy, str]] = ..., group_size: _Optional[int] = ..., min_score: _Optional[float] = ..., relevant_only: _Optional[bool] = ..., highlights: _Optional[bool] = ..., neighbors: _Optional[int] = ..., explain: _Optional[bool] = ..., rerank_depth: _Optional[int] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "weights", "explanation", "rerank")
    HITS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    weights: ArmWeights
    explanation: SearchExplanation
    rerank: Reranking
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., weights: _Optional[_Union[ArmWeights, _Mapping]] = ..., explanation: _Optional[_Union[SearchExplanation, _Mapping]] = ..., rerank: _Optional[_Union[Reranking, _Mapping]] = ...) -> None: ...

class Reranking(_message.Message):
    __slots__ = ("status", "model", "reason", "candidates", "seconds")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    status: RerankStatus
    model: str
    reason: str
    candidates: int
    seconds: float
    def __init__(self, status: _Optional[_Union[RerankStatus, str]] = ..., model: _Optional[str] = ..., reason: _Optional[str] = ..., candidates: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class SearchExplanation(_message.Message):
    __slots__ = ("queries", "candidates")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[QueryExplanation]
    candidates: int
    def __init__(self, queries: _Optional[_Iterable[_Union[QueryExplanation, _Mapping]]] = ..., candidates: _Optional[int] = ...) -> None: ...

class QueryExplanation(_message.Message):
    __slots__ = ("query", "language", "weights", "dense_left_out", "sparse_left_out")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DENSE_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    SPARSE_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    query: str
    language: str
    weights: ArmWeights
    dense_left_out: str
    sparse_left_out: str
    def __init__(self, query: _Optional[str] = ..., language: _Optional[str] = ..., weights: _Optional[_Union[ArmWeights, _Mapping]] = ..., dense_left_out: _Optional[str] = ..., sparse_left_out: _Optional[str] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("passage", "dense_rank", "sparse_rank", "dense_score", "sparse_score", "rerank_score", "highlights", "before", "after", "explanation")
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    DENSE_RANK_FIELD_NUMBER: _ClassVar[int]
    SPARSE_RANK_FIELD_NUMBER: _ClassVar[int]
    DENSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    RERANK_SCORE_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHTS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    passage: _passage_pb2.Passage
    dense_rank: int
    sparse_rank: int
    dense_score: float
    sparse_score: float
    rerank_score: float
    highlights: Highlights
    before: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Passage]
    after: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Passage]
    explanation: HitExplanation
    def __init__(self, passage: _Optional[_Union[_passage_pb2.Passage, _Mapping]] = ..., dense_rank: _Optional[int] = ..., sparse_rank: _Optional[int] = ..., dense_score: _Optional[float] = ..., sparse_score: _Optional[float] = ..., rerank_score: _Optional[float] = ..., highlights: _Optional[_Union[Highlights, _Mapping]] = ..., before: _Optional[_Iterable[_Union[_passage_pb2.Passage, _Mapping]]] = ..., after: _Optional[_Iterable[_Union[_passage_pb2.Passage, _Mapping]]] = ..., explanation: _Optional[_Union[HitExplanation, _Mapping]] = ...) -> None: ...

class Highlights(_message.Message):
    __slots__ = ("terms", "sentences")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.RepeatedCompositeFieldContainer[TextSpan]
    sentences: _containers.RepeatedCompositeFieldContainer[TextSpan]
    def __init__(self, terms: _Optional[_Iterable[_Union[TextSpan, _Mapping]]] = ..., sentences: _Optional[_Iterable[_Union[TextSpan, _Mapping]]] = ...) -> None: ...

class TextSpan(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class HitExplanation(_message.Message):
    __slots__ = ("matched_terms", "coverage", "query_ranks")
    MATCHED_TERMS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    QUERY_RANKS_FIELD_NUMBER: _ClassVar[int]
    matched_terms: _containers.RepeatedScalarFieldContainer[str]
    coverage: float
    query_ranks: _containers.RepeatedCompositeFieldContainer[QueryRank]
    def __init__(self, matched_terms: _Optional[_Iterable[str]] = ..., coverage: _Optional[float] = ..., query_ranks: _Optional[_Iterable[_Union[QueryRank, _Mapping]]] = ...) -> None: ...

class QueryRank(_message.Message):
    __slots__ = ("rank",)
    RANK_FIELD_NUMBER: _ClassVar[int]
    rank: int
    def __init__(self, rank: _Optional[int] = ...) -> None: ...

class ArmWeights(_message.Message):
    __slots__ = ("dense", "sparse")
    DENSE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    dense: float
    sparse: float
    def __init__(self, dense: _Optional[float] = ..., sparse: _Optional[float] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "inputs", "input_type", "dimensions")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[EmbedInput]
    input_type: InputType
    dimensions: int
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[EmbedInput, _Mapping]]] = ..., input_type: _Optional[_Union[InputType, str]] = ..., dimensions: _Optional[int] = ...) -> None: ...

class EmbedInput(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: TokenIds
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Union[TokenIds, _Mapping]] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "model", "tokens")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    model: str
    tokens: int
    def __init__(self, embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., model: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("model", "query", "documents", "top_n")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    model: str
    query: str
    documents: _containers.RepeatedScalarFieldContainer[str]
    top_n: int
    def __init__(self, model: _Optional[str] = ..., query: _Optional[str] = ..., documents: _Optional[_Iterable[str]] = ..., top_n: _Optional[int] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("results", "model", "tokens")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    model: str
    tokens: int
    def __init__(self, results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ..., model: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class RerankResult(_message.Message):
    __slots__ = ("index", "relevance_score")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_SCORE_FIELD_NUMBER: _ClassVar[int]
    index: int
    relevance_score: float
    def __init__(self, index: _Optional[int] = ..., relevance_score: _Optional[float] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("sentences", "passages")
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    sentences: _containers.RepeatedScalarFieldContainer[str]
    passages: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sentences: _Optional[_Iterable[str]] = ..., passages: _Optional[_Iterable[str]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("rows", "model")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[ScoreRow]
    model: str
    def __init__(self, rows: _Optional[_Iterable[_Union[ScoreRow, _Mapping]]] = ..., model: _Optional[str] = ...) -> None: ...

class ScoreRow(_message.Message):
    __slots__ = ("scores",)
    SCORES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, scores: _Optional[_Iterable[float]] = ...) -> None: ...

class IndexDocumentsRequest(_message.Message):
    __slots__ = ("header", "document", "chunks", "end")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    header: IndexHeader
    document: IndexDocument
    chunks: IndexChunks
    end: IndexEnd
    def __init__(self, header: _Optional[_Union[IndexHeader, _Mapping]] = ..., document: _Optional[_Union[IndexDocument, _Mapping]] = ..., chunks: _Optional[_Union[IndexChunks, _Mapping]] = ..., end: _Optional[_Union[IndexEnd, _Mapping]] = ...) -> None: ...

class IndexEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IndexHeader(_message.Message):
    __slots__ = ("collection", "origin", "hold", "progress")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    origin: IndexOrigin
    hold: bool
    progress: bool
    def __init__(self, collection: _Optional[str] = ..., origin: _Optional[_Union[IndexOrigin, _Mapping]] = ..., hold: _Optional[bool] = ..., progress: _Optional[bool] = ...) -> None: ...

class IndexOrigin(_message.Message):
    __slots__ = ("encoder", "analyzer", "profile")
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    ANALYZER_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    encoder: str
    analyzer: str
    profile: str
    def __init__(self, encoder: _Optional[str] = ..., analyzer: _Optional[str] = ..., profile: _Optional[str] = ...) -> None: ...

class IndexDocument(_message.Message):
    __slots__ = ("id", "title", "source", "metadata", "content_hash", "format", "language", "pages", "chunk_count", "bytes", "access", "created_at", "updated_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    source: str
    metadata: _struct_pb2.Struct
    content_hash: str
    format: str
    language: str
    pages: int
    chunk_count: int
    bytes: int
    access: _containers.RepeatedScalarFieldContainer[str]
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., content_hash: _Optional[str] = ..., format: _Optional[str] = ..., language: _Optional[str] = ..., pages: _Optional[int] = ..., chunk_count: _Optional[int] = ..., bytes: _Optional[int] = ..., access: _Optional[_Iterable[str]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class IndexChunks(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunk, _Mapping]]] = ...) -> None: ...

class IndexChunk(_message.Message):
    __slots__ = ("index", "text", "normalized_text", "heading", "page", "language", "vector")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_TEXT_FIELD_NUMBER: _ClassVar[int]
    HEADING_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    normalized_text: str
    heading: str
    page: int
    language: str
    vector: bytes
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., normalized_text: _Optional[str] = ..., heading: _Optional[str] = ..., page: _Optional[int] = ..., language: _Optional[str] = ..., vector: _Optional[bytes] = ...) -> None: ...

class IndexDocumentsResponse(_message.Message):
    __slots__ = ("id", "chunks", "status", "embedded_chunks", "progress")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    chunks: int
    status: IndexStatus
    embedded_chunks: int
    progress: IndexProgress
    def __init__(self, id: _Optional[str] = ..., chunks: _Optional[int] = ..., status: _Optional[_Union[IndexStatus, str]] = ..., embedded_chunks: _Optional[int] = ..., progress: _Optional[_Union[IndexProgress, _Mapping]] = ...) -> None: ...

class IndexProgress(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    def __init__(self, chunks: _Optional[int] = ...) -> None: ...

class ExportDocumentsRequest(_message.Message):
    __slots__ = ("collection", "after", "generation")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    after: str
    generation: str
    def __init__(self, collection: _Optional[str] = ..., after: _Optional[str] = ..., generation: _Optional[str] = ...) -> None: ...

class ExportDocumentsResponse(_message.Message):
    __slots__ = ("header", "document", "chunks")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    header: ExportHeader
    document: IndexDocument
    chunks: IndexChunks
    def __init__(self, header: _Optional[_Union[ExportHeader, _Mapping]] = ..., document: _Optional[_Union[IndexDocument, _Mapping]] = ..., chunks: _Optional[_Union[IndexChunks, _Mapping]] = ...) -> None: ...

class ExportHeader(_message.Message):
    __slots__ = ("collection", "generation", "profile", "everything")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    generation: str
    profile: str
    everything: bool
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ..., generation: _Optional[str] = ..., profile: _Optional[str] = ..., everything: _Optional[bool] = ...) -> None: ...

class MoveDocumentRequest(_message.Message):
    __slots__ = ("collection", "id", "new_id", "title", "source", "metadata", "replace")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NEW_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    new_id: str
    title: str
    source: str
    metadata: _struct_pb2.Struct
    replace: bool
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ..., new_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., replace: _Optional[bool] = ...) -> None: ...

class MoveDocumentResponse(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: Document
    def __init__(self, document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...

class ReindexCollectionRequest(_message.Message):
    __slots__ = ("name", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class ReindexCollectionResponse(_message.Message):
    __slots__ = ("documents", "total_documents", "embedded_chunks", "full_chunks", "collection", "reindexed")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    FULL_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    REINDEXED_FIELD_NUMBER: _ClassVar[int]
    documents: int
    total_documents: int
    embedded_chunks: int
    full_chunks: int
    collection: Collection
    reindexed: bool
    def __init__(self, documents: _Optional[int] = ..., total_documents: _Optional[int] = ..., embedded_chunks: _Optional[int] = ..., full_chunks: _Optional[int] = ..., collection: _Optional[_Union[Collection, _Mapping]] = ..., reindexed: _Optional[bool] = ...) -> None: ...

class CheckDocumentsRequest(_message.Message):
    __slots__ = ("collection", "documents")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    documents: _containers.RepeatedCompositeFieldContainer[DocumentVersion]
    def __init__(self, collection: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[DocumentVersion, _Mapping]]] = ...) -> None: ...

class DocumentVersion(_message.Message):
    __slots__ = ("id", "content_hash")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    id: str
    content_hash: str
    def __init__(self, id: _Optional[str] = ..., content_hash: _Optional[str] = ...) -> None: ...

class CheckDocumentsResponse(_message.Message):
    __slots__ = ("unchanged",)
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    unchanged: _containers.RepeatedCompositeFieldContainer[UnchangedDocument]
    def __init__(self, unchanged: _Optional[_Iterable[_Union[UnchangedDocument, _Mapping]]] = ...) -> None: ...

class UnchangedDocument(_message.Message):
    __slots__ = ("id", "chunks")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    id: str
    chunks: int
    def __init__(self, id: _Optional[str] = ..., chunks: _Optional[int] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("id", "title", "source", "metadata", "content_hash", "format", "language", "pages", "chunks", "bytes", "created_at", "updated_at", "access")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    source: str
    metadata: _struct_pb2.Struct
    content_hash: str
    format: str
    language: str
    pages: int
    chunks: int
    bytes: int
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    access: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., content_hash: _Optional[str] = ..., format: _Optional[str] = ..., language: _Optional[str] = ..., pages: _Optional[int] = ..., chunks: _Optional[int] = ..., bytes: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., access: _Optional[_Iterable[str]] = ...) -> None: ...

class GetDocumentRequest(_message.Message):
    __slots__ = ("collection", "id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class GetDocumentResponse(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: Document
    def __init__(self, document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("collection", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("documents", "next_page_token")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    next_page_token: str
    def __init__(self, documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListChunksRequest(_message.Message):
    __slots__ = ("collection", "document_id", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    document_id: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., document_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListChunksResponse(_message.Message):
    __slots__ = ("chunks", "next_page_token")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Passage]
    next_page_token: str
    def __init__(self, chunks: _Optional[_Iterable[_Union[_passage_pb2.Passage, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDocumentRequest(_message.Message):
    __slots__ = ("collection", "id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class DeleteDocumentResponse(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    def __init__(self, chunks: _Optional[int] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "description", "encoder", "dimensions", "analyzer", "tokenizer_id", "chunk_tokens", "chunk_overlap", "documents", "chunks", "created_at", "encoder_languages", "calibration", "encoder_normalizes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    ANALYZER_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ENCODER_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    ENCODER_NORMALIZES_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    encoder: str
    dimensions: int
    analyzer: str
    tokenizer_id: str
    chunk_tokens: int
    chunk_overlap: int
    documents: int
    chunks: int
    created_at: _timestamp_pb2.Timestamp
    encoder_languages: _containers.RepeatedScalarFieldContainer[str]
    calibration: Calibration
    encoder_normalizes: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., encoder: _Optional[str] = ..., dimensions: _Optional[int] = ..., analyzer: _Optional[str] = ..., tokenizer_id: _Optional[str] = ..., chunk_tokens: _Optional[int] = ..., chunk_overlap: _Optional[int] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., encoder_languages: _Optional[_Iterable[str]] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ..., encoder_normalizes: _Optional[bool] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("chunks", "measured_at", "seconds", "languages")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MEASURED_AT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    chunks: int
    measured_at: _timestamp_pb2.Timestamp
    seconds: float
    languages: _containers.RepeatedCompositeFieldContainer[LanguageCalibration]
    def __init__(self, chunks: _Optional[int] = ..., measured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seconds: _Optional[float] = ..., languages: _Optional[_Iterable[_Union[LanguageCalibration, _Mapping]]] = ...) -> None: ...

class LanguageCalibration(_message.Message):
    __slots__ = ("language", "weights", "questions", "dense", "sparse", "hybrid", "agreement", "unknown")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    HYBRID_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    language: str
    weights: ArmWeights
    questions: int
    dense: float
    sparse: float
    hybrid: float
    agreement: float
    unknown: float
    def __init__(self, language: _Optional[str] = ..., weights: _Optional[_Union[ArmWeights, _Mapping]] = ..., questions: _Optional[int] = ..., dense: _Optional[float] = ..., sparse: _Optional[float] = ..., hybrid: _Optional[float] = ..., agreement: _Optional[float] = ..., unknown: _Optional[float] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "description", "chunk_tokens", "chunk_overlap")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    chunk_tokens: int
    chunk_overlap: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., chunk_tokens: _Optional[int] = ..., chunk_overlap: _Optional[int] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections", "next_page_token")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    next_page_token: str
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteCollectionResponse(_message.Message):
    __slots__ = ("documents",)
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    documents: int
    def __init__(self, documents: _Optional[int] = ...) -> None: ...

class DeleteTenantRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteTenantResponse(_message.Message):
    __slots__ = ("removed", "left")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    removed: TenantContents
    left: TenantContents
    def __init__(self, removed: _Optional[_Union[TenantContents, _Mapping]] = ..., left: _Optional[_Union[TenantContents, _Mapping]] = ...) -> None: ...

class GetTenantContentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTenantContentsResponse(_message.Message):
    __slots__ = ("contents",)
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    contents: TenantContents
    def __init__(self, contents: _Optional[_Union[TenantContents, _Mapping]] = ...) -> None: ...

class TenantContents(_message.Message):
    __slots__ = ("collections", "documents", "chunks", "folders")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    FOLDERS_FIELD_NUMBER: _ClassVar[int]
    collections: int
    documents: int
    chunks: int
    folders: int
    def __init__(self, collections: _Optional[int] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., folders: _Optional[int] = ...) -> None: ...

class GetTokenizerRequest(_message.Message):
    __slots__ = ("tokenizer_id",)
    TOKENIZER_ID_FIELD_NUMBER: _ClassVar[int]
    tokenizer_id: str
    def __init__(self, tokenizer_id: _Optional[str] = ...) -> None: ...

class GetTokenizerResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id", "aliases", "kind", "dimensions", "max_tokens", "languages", "owned_by")
    ID_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    OWNED_BY_FIELD_NUMBER: _ClassVar[int]
    id: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    kind: ModelKind
    dimensions: int
    max_tokens: int
    languages: _containers.RepeatedScalarFieldContainer[str]
    owned_by: str
    def __init__(self, id: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., dimensions: _Optional[int] = ..., max_tokens: _Optional[int] = ..., languages: _Optional[_Iterable[str]] = ..., owned_by: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "backends")
    class BackendsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    backends: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[str] = ..., backends: _Optional[_Mapping[str, str]] = ...) -> None: ...
