"""vLLM's asynchronous engine in this process (its core runs in one beside it)."""

import asyncio
import logging
import os
import re
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import BAD, DOWN, OVERLOADED, REFUSED, failure
from services.infer.adapters.openai_body import body_of
from services.infer.adapters.openai_errors import NUMBERS, TOO_LONG_TEXT
from services.infer.adapters.vocabulary import Vocabulary
from services.infer.lengths import too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    GuideKind,
    ModelInfo,
    Task,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from services.infer.settings import LocalSettings
from services.runtime.errors import FailedPrecondition, RagmeshError
from services.runtime.registry import package

log = logging.getLogger(__name__)

_WHO = "model provider 'vllm-local'"


class VllmLocalSettings(LocalSettings):
    """vLLM in this process, with a model from a folder or a hub."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_VLLM_LOCAL_")

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Numbers to compute in; auto: as the model was saved, and float16 for AWQ, which has no
    other."""
    quantization: str = ""
    """Of the weights, as vLLM names it: ``awq``, ``gptq``, ``fp8`` and others; empty: as the model
    says."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share each layer."""
    gpu_memory: float = Field(0.0, ge=0, le=1)
    """Share of a GPU's memory; 0: vLLM's own."""
    max_sequences: int = Field(0, ge=0)
    """Generations that are computed at once; 0: vLLM's own."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """JSON object, further fields of vLLM's ``AsyncEngineArgs``."""


class VllmLocalEngine:
    """vLLM."""

    Settings = VllmLocalSettings

    def __init__(self, settings: VllmLocalSettings) -> None:
        """Raises:
        FailedPrecondition: SETTING_REQUIRED, DTYPE_UNSUPPORTED.
        """
        self._settings = settings
        self._path = settings.require("model_path", "/models/my-model or owner/name")
        self._arguments = engine_arguments(settings)
        self._starting = asyncio.Lock()
        self._vllm: Any = None
        self._engine: Any = None
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_settings(cls, settings: VllmLocalSettings) -> "VllmLocalEngine":
        return cls(settings)

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(
            json_object=True,
            json_schema=True,
            guides=frozenset(GuideKind),
            logprobs=True,
            multiple_choices=True,
            seed=True,
            top_k=True,
            penalties=True,
            logit_bias=True,
            completions=True,
            prefill=True,
            counts_tokens=True,
        )

    async def models(self) -> Sequence[ModelInfo]:
        length = self._settings.context_length
        if self._engine is not None:
            length = int(self._engine.model_config.max_model_len)
        return (ModelInfo(self._settings.model or Path(self._path).name, length, "vllm"),)

    async def ready(self) -> None:
        engine = await self._started()
        try:
            await engine.check_health()
        except Exception as error:  # vLLM's word for a core that died is not its alone
            log.exception("the engine is not healthy")
            raise failure(DOWN) from error

    async def aclose(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)

    async def count_tokens(self, request: GenerateRequest) -> int:
        await self._started()
        return len(await asyncio.to_thread(self._prompt, request))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        engine = await self._started()
        prompt = await asyncio.to_thread(self._prompt, request)
        usage, cached = Usage(len(prompt)), 0
        finishes: list[Finish] = []
        try:
            outputs = engine.generate(
                {"prompt_token_ids": prompt}, self._sampling(request), uuid.uuid4().hex
            )
            async with aclosing(outputs):
                async for output in outputs:
                    usage += Usage(
                        completion_tokens=sum(len(one.token_ids) for one in output.outputs)
                    )
                    for one in output.outputs:
                        logprobs = self._logprobs(one, request.top_logprobs)
                        if one.text or logprobs:
                            yield Delta(one.text, one.index, logprobs=logprobs)
                        if one.finish_reason:
                            finishes.append(Finish(_reason(one.finish_reason), one.index))
                    cached = output.num_cached_tokens or 0
        except RagmeshError:
            raise
        except Exception as error:
            raise self._error(error, request, len(prompt)) from error
        for finish in finishes:
            yield finish
        yield usage + Usage(cached_tokens=cached)

    async def _started(self) -> Any:
        """The engine; started when it is first needed.

        Raises:
            FailedPrecondition: PACKAGE_MISSING.
            Unavailable: ENGINE_UNAVAILABLE.
        """
        async with self._starting:
            if self._engine is None:
                # vLLM reports its use to its makers unless its environment says no; no other way.
                os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # noqa: TID251
                self._vllm = await asyncio.to_thread(package, "vllm", _WHO)
                try:
                    # In the loop: the engine belongs to the loop that it is made in.
                    self._engine = self._vllm.AsyncLLMEngine.from_engine_args(
                        self._vllm.AsyncEngineArgs(**self._arguments)
                    )
                except Exception as error:
                    log.exception("the engine does not start")
                    raise failure(DOWN) from error
                self._vocabulary = Vocabulary(self._engine.get_tokenizer())
            return self._engine

    def _prompt(self, request: GenerateRequest) -> list[int]:
        if self._vocabulary is None:
            raise RuntimeError("the engine was not started")
        if request.task is Task.COMPLETE:
            return self._vocabulary.tokens(request.text)
        return self._vocabulary.prompt(
            body_of(request)["messages"], continue_final=request.continue_final
        )

    def _sampling(self, request: GenerateRequest) -> Any:
        sampling, parameters = request.sampling, self._vllm.sampling_params
        wished = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": dict(sampling.logit_bias) or None,
            "logprobs": request.top_logprobs,
            "structured_outputs": self._structure(request),
        }
        return self._vllm.SamplingParams(
            n=request.n,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            output_kind=parameters.RequestOutputKind.DELTA,
            **{name: value for name, value in wished.items() if value is not None},
        )

    def _structure(self, request: GenerateRequest) -> Any:
        """What the answer must match; None for anything."""
        wanted, guide = request.response_format, request.guide
        form = self._vllm.sampling_params.StructuredOutputsParams
        if wanted.type is FormatType.JSON_OBJECT:
            return form(json_object=True)
        if wanted.type is FormatType.JSON_SCHEMA:
            return form(json=wanted.json_schema)
        if guide is None:
            return None
        if guide.kind is GuideKind.CHOICE:
            return form(choice=list(guide.values))
        return form(**{guide.kind.value: guide.value})

    def _logprobs(self, output: Any, top: int | None) -> tuple[TokenLogprob, ...]:
        if top is None or not output.logprobs or self._vocabulary is None:
            return ()
        spelled = self._vocabulary.bytes_of
        made = []
        for token, likely in zip(output.token_ids, output.logprobs, strict=True):
            if self._vocabulary.is_special(token):  # it is not in the text either
                continue
            ranked = sorted(likely.items(), key=lambda item: item[1].rank or 0)
            tops = tuple(
                TopLogprob(_text(spelled(other)), float(one.logprob), spelled(other))
                for other, one in ranked[:top]
            )
            own = spelled(token)
            made.append(TokenLogprob(_text(own), float(likely[token].logprob), own, tops))
        return tuple(made)

    def _error(self, error: Exception, request: GenerateRequest, needed: int) -> RagmeshError:
        """vLLM's exception in our terms."""
        exceptions = self._vllm.exceptions
        text = str(error)
        if isinstance(error, exceptions.VLLMClientError | ValueError):
            if TOO_LONG_TEXT.search(text):
                found = next((m for one in NUMBERS if (m := one.search(text))), None)
                limit = int(found["limit"]) if found else None
                field = "prompt" if request.task is Task.COMPLETE else "messages"
                return too_long(needed, limit, field=field)
            return failure(REFUSED)
        if isinstance(error, exceptions.GracefulHTTPError):
            return failure(OVERLOADED)
        log.error("a generation failed", exc_info=error)
        return failure(DOWN if self._engine is None or self._engine.errored else BAD)


def engine_arguments(settings: VllmLocalSettings) -> Mapping[str, Any]:
    """The fields of ``AsyncEngineArgs``.

    Raises:
        FailedPrecondition: DTYPE_UNSUPPORTED, for AWQ in anything but float16.
    """
    dtype = settings.dtype
    if re.fullmatch(r"awq\w*", settings.quantization):
        if dtype not in ("auto", "float16"):
            raise FailedPrecondition(
                "DTYPE_UNSUPPORTED",
                f"AWQ computes in float16 only: set RAGMESH_VLLM_LOCAL_DTYPE=float16, not {dtype}.",
            )
        dtype = "float16"
    optional = {
        "quantization": settings.quantization,
        "max_model_len": settings.context_length,
        "gpu_memory_utilization": settings.gpu_memory,
        "max_num_seqs": settings.max_sequences,
    }
    return {
        "model": settings.model_path,
        "dtype": dtype,
        "tensor_parallel_size": settings.tensor_parallel,
        "enable_log_requests": False,  # they hold the prompts
        **{name: value for name, value in optional.items() if value},
        **settings.engine_args,
    }


def _reason(reason: str) -> FinishReason:
    return FinishReason.LENGTH if reason == "length" else FinishReason.STOP


def _text(token: bytes) -> str:
    return token.decode(errors="replace")
