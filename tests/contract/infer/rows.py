"""Every row of REGISTRY with what its tests run against. A new engine adds a line here, and its
scripted server in `servers/` where the engine itself cannot run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from services.infer.adapters import REGISTRY
from services.infer.adapters.extractive import ExtractiveSettings
from services.infer.adapters.llamacpp import LlamaCppSettings
from services.infer.adapters.scripted import ScriptedEngine, ScriptedSettings
from services.infer.adapters.transformers import TransformersSettings
from services.infer.adapters.vllm_local import VllmLocalSettings
from services.infer.ports import GenerateRequest
from services.infer.settings import EngineSettings
from tests.conftest import NOT_APPLICABLE, SHARED_DATA
from tests.contract.infer import rig
from tests.contract.infer.imaginary import ImaginarySettings
from tests.contract.infer.rig import Rig
from tests.contract.infer.scripted_http import ScriptedServer, running
from tests.contract.infer.servers.aira import AiraJobServer, AiraServer
from tests.contract.infer.servers.azure import AzureServer, DatedAzureServer
from tests.contract.infer.servers.litellm import LiteLlmProxyServer
from tests.contract.infer.servers.llamacpp import LlamaServer
from tests.contract.infer.servers.nim import NativeNimServer, NimServer
from tests.contract.infer.servers.ollama import OllamaServer
from tests.contract.infer.servers.openai import OpenAIServer
from tests.contract.infer.servers.sglang import SglangServer
from tests.contract.infer.servers.tgi import TgiServer
from tests.contract.infer.servers.triton import (
    AccumulatingServer,
    LlmApiServer,
    TensorRtServer,
    served,
)
from tests.contract.infer.servers.trtllm import TrtllmServer
from tests.contract.infer.servers.vllm import VllmServer

Row = Callable[[], AbstractAsyncContextManager[Rig]]


def behind(server: type[ScriptedServer]) -> Row:
    """A row whose engine is reached over a scripted server."""
    return lambda: running(server())


def alone(made: Callable[[], Rig]) -> Row:
    """A row whose engine runs in this process and needs nothing."""

    @asynccontextmanager
    async def row() -> AsyncIterator[Rig]:
        yield made()

    return row


class ExtractiveRig(Rig):
    """It answers at once, waiting for nothing that could be cancelled."""

    def __init__(self) -> None:
        self.settings = ExtractiveSettings()


class ImaginaryRig(Rig):
    """So does this one."""

    text = "ええ" * 3

    def __init__(self) -> None:
        self.settings = ImaginarySettings()


@dataclass
class ScriptedRig(Rig):
    """The test double is told by each request."""

    can = frozenset(
        {rig.STALL, rig.HANG, rig.CUT, rig.CONTEXT, rig.RATE, rig.AUTH, rig.OVERLOAD, rig.DOWN}
    )
    text = "こんにちは、世界。The quick brown fox: 日本語!"
    engine: ScriptedEngine | None = None
    directives: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.settings = ScriptedSettings(text=self.text)

    def behave(self, how: str) -> None:
        reasons = {
            rig.CONTEXT: "CONTEXT_LENGTH_EXCEEDED",
            rig.RATE: "ENGINE_RATE_LIMITED",
            rig.AUTH: "ENGINE_AUTHENTICATION_FAILED",
            rig.OVERLOAD: "ENGINE_OVERLOADED",
            rig.DOWN: "ENGINE_UNAVAILABLE",
        }
        if how in reasons:
            self.directives = {"mode": "fail", "reason": reasons[how], "retry_after": 7.0}
        else:
            modes = {rig.STALL: ("hang", 0), rig.HANG: ("hang", 1), rig.CUT: ("cut", 1)}
            mode, after = modes[how]
            self.directives = {"mode": mode, "after": after}

    def directed(self, request: GenerateRequest) -> GenerateRequest:
        if self.directives is None:
            return request
        return replace(request, extra={"scripted": self.directives})

    @property
    def running(self) -> int:
        assert self.engine is not None
        return self.engine.started - self.engine.finished - self.engine.aborted

    @property
    def aborted(self) -> int:
        assert self.engine is not None
        return self.engine.aborted


class KnownAnswerRig(Rig):
    """A real engine with a model that answers every chat alike; it cannot be told to fail."""

    text = ScriptedRig.text

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings


def known_answer(file: str, made: Callable[[str], EngineSettings]) -> Row:
    """A row whose engine loads the model in this process.

    Args:
        file: within the model's folder; empty for the folder.
        made: from the file's path, the settings.
    """

    @asynccontextmanager
    async def row() -> AsyncIterator[Rig]:
        folder = SHARED_DATA / "models" / "known_answer"
        if not folder.is_dir():
            pytest.skip(f"{NOT_APPLICABLE}there is no model beside the checkout")
        yield KnownAnswerRig(made(str(folder / file)))

    return row


IMAGINARY = {"imaginary": "tests.contract.infer.imaginary:ImaginaryEngine"}
ALL: Mapping[str, str] = {**REGISTRY, **IMAGINARY}

ROWS: Mapping[str, Row] = {
    "aira": behind(AiraJobServer),
    "azure": behind(AzureServer),
    "extractive": alone(ExtractiveRig),
    "imaginary": alone(ImaginaryRig),
    "litellm": behind(LiteLlmProxyServer),
    "llamacpp": behind(LlamaServer),
    "nim": behind(NimServer),
    "ollama": behind(OllamaServer),
    "openai": behind(OpenAIServer),
    "scripted": alone(ScriptedRig),
    "sglang": behind(SglangServer),
    "tgi": behind(TgiServer),
    "triton": served(TensorRtServer),
    "trtllm": behind(TrtllmServer),
    "vllm": behind(VllmServer),
}
MORE: Mapping[str, tuple[str, Row]] = {
    "aira, older service": ("aira", behind(AiraServer)),
    "azure, dated route": ("azure", behind(DatedAzureServer)),
    "nim, from 2.0 on": ("nim", behind(NativeNimServer)),
    "triton, accumulating": ("triton", served(AccumulatingServer)),
    "triton, LLM API": ("triton", served(LlmApiServer)),
}
"""Further surroundings of a row: a name -> the row and what it runs against."""

REAL: Mapping[str, Row] = {
    "llamacpp": known_answer(
        "known_answer-f32.gguf", lambda path: LlamaCppSettings(model_path=path)
    ),
    "transformers": known_answer("", lambda path: TransformersSettings(model_path=path)),
    "vllm-local": known_answer(
        "",
        lambda path: VllmLocalSettings(
            model_path=path,
            dtype="float32",
            context_length=512,
            max_sequences=16,
            engine_args={"enforce_eager": True, "kv_cache_memory_bytes": 1 << 26},
        ),
    ),
}
"""Rows whose engine runs in this process once its package is installed: `tests/engines` holds them
to the contract."""
