from ragmesh.type.v1 import chat_pb2 as _chat_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProcessDocumentRequest(_message.Message):
    __slots__ = ("header", "tokenizer", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: DocumentHeader
    tokenizer: bytes
    data: bytes
    def __init__(self, header: _Optional[_Union[DocumentHeader, _Mapping]] = ..., tokenizer: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class DocumentHeader(_message.Message):
    __slots__ = ("filename", "content_type", "title", "chunking")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CHUNKING_FIELD_NUMBER: _ClassVar[int]
    filename: str
    content_type: str
    title: str
    chunking: Chunking
    def __init__(self, filename: _Optional[str] = ..., content_type: _Optional[str] = ..., title: _Optional[str] = ..., chunking: _Optional[_Union[Chunking, _Mapping]] = ...) -> None: ...

class Chunking(_message.Message):
    __slots__ = ("tokenizer_id", "max_tokens", "overlap_tokens", "languages")
    TOKENIZER_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    tokenizer_id: str
    max_tokens: int
    overlap_tokens: int
    languages: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokenizer_id: _Optional[str] = ..., max_tokens: _Optional[int] = ..., overlap_tokens: _Optional[int] = ..., languages: _Optional[_Iterable[str]] = ...) -> None: ...

class ProcessDocumentResponse(_message.Message):
    __slots__ = ("ready", "document", "chunks")
    READY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ready: Ready
    document: DocumentInfo
    chunks: ChunkBatch
    def __init__(self, ready: _Optional[_Union[Ready, _Mapping]] = ..., document: _Optional[_Union[DocumentInfo, _Mapping]] = ..., chunks: _Optional[_Union[ChunkBatch, _Mapping]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("tokenizer_needed",)
    TOKENIZER_NEEDED_FIELD_NUMBER: _ClassVar[int]
    tokenizer_needed: bool
    def __init__(self, tokenizer_needed: _Optional[bool] = ...) -> None: ...

class DocumentInfo(_message.Message):
    __slots__ = ("format", "title", "language", "pages", "characters", "warnings")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    format: str
    title: str
    language: str
    pages: int
    characters: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, format: _Optional[str] = ..., title: _Optional[str] = ..., language: _Optional[str] = ..., pages: _Optional[int] = ..., characters: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ChunkBatch(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("index", "text", "normalized_text", "heading", "page", "language", "tokens", "start", "end")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_TEXT_FIELD_NUMBER: _ClassVar[int]
    HEADING_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    normalized_text: str
    heading: str
    page: int
    language: str
    tokens: int
    start: int
    end: int
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., normalized_text: _Optional[str] = ..., heading: _Optional[str] = ..., page: _Optional[int] = ..., language: _Optional[str] = ..., tokens: _Optional[int] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class PlanQueryRequest(_message.Message):
    __slots__ = ("query", "history", "max_characters")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    MAX_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    query: str
    history: _containers.RepeatedCompositeFieldContainer[_chat_pb2.ChatMessage]
    max_characters: int
    def __init__(self, query: _Optional[str] = ..., history: _Optional[_Iterable[_Union[_chat_pb2.ChatMessage, _Mapping]]] = ..., max_characters: _Optional[int] = ...) -> None: ...

class PlanQueryResponse(_message.Message):
    __slots__ = ("standalone", "rewrite")
    STANDALONE_FIELD_NUMBER: _ClassVar[int]
    REWRITE_FIELD_NUMBER: _ClassVar[int]
    standalone: StandaloneQuery
    rewrite: RewriteRequest
    def __init__(self, standalone: _Optional[_Union[StandaloneQuery, _Mapping]] = ..., rewrite: _Optional[_Union[RewriteRequest, _Mapping]] = ...) -> None: ...

class StandaloneQuery(_message.Message):
    __slots__ = ("query", "normalized_query", "language", "rewritten")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_QUERY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    REWRITTEN_FIELD_NUMBER: _ClassVar[int]
    query: str
    normalized_query: str
    language: str
    rewritten: bool
    def __init__(self, query: _Optional[str] = ..., normalized_query: _Optional[str] = ..., language: _Optional[str] = ..., rewritten: _Optional[bool] = ...) -> None: ...

class RewriteRequest(_message.Message):
    __slots__ = ("query", "history", "language", "fallback")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    query: str
    history: _containers.RepeatedCompositeFieldContainer[_chat_pb2.ChatMessage]
    language: str
    fallback: StandaloneQuery
    def __init__(self, query: _Optional[str] = ..., history: _Optional[_Iterable[_Union[_chat_pb2.ChatMessage, _Mapping]]] = ..., language: _Optional[str] = ..., fallback: _Optional[_Union[StandaloneQuery, _Mapping]] = ...) -> None: ...

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
