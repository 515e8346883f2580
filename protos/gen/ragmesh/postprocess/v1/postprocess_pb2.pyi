from ragmesh.type.v1 import passage_pb2 as _passage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_UNSPECIFIED: _ClassVar[Format]
    FORMAT_MARKDOWN: _ClassVar[Format]
    FORMAT_PLAIN: _ClassVar[Format]
FORMAT_UNSPECIFIED: Format
FORMAT_MARKDOWN: Format
FORMAT_PLAIN: Format

class ProcessAnswerRequest(_message.Message):
    __slots__ = ("text", "passages", "query", "format", "unanswered", "semantic_support")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_SUPPORT_FIELD_NUMBER: _ClassVar[int]
    text: str
    passages: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Passage]
    query: str
    format: Format
    unanswered: bool
    semantic_support: _containers.RepeatedCompositeFieldContainer[SupportRow]
    def __init__(self, text: _Optional[str] = ..., passages: _Optional[_Iterable[_Union[_passage_pb2.Passage, _Mapping]]] = ..., query: _Optional[str] = ..., format: _Optional[_Union[Format, str]] = ..., unanswered: _Optional[bool] = ..., semantic_support: _Optional[_Iterable[_Union[SupportRow, _Mapping]]] = ...) -> None: ...

class SupportRow(_message.Message):
    __slots__ = ("support",)
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    support: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, support: _Optional[_Iterable[float]] = ...) -> None: ...

class ProcessAnswerResponse(_message.Message):
    __slots__ = ("text", "citations", "confidence", "sentences")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    text: str
    citations: _containers.RepeatedCompositeFieldContainer[_passage_pb2.Citation]
    confidence: float
    sentences: _containers.RepeatedCompositeFieldContainer[Sentence]
    def __init__(self, text: _Optional[str] = ..., citations: _Optional[_Iterable[_Union[_passage_pb2.Citation, _Mapping]]] = ..., confidence: _Optional[float] = ..., sentences: _Optional[_Iterable[_Union[Sentence, _Mapping]]] = ...) -> None: ...

class Sentence(_message.Message):
    __slots__ = ("text", "markers", "support")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MARKERS_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    text: str
    markers: _containers.RepeatedScalarFieldContainer[int]
    support: float
    def __init__(self, text: _Optional[str] = ..., markers: _Optional[_Iterable[int]] = ..., support: _Optional[float] = ...) -> None: ...

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
