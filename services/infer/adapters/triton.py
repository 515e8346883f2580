"""Triton Inference Server over gRPC, by the Open Inference Protocol (KServe v2) and Triton's
extensions to it: `ModelStreamInfer` for decoupled models, the model repository.

A model's tensors say which back-end it is of (`triton_tensors`). Each takes text: a chat is
rendered here, by the model's own template where `tokenizer` says where it lies.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import (
    BAD,
    CUT,
    DOWN,
    LATE,
    LIMITED,
    NO_MODEL,
    OVERLOADED,
    REFUSED,
    TOO_LONG,
    UNAUTHENTICATED,
    UNSUPPORTED,
    Meaning,
    failure,
)
from services.infer.adapters.http import bearer
from services.infer.adapters.openai_body import messages_of
from services.infer.adapters.pieces import Growth, Pieces
from services.infer.adapters.triton_tensors import is_llm_api, values_of
from services.infer.adapters.vocabulary import Vocabulary, plain_chat
from services.infer.lengths import too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    PullProgress,
    Task,
    Usage,
)
from services.infer.settings import ServerSettings
from services.infer.tokens import estimate_tokens
from services.runtime.errors import RagmeshError, Unimplemented
from services.runtime.registry import package

_WHO = "model provider 'triton'"
_ASKING_TIMEOUT = 5.0
_LOADING_TIMEOUT = 600.0
_FINAL = "triton_final_response"

MEANINGS: Mapping[grpc.StatusCode, Meaning] = {
    grpc.StatusCode.OK: CUT,
    grpc.StatusCode.CANCELLED: DOWN,
    grpc.StatusCode.UNKNOWN: DOWN,
    grpc.StatusCode.INVALID_ARGUMENT: REFUSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: LATE,
    grpc.StatusCode.NOT_FOUND: NO_MODEL,
    grpc.StatusCode.ALREADY_EXISTS: REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LIMITED,
    grpc.StatusCode.FAILED_PRECONDITION: REFUSED,
    grpc.StatusCode.ABORTED: DOWN,
    grpc.StatusCode.OUT_OF_RANGE: REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: UNSUPPORTED,
    grpc.StatusCode.INTERNAL: DOWN,
    grpc.StatusCode.UNAVAILABLE: DOWN,
    grpc.StatusCode.DATA_LOSS: BAD,
    grpc.StatusCode.UNAUTHENTICATED: UNAUTHENTICATED,
}
"""gRPC status -> meaning, where the message says nothing more exact."""

PATTERNS = (
    (
        re.compile(r"exceeds? (?:the )?max(?:imum)?[ _](?:input|sequence|model|context)", re.I),
        TOO_LONG,
    ),
    (re.compile(r"longer than the maximum model length|max_model_len", re.I), TOO_LONG),
    (re.compile(r"unknown model|is not found|no such model|not ready", re.I), NO_MODEL),
    (re.compile(r"maximum queue size|queue is full|too many requests", re.I), OVERLOADED),
    (re.compile(r"protocol is restricted", re.I), UNAUTHENTICATED),
    (re.compile(r"timeout expired", re.I), LATE),
    (re.compile(r"unexpected inference input|unexpected shape|data type", re.I), REFUSED),
)
"""Of Triton's, TensorRT-LLM's and vLLM's messages; errors inside a stream come without a status."""

_NUMBERS = (
    re.compile(r"length \((?P<needed>\d+)\)[^()\d]+\((?P<limit>\d+)\)"),
    re.compile(r"length (?:of )?(?P<needed>\d+)\D+(?P<limit>\d+)"),
)


class TritonSettings(ServerSettings):
    """A Triton server with language models of TensorRT-LLM or vLLM."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_TRITON_")

    url: str = "grpc://127.0.0.1:8001"
    """Address of Triton's gRPC port; ``grpcs://`` for TLS."""
    tokenizer: str = ""
    """Folder or hub id of the model's tokenizer, for its chat template and exact counts; needs the
    extra `transformers`. Empty: a plain template, and estimates."""
    exclusive: bool = False
    """Whether one model at a time is loaded, on a server that is told what to load
    (``--model-control-mode=explicit``)."""


class _Input(NamedTuple):
    datatype: str
    shape: tuple[int, ...]


class _Model(NamedTuple):
    inputs: Mapping[str, _Input]
    """The tensors that it takes."""
    grows: bool
    """Whether each answer has all of the text so far, instead of what is new."""


class TritonEngine:
    """Triton: an `Engine`, a `ModelManager`, and with a tokenizer a `TokenCounter`."""

    Settings = TritonSettings

    def __init__(self, settings: TritonSettings, messages: Any, stubs: Any) -> None:
        """Args:
        settings: where the server is.
        messages: the package's protobuf messages.
        stubs: its gRPC stubs.
        """
        self._settings = settings
        self._pb = messages
        scheme, _, address = settings.url.rpartition("://")
        options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
        self._channel = (
            grpc.aio.secure_channel(address, _credentials(settings.ca_file), options)
            if scheme in ("grpcs", "https")
            else grpc.aio.insecure_channel(address, options)
        )
        self._stub = stubs.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple(bearer(settings).items())
        self._models: dict[str, _Model] = {}
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_settings(cls, settings: TritonSettings) -> "TritonEngine":
        return cls(
            settings,
            package("tritonclient.grpc.service_pb2", _WHO),
            package("tritonclient.grpc.service_pb2_grpc", _WHO),
        )

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(
            seed=True,
            top_k=True,
            penalties=True,
            completions=True,
            prefill=True,
            counts_tokens=bool(self._settings.tokenizer),
            load=True,
            lists_all=False,
        )

    async def models(self) -> Sequence[ModelInfo]:
        length = self._settings.context_length
        try:
            index = await self._ask("RepositoryIndex", self._pb.RepositoryIndexRequest(ready=True))
        except RagmeshError as error:
            own, closed = self._settings.model, error.reason == UNAUTHENTICATED.reason
            return (ModelInfo(own, length, "triton"),) if own and closed else ()
        names = [one.name for one in index.models]
        # TensorRT-LLM's models come in parts, of which `ensemble` is the whole.
        names.sort(key=lambda name: (name != self._settings.model, name != "ensemble"))
        return [ModelInfo(name, length, "triton") for name in names]

    async def ready(self) -> None:
        if self._settings.tokenizer and self._vocabulary is None:
            self._vocabulary = await asyncio.to_thread(_vocabulary, self._settings.tokenizer)
        answer = await self._ask("ServerReady", self._pb.ServerReadyRequest())
        if not answer.ready:
            raise failure(DOWN)

    async def aclose(self) -> None:
        await self._channel.close()

    async def count_tokens(self, request: GenerateRequest) -> int:
        text, special = await self._prompt(request)
        if self._vocabulary is None:
            raise failure(DOWN)
        return len(self._vocabulary.tokens(text, add_special_tokens=special))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        text, _ = await self._prompt(request)
        model = await self._model(request.model)
        asked = self._request(request, text, model.inputs)
        pieces = Pieces(request.sampling.stop)
        growth = Growth() if model.grows else None
        counts: dict[str, int] = {}
        said: list[str] = []
        reason, final = FinishReason.STOP, False
        call = self._stub.ModelStreamInfer(
            iter([asked]), metadata=self._metadata, timeout=request.timeout
        )
        try:
            async for answer in call:
                if answer.error_message:
                    raise error_of(None, answer.error_message)
                response = answer.infer_response
                outputs = _outputs(response)
                if "text_output" in outputs:
                    new = outputs["text_output"]
                    piece = pieces.add(new) if growth is None else pieces.add_text(growth.of(new))
                    if piece:
                        said.append(piece)
                        yield Delta(piece)
                reason = _reason(outputs.get("finish_reason")) or reason
                _count(counts, outputs)
                if response.parameters[_FINAL].bool_param:
                    final = True
                    break
                if not outputs:
                    raise failure(BAD)
                if pieces.stopped:
                    reason, final = FinishReason.STOP, True
                    break
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error
        finally:
            call.cancel()
        if not final:
            raise failure(CUT)
        if rest := pieces.end():
            said.append(rest)
            yield Delta(rest)
        yield Finish(reason)
        yield await self._usage(request, text, "".join(said), counts)

    # its models

    @property
    def exclusive(self) -> bool:
        return self._settings.exclusive

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        raise Unimplemented(
            "DOWNLOAD_UNSUPPORTED", "Triton loads what lies in its repository; it fetches nothing."
        )

    async def load(self, model: str) -> None:
        await self._ask(
            "RepositoryModelLoad",
            self._pb.RepositoryModelLoadRequest(model_name=model),
            timeout=_LOADING_TIMEOUT,
        )

    async def unload(self, model: str) -> None:
        self._models.pop(model, None)
        await self._ask(
            "RepositoryModelUnload", self._pb.RepositoryModelUnloadRequest(model_name=model)
        )

    # requests

    async def _ask(self, method: str, request: Any, *, timeout: float = _ASKING_TIMEOUT) -> Any:
        try:
            return await getattr(self._stub, method)(
                request, metadata=self._metadata, timeout=timeout
            )
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error

    async def _model(self, name: str) -> _Model:
        """What there is to know of a model.

        Raises:
            InvalidArgument: PARAMETER_UNSUPPORTED: it takes no text.
        """
        known = self._models.get(name)
        if known is None:
            metadata = await self._ask("ModelMetadata", self._pb.ModelMetadataRequest(name=name))
            inputs = {one.name: _Input(one.datatype, tuple(one.shape)) for one in metadata.inputs}
            if "text_input" not in inputs:
                raise failure(UNSUPPORTED)
            grows = is_llm_api(inputs) or await self._accumulates(name)
            known = self._models[name] = _Model(inputs, grows)
        return known

    async def _accumulates(self, name: str) -> bool:
        """Whether TensorRT-LLM's `tensorrt_llm_bls` was told to send all of its text again and
        again, as it has to where single tokens are no text."""
        try:
            answer = await self._ask("ModelConfig", self._pb.ModelConfigRequest(name=name))
        except RagmeshError:  # a server may keep it to itself
            return False
        told = answer.config.parameters["accumulate_tokens"].string_value
        return told.strip().lower() in ("true", "1")

    async def _prompt(self, request: GenerateRequest) -> tuple[str, bool]:
        """The text that the model continues, and whether special tokens are still to be added."""
        if request.task is Task.COMPLETE:
            return request.text, True
        if self._settings.tokenizer and self._vocabulary is None:
            self._vocabulary = await asyncio.to_thread(_vocabulary, self._settings.tokenizer)
        render = plain_chat if self._vocabulary is None else self._vocabulary.render
        return render(messages_of(request), continue_final=request.continue_final), False

    def _request(self, request: GenerateRequest, text: str, inputs: Mapping[str, _Input]) -> Any:
        values = values_of(request, text, inputs)
        asked = self._pb.ModelInferRequest(model_name=request.model)
        asked.parameters["triton_enable_empty_final_response"].bool_param = True
        for name, value in values.items():
            self._add(asked, name, inputs[name], value)
        return asked

    def _add(self, asked: Any, name: str, wanted: _Input, value: Any) -> None:
        """Add a tensor: one value, or a list along the last dimension."""
        several = value if isinstance(value, list) else [value]
        shape = [max(size, 1) for size in wanted.shape]
        if isinstance(value, list):
            shape[-1] = len(value)
        tensor = asked.inputs.add(name=name, datatype=wanted.datatype, shape=shape)
        field, kind = _CONTENTS[wanted.datatype]
        getattr(tensor.contents, field).extend(kind(one) for one in several)

    async def _usage(
        self, request: GenerateRequest, prompt: str, said: str, counts: Mapping[str, int]
    ) -> Usage:
        read, made = counts.get("num_input_tokens"), counts.get("num_output_tokens")
        if read is not None and made is not None:
            return Usage(read, made)
        if self._vocabulary is not None:
            special = request.task is Task.COMPLETE
            read = len(self._vocabulary.tokens(prompt, add_special_tokens=special))
            return Usage(read, len(self._vocabulary.tokens(said, add_special_tokens=False)))
        return Usage(estimate_tokens(prompt), estimate_tokens(said), estimated=True)


_CONTENTS: Mapping[str, tuple[str, Any]] = {
    "BOOL": ("bool_contents", bool),
    "BYTES": ("bytes_contents", lambda text: str(text).encode()),
    "FP32": ("fp32_contents", float),
    "FP64": ("fp64_contents", float),
    "INT32": ("int_contents", int),
    "INT64": ("int64_contents", int),
    "UINT32": ("uint_contents", int),
    "UINT64": ("uint64_contents", int),
}
"""Datatype -> the field of `InferTensorContents` and what its values are made by."""


def error_of(code: grpc.StatusCode | None, message: str) -> RagmeshError:
    """Triton's failure in our terms.

    Args:
        code: None for an error inside a stream.
        message: Triton's, which stays here.
    """
    said = message[:4000]
    meaning = next((meaning for pattern, meaning in PATTERNS if pattern.search(said)), None)
    if meaning is TOO_LONG:
        found = next((m for one in _NUMBERS if (m := one.search(said))), None)
        return too_long(int(found["needed"]), int(found["limit"])) if found else too_long()
    if meaning is None:
        meaning = DOWN if code is None else MEANINGS[code]
    return meaning.kind(
        meaning.reason,
        meaning.message,
        field="model" if meaning is NO_MODEL else None,
        retry_after=meaning.retry_after,
    )


def _outputs(response: Any) -> dict[str, bytes]:
    """The first element of each tensor: of text its bytes, of numbers their little-endian ones."""
    found: dict[str, bytes] = {}
    for place, tensor in enumerate(response.outputs):
        if place < len(response.raw_output_contents):
            raw = response.raw_output_contents[place]
            if tensor.datatype == "BYTES":
                size = int.from_bytes(raw[:4], "little")
                if len(raw) < 4 + size:
                    raise failure(BAD)
                raw = raw[4 : 4 + size]
            found[tensor.name] = raw
        elif tensor.contents.bytes_contents:
            found[tensor.name] = tensor.contents.bytes_contents[0]
    return found


def _count(counts: dict[str, int], outputs: Mapping[str, bytes]) -> None:
    """Add up what vLLM's back-end counts: tokens read once, tokens made by each answer."""
    if outputs.get("num_input_tokens"):
        counts["num_input_tokens"] = int.from_bytes(outputs["num_input_tokens"][:4], "little")
    if outputs.get("num_output_tokens"):
        made = int.from_bytes(outputs["num_output_tokens"][:4], "little")
        counts["num_output_tokens"] = counts.get("num_output_tokens", 0) + made


def _reason(value: bytes | None) -> FinishReason | None:
    """Raises: Unavailable ENGINE_UNAVAILABLE: the engine gave up, which is no end."""
    if value in (b"abort", b"cancelled", b"timeout"):
        raise failure(CUT)
    return {b"length": FinishReason.LENGTH, b"stop": FinishReason.STOP}.get(value or b"")


def _credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(ca_file.read_bytes() if ca_file else None)


def _vocabulary(name: str) -> Vocabulary:
    transformers = package("transformers", f"{_WHO} with RAGMESH_TRITON_TOKENIZER")
    return Vocabulary(transformers.AutoTokenizer.from_pretrained(name))
