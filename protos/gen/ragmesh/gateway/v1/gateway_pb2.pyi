import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ragmesh.infer.v1 import infer_pb2 as _infer_pb2
from ragmesh.retrieve.v1 import filter_pb2 as _filter_pb2
from ragmesh.retrieve.v1 import retrieve_pb2 as _retrieve_pb2
from ragmesh.type.v1 import chat_pb2 as _chat_pb2
from ragmesh.type.v1 import passage_pb2 as _passage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Retrieval(_message.Message):
    __slots__ = ("collection", "mode", "top_k", "rerank", "filter", "weights", "diversity", "group_by", "group_size", "min_score", "relevant_only", "rerank_depth")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    RELEVANT_ONLY_FIELD_NUMBER: _ClassVar[int]
    RERANK_DEPTH_FIELD_NUMBER: _ClassVar[int]
    collection: str
    mode: _retrieve_pb2.SearchMode
    top_k: int
    rerank: bool
    filter: _filter_pb2.Filter
    weights: _retrieve_pb2.ArmWeights
    diversity: float
    group_by: _retrieve_pb2.GroupBy
    group_size: int
    min_score: float
    relevant_only: bool
    rerank_depth: int
    def __init__(self, collection: _Optional[str] = ..., mode: _Optional[_Union[_retrieve_pb2.SearchMode, str]] = ..., top_k: _Optional[int] = ..., rerank: _Optional[bool] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., weights: _Optional[_Union[_retrieve_pb2.ArmWeights, _Mapping]] = ..., diversity: _Optional[float] = ..., group_by: _Optional[_Union[_retrieve_pb2.GroupBy, str]] = ..., group_size: _Optional[int] = ..., min_score: _Optional[float] = ..., relevant_only: _Optional[bool] = ..., rerank_depth: _Optional[int] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("query", "retrieval", "session_id", "model", "sampling")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    query: str
    retrieval: Retrieval
    session_id: str
    model: str
    sampling: _infer_pb2.Sampling
    def __init__(self, query: _Optional[str] = ..., retrieval: _Optional[_Union[Retrieval, _Mapping]] = ..., session_id: _Optional[str] = ..., model: _Optional[str] = ..., sampling: _Optional[_Union[_infer_pb2.Sampling, _Mapping]] = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("answer", "citations", "confidence", "model", "usage", "timings", "rerank")
    class TimingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    answer: str
    citations: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Citation]
    confidence: float
    model: str
    usage: _chat_pb2.Usage
    timings: _containers.ScalarMap[str, float]
    rerank: _retrieve_pb2.Reranking
    def __init__(self, answer: _Optional[str] = ..., citations: _Optional[_Iterable[_Union[_passage_pb2.Citation, _Mapping]]] = ..., confidence: _Optional[float] = ..., model: _Optional[str] = ..., usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Mapping[str, float]] = ..., rerank: _Optional[_Union[_retrieve_pb2.Reranking, _Mapping]] = ...) -> None: ...

class StreamQueryRequest(_message.Message):
    __slots__ = ("query",)
    QUERY_FIELD_NUMBER: _ClassVar[int]
    query: QueryRequest
    def __init__(self, query: _Optional[_Union[QueryRequest, _Mapping]] = ...) -> None: ...

class StreamQueryResponse(_message.Message):
    __slots__ = ("sources", "delta", "done")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    sources: Sources
    delta: str
    done: QueryResponse
    def __init__(self, sources: _Optional[_Union[Sources, _Mapping]] = ..., delta: _Optional[str] = ..., done: _Optional[_Union[QueryResponse, _Mapping]] = ...) -> None: ...

class Sources(_message.Message):
    __slots__ = ("passages", "rerank")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Passage]
    rerank: _retrieve_pb2.Reranking
    def __init__(self, passages: _Optional[_Iterable[_Union[_passage_pb2.Passage, _Mapping]]] = ..., rerank: _Optional[_Union[_retrieve_pb2.Reranking, _Mapping]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("query", "retrieval", "queries", "highlights", "neighbors", "explain")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHTS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    query: str
    retrieval: Retrieval
    queries: _containers.RepeatedScalarFieldContainer[str]
    highlights: bool
    neighbors: int
    explain: bool
    def __init__(self, query: _Optional[str] = ..., retrieval: _Optional[_Union[Retrieval, _Mapping]] = ..., queries: _Optional[_Iterable[str]] = ..., highlights: _Optional[bool] = ..., neighbors: _Optional[int] = ..., explain: _Optional[bool] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "explanation", "rerank")
    HITS_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_retrieve_pb2.Hit]
    explanation: _retrieve_pb2.SearchExplanation
    rerank: _retrieve_pb2.Reranking
    def __init__(self, hits: _Optional[_Iterable[_Union[_retrieve_pb2.Hit, _Mapping]]] = ..., explanation: _Optional[_Union[_retrieve_pb2.SearchExplanation, _Mapping]] = ..., rerank: _Optional[_Union[_retrieve_pb2.Reranking, _Mapping]] = ...) -> None: ...

class ChatRequest(_message.Message):
    __slots__ = ("generate", "retrieval", "session_id")
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    generate: _infer_pb2.GenerateRequest
    retrieval: Retrieval
    session_id: str
    def __init__(self, generate: _Optional[_Union[_infer_pb2.GenerateRequest, _Mapping]] = ..., retrieval: _Optional[_Union[Retrieval, _Mapping]] = ..., session_id: _Optional[str] = ...) -> None: ...

class ChatResponse(_message.Message):
    __slots__ = ("generated", "citations")
    GENERATED_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    generated: _infer_pb2.GenerateResponse
    citations: Citations
    def __init__(self, generated: _Optional[_Union[_infer_pb2.GenerateResponse, _Mapping]] = ..., citations: _Optional[_Union[Citations, _Mapping]] = ...) -> None: ...

class Citations(_message.Message):
    __slots__ = ("citations", "text", "confidence", "rerank")
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    citations: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Citation]
    text: str
    confidence: float
    rerank: _retrieve_pb2.Reranking
    def __init__(self, citations: _Optional[_Iterable[_Union[_passage_pb2.Citation, _Mapping]]] = ..., text: _Optional[str] = ..., confidence: _Optional[float] = ..., rerank: _Optional[_Union[_retrieve_pb2.Reranking, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("embed",)
    EMBED_FIELD_NUMBER: _ClassVar[int]
    embed: _retrieve_pb2.EmbedRequest
    def __init__(self, embed: _Optional[_Union[_retrieve_pb2.EmbedRequest, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embed",)
    EMBED_FIELD_NUMBER: _ClassVar[int]
    embed: _retrieve_pb2.EmbedResponse
    def __init__(self, embed: _Optional[_Union[_retrieve_pb2.EmbedResponse, _Mapping]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("rerank",)
    RERANK_FIELD_NUMBER: _ClassVar[int]
    rerank: _retrieve_pb2.RerankRequest
    def __init__(self, rerank: _Optional[_Union[_retrieve_pb2.RerankRequest, _Mapping]] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("rerank",)
    RERANK_FIELD_NUMBER: _ClassVar[int]
    rerank: _retrieve_pb2.RerankResponse
    def __init__(self, rerank: _Optional[_Union[_retrieve_pb2.RerankResponse, _Mapping]] = ...) -> None: ...

class SummarizeRequest(_message.Message):
    __slots__ = ("text", "language", "length", "model")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    text: str
    language: str
    length: _infer_pb2.SummaryLength
    model: str
    def __init__(self, text: _Optional[str] = ..., language: _Optional[str] = ..., length: _Optional[_Union[_infer_pb2.SummaryLength, str]] = ..., model: _Optional[str] = ...) -> None: ...

class SummarizeResponse(_message.Message):
    __slots__ = ("text", "model", "usage")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    model: str
    usage: _chat_pb2.Usage
    def __init__(self, text: _Optional[str] = ..., model: _Optional[str] = ..., usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: _retrieve_pb2.CreateCollectionRequest
    def __init__(self, collection: _Optional[_Union[_retrieve_pb2.CreateCollectionRequest, _Mapping]] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: _retrieve_pb2.Collection
    def __init__(self, collection: _Optional[_Union[_retrieve_pb2.Collection, _Mapping]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: _retrieve_pb2.Collection
    def __init__(self, collection: _Optional[_Union[_retrieve_pb2.Collection, _Mapping]] = ...) -> None: ...

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
    collections: _containers.RepeatedCompositeFieldContainer[_retrieve_pb2.Collection]
    next_page_token: str
    def __init__(self, collections: _Optional[_Iterable[_Union[_retrieve_pb2.Collection, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

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

class IngestDocumentsRequest(_message.Message):
    __slots__ = ("header", "document", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: IngestHeader
    document: IngestDocument
    data: bytes
    def __init__(self, header: _Optional[_Union[IngestHeader, _Mapping]] = ..., document: _Optional[_Union[IngestDocument, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class IngestHeader(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class IngestDocument(_message.Message):
    __slots__ = ("id", "filename", "content_type", "title", "metadata", "access")
    ID_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    filename: str
    content_type: str
    title: str
    metadata: _struct_pb2.Struct
    access: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., filename: _Optional[str] = ..., content_type: _Optional[str] = ..., title: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., access: _Optional[_Iterable[str]] = ...) -> None: ...

class IngestDocumentsResponse(_message.Message):
    __slots__ = ("documents",)
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[IngestResult]
    def __init__(self, documents: _Optional[_Iterable[_Union[IngestResult, _Mapping]]] = ...) -> None: ...

class IngestResult(_message.Message):
    __slots__ = ("id", "chunks", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: str
    chunks: int
    status: _retrieve_pb2.IndexStatus
    def __init__(self, id: _Optional[str] = ..., chunks: _Optional[int] = ..., status: _Optional[_Union[_retrieve_pb2.IndexStatus, str]] = ...) -> None: ...

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
    document: _retrieve_pb2.Document
    def __init__(self, document: _Optional[_Union[_retrieve_pb2.Document, _Mapping]] = ...) -> None: ...

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
    documents: _containers.RepeatedCompositeFieldContainer[_retrieve_pb2.Document]
    next_page_token: str
    def __init__(self, documents: _Optional[_Iterable[_Union[_retrieve_pb2.Document, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

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

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id", "target", "owned_by", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OWNED_BY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    target: str
    owned_by: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., target: _Optional[str] = ..., owned_by: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
