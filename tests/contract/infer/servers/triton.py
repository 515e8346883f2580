"""Triton's gRPC service, to the Open Inference Protocol and Triton's extensions, with a model of
TensorRT-LLM's tensors or of the vLLM back-end's. Messages and service are the vendor's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import grpc
from pydantic import SecretStr
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from services.infer.adapters.triton import TritonSettings
from tests.contract.infer import rig
from tests.contract.infer.rig import Rig
from tests.contract.infer.servers.openai import KEY, TEXT

MODEL = "ensemble"
REFUSALS: dict[str, tuple[grpc.StatusCode, str]] = {
    rig.RATE: (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit"),  # a proxy's
    rig.AUTH: (grpc.StatusCode.UNAUTHENTICATED, "no valid key"),  # a proxy's
    rig.OVERLOAD: (
        grpc.StatusCode.UNAVAILABLE,
        "[request id: <id_unknown>] Exceeds maximum queue size",
    ),
    rig.DOWN: (grpc.StatusCode.INTERNAL, "failed to run"),
}


class TritonServicer(pb_grpc.GRPCInferenceServiceServicer):
    """One model."""

    def __init__(self, owner: TritonServer) -> None:
        self._owner = owner

    async def ServerReady(self, request: Any, context: Any) -> Any:
        await self._check(context)
        return pb.ServerReadyResponse(ready=True)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        await self._check(context)
        index = pb.RepositoryIndexResponse()
        for name in ("preprocessing", MODEL):
            index.models.add(name=name, version="1", state="READY")
        return index

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        if request.name != MODEL:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Request for unknown model: '{request.name}' is not found",
            )
        metadata = pb.ModelMetadataResponse(name=MODEL)
        for name, (datatype, shape) in self._owner.inputs.items():
            metadata.inputs.add(name=name, datatype=datatype, shape=shape)
        return metadata

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        told = pb.ModelConfigResponse()
        told.config.name = MODEL
        if self._owner.accumulates is not None:
            told.config.parameters["accumulate_tokens"].string_value = self._owner.accumulates
        return told

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        self._owner.loaded.add(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self._owner.loaded.discard(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelStreamInfer(self, requests: Any, context: Any) -> Any:
        owner = self._owner
        await self._check(context)
        async for request in requests:
            owner.running_now += 1
            try:
                async for response in self._answers(request, context):
                    yield response
            except asyncio.CancelledError:
                owner.aborted_so_far += 1
                raise
            finally:
                owner.running_now -= 1

    async def _check(self, context: Any) -> None:
        if self._owner.mode in REFUSALS:
            await context.abort(*REFUSALS[self._owner.mode])
        if ("authorization", f"Bearer {KEY}") not in context.invocation_metadata():
            await context.abort(*REFUSALS[rig.AUTH])

    async def _answers(self, request: Any, context: Any) -> AsyncIterator[Any]:
        owner, given = self._owner, {one.name: one for one in request.inputs}
        owner.asked.append(given)
        wrong = given.keys() - owner.inputs.keys()
        if wrong or "text_input" not in given:
            text = f"unexpected inference input '{min(wrong or ['none'])}' for model '{MODEL}'"
            yield pb.ModelStreamInferResponse(error_message=text)
            return
        for name, one in given.items():
            size = len(next(value for field, value in one.contents.ListFields()))
            expected = 1
            for dimension in one.shape:
                expected *= dimension
            assert size == expected, f"{name}: {size} elements in {list(one.shape)}"
        if owner.mode == rig.CONTEXT:
            yield pb.ModelStreamInferResponse(error_message=owner.too_long)
            return
        if owner.mode == rig.STALL:
            await asyncio.Event().wait()
        if owner.mode == rig.GARBAGE:
            yield pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse())
            return
        pieces = [piece.encode() for piece in TEXT]
        if owner.mode == rig.BYTES:
            pieces = [bytes([byte]) for byte in b"".join(pieces)]
        for number, piece in enumerate(pieces):
            if owner.grows:  # decoded as far as it goes
                whole = b"".join(pieces[: number + 1])
                piece = whole.decode(errors="replace").encode()  # noqa: PLW2901
            yield _answer(owner, piece, last=False)
            if number == 0 and owner.mode == rig.HANG:
                await asyncio.Event().wait()
            if number == 0 and owner.mode == rig.CUT:
                return
        yield _answer(owner, b"", last=True)


def _answer(owner: TritonServer, piece: bytes, *, last: bool) -> Any:
    response = pb.ModelInferResponse(model_name=MODEL)
    response.parameters["triton_final_response"].bool_param = last
    outputs = {} if last else owner.outputs(piece)
    for name, (datatype, raw) in outputs.items():
        response.outputs.add(name=name, datatype=datatype, shape=[1])
        response.raw_output_contents.append(raw)
    return pb.ModelStreamInferResponse(infer_response=response)


def _bytes(value: bytes) -> tuple[str, bytes]:
    return "BYTES", len(value).to_bytes(4, "little") + value


class TritonServer(Rig):
    """What a test tells the service."""

    can = rig.WIRE
    rate_limit_delay = None
    text = "".join(TEXT)
    inputs: ClassVar[dict[str, tuple[str, list[int]]]]
    too_long: ClassVar[str]
    accumulates: ClassVar[str | None] = None
    """What its configuration says of `accumulate_tokens`."""
    grows: ClassVar[bool] = False
    """Each answer has all of the text so far."""

    def __init__(self) -> None:
        self.mode = ""
        self.asked: list[dict[str, Any]] = []
        self.loaded: set[str] = set()
        self.running_now = 0
        self.aborted_so_far = 0

    def behave(self, how: str) -> None:
        self.mode = how

    @property
    def running(self) -> int:
        return self.running_now

    @property
    def aborted(self) -> int:
        return self.aborted_so_far

    def outputs(self, piece: bytes) -> dict[str, tuple[str, bytes]]:
        return {"text_output": _bytes(piece)}


class TensorRtServer(TritonServer):
    """TensorRT-LLM's ensemble: each parameter a tensor, with a dimension for the batch."""

    stands_in = "a scripted gRPC service with TensorRT-LLM's tensors"
    too_long = "Executor failed: Prompt length (513) exceeds maximum input length (512)."
    inputs: ClassVar[dict[str, tuple[str, list[int]]]] = {
        "text_input": ("BYTES", [-1, 1]),
        "max_tokens": ("INT32", [-1, 1]),
        "stream": ("BOOL", [-1, 1]),
        "exclude_input_in_output": ("BOOL", [-1, 1]),
        "temperature": ("FP32", [-1, 1]),
        "top_p": ("FP32", [-1, 1]),
        "top_k": ("INT32", [-1, 1]),
        "random_seed": ("UINT64", [-1, 1]),
        "presence_penalty": ("FP32", [-1, 1]),
        "frequency_penalty": ("FP32", [-1, 1]),
        "stop_words": ("BYTES", [-1, -1]),
        "bad_words": ("BYTES", [-1, -1]),
    }


class AccumulatingServer(TensorRtServer):
    """TensorRT-LLM's `tensorrt_llm_bls` with `accumulate_tokens`."""

    stands_in = "a scripted gRPC service with the tensors of TensorRT-LLM's accumulating model"
    accumulates = "true"
    grows = True


class LlmApiServer(TritonServer):
    """TensorRT-LLM's model of its LLM API: other names, a reason, all of the text each time."""

    stands_in = "a scripted gRPC service with the tensors of TensorRT-LLM's LLM API"
    too_long = "Error generating request: Prompt length (513) exceeds maximum input length (512)."
    grows = True
    inputs: ClassVar[dict[str, tuple[str, list[int]]]] = {
        "text_input": ("BYTES", [-1]),
        "streaming": ("BOOL", [1]),
        "sampling_param_temperature": ("FP32", [1]),
        "sampling_param_top_k": ("INT32", [1]),
        "sampling_param_top_p": ("FP32", [1]),
        "sampling_param_frequency_penalty": ("FP32", [1]),
        "sampling_param_presence_penalty": ("FP32", [1]),
        "sampling_param_max_tokens": ("INT32", [1]),
        "sampling_param_stop": ("BYTES", [-1]),
        "sampling_param_seed": ("UINT64", [1]),
        "sampling_param_exclude_input_from_output": ("BOOL", [1]),
        "return_finish_reason": ("BOOL", [1]),
        "stop": ("BOOL", [1]),
    }

    def outputs(self, piece: bytes) -> dict[str, tuple[str, bytes]]:
        ended = piece.decode() == self.text
        reason = b"length" if ended else b"None"
        return {**super().outputs(piece), "finish_reason": _bytes(reason)}


class VllmBackend(TritonServer):
    """The vLLM back-end: parameters as one JSON text, counts and reason where asked for."""

    stands_in = "a scripted gRPC service with the vLLM back-end's tensors"
    too_long = (
        "Error generating stream: The decoder prompt (length 513) is longer than the maximum model "
        "length of 512."
    )
    inputs: ClassVar[dict[str, tuple[str, list[int]]]] = {
        "text_input": ("BYTES", [1]),
        "stream": ("BOOL", [1]),
        "sampling_parameters": ("BYTES", [1]),
        "exclude_input_in_output": ("BOOL", [1]),
        "return_finish_reason": ("BOOL", [1]),
        "return_num_input_tokens": ("BOOL", [1]),
        "return_num_output_tokens": ("BOOL", [1]),
    }

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked for last."""
        sent: dict[str, Any] = json.loads(
            self.asked[-1]["sampling_parameters"].contents.bytes_contents[0]
        )
        return sent

    def outputs(self, piece: bytes) -> dict[str, tuple[str, bytes]]:
        return {
            **super().outputs(piece),
            "finish_reason": _bytes(b"length"),
            "num_input_tokens": ("UINT32", (7).to_bytes(4, "little")),
            "num_output_tokens": ("UINT32", (3).to_bytes(4, "little")),
        }


def served(kind: type[TritonServer]) -> Any:
    """A row."""

    @asynccontextmanager
    async def row() -> AsyncIterator[Rig]:
        owner = kind()
        server = grpc.aio.server()
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(TritonServicer(owner), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        owner.settings = TritonSettings(
            url=f"grpc://127.0.0.1:{port}", api_key=SecretStr(KEY), model=MODEL
        )
        try:
            yield owner
        finally:
            await server.stop(None)

    made: type[AbstractAsyncContextManager[Rig]] | Any = row
    return made
