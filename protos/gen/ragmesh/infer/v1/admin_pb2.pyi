import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SwitchStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SWITCH_STEP_UNSPECIFIED: _ClassVar[SwitchStep]
    SWITCH_STEP_WARMING: _ClassVar[SwitchStep]
    SWITCH_STEP_MOVED: _ClassVar[SwitchStep]
    SWITCH_STEP_DRAINING: _ClassVar[SwitchStep]
    SWITCH_STEP_DONE: _ClassVar[SwitchStep]
SWITCH_STEP_UNSPECIFIED: SwitchStep
SWITCH_STEP_WARMING: SwitchStep
SWITCH_STEP_MOVED: SwitchStep
SWITCH_STEP_DRAINING: SwitchStep
SWITCH_STEP_DONE: SwitchStep

class AliasRevision(_message.Message):
    __slots__ = ("alias", "targets", "revision", "created_at", "created_by")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    alias: str
    targets: _containers.RepeatedCompositeFieldContainer[WeightedTarget]
    revision: int
    created_at: _timestamp_pb2.Timestamp
    created_by: str
    def __init__(self, alias: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[WeightedTarget, _Mapping]]] = ..., revision: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_by: _Optional[str] = ...) -> None: ...

class WeightedTarget(_message.Message):
    __slots__ = ("provider_model", "weight")
    PROVIDER_MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    provider_model: str
    weight: float
    def __init__(self, provider_model: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class GetRegistryRequest(_message.Message):
    __slots__ = ("history",)
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    history: bool
    def __init__(self, history: _Optional[bool] = ...) -> None: ...

class GetRegistryResponse(_message.Message):
    __slots__ = ("aliases",)
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.RepeatedCompositeFieldContainer[AliasRevision]
    def __init__(self, aliases: _Optional[_Iterable[_Union[AliasRevision, _Mapping]]] = ...) -> None: ...

class AddModelRequest(_message.Message):
    __slots__ = ("alias", "provider_model", "expected_revision")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    alias: str
    provider_model: str
    expected_revision: int
    def __init__(self, alias: _Optional[str] = ..., provider_model: _Optional[str] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class AddModelResponse(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: AliasRevision
    def __init__(self, alias: _Optional[_Union[AliasRevision, _Mapping]] = ...) -> None: ...

class RemoveModelRequest(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: str
    def __init__(self, alias: _Optional[str] = ...) -> None: ...

class RemoveModelResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class SwitchModelRequest(_message.Message):
    __slots__ = ("alias", "provider_model")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_MODEL_FIELD_NUMBER: _ClassVar[int]
    alias: str
    provider_model: str
    def __init__(self, alias: _Optional[str] = ..., provider_model: _Optional[str] = ...) -> None: ...

class SwitchModelResponse(_message.Message):
    __slots__ = ("step", "message", "alias")
    STEP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    step: SwitchStep
    message: str
    alias: AliasRevision
    def __init__(self, step: _Optional[_Union[SwitchStep, str]] = ..., message: _Optional[str] = ..., alias: _Optional[_Union[AliasRevision, _Mapping]] = ...) -> None: ...

class RollbackModelRequest(_message.Message):
    __slots__ = ("alias", "revision")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    alias: str
    revision: int
    def __init__(self, alias: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class RollbackModelResponse(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: AliasRevision
    def __init__(self, alias: _Optional[_Union[AliasRevision, _Mapping]] = ...) -> None: ...

class SetWeightsRequest(_message.Message):
    __slots__ = ("alias", "targets")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    alias: str
    targets: _containers.RepeatedCompositeFieldContainer[WeightedTarget]
    def __init__(self, alias: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[WeightedTarget, _Mapping]]] = ...) -> None: ...

class SetWeightsResponse(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: AliasRevision
    def __init__(self, alias: _Optional[_Union[AliasRevision, _Mapping]] = ...) -> None: ...

class DownloadModelRequest(_message.Message):
    __slots__ = ("provider_model",)
    PROVIDER_MODEL_FIELD_NUMBER: _ClassVar[int]
    provider_model: str
    def __init__(self, provider_model: _Optional[str] = ...) -> None: ...

class DownloadModelResponse(_message.Message):
    __slots__ = ("status", "completed_bytes", "total_bytes")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    status: str
    completed_bytes: int
    total_bytes: int
    def __init__(self, status: _Optional[str] = ..., completed_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...
