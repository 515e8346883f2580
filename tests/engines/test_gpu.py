"""vLLM and transformers on a GPU, with small models that are made on the spot.

``make test-engines ARGS="-m gpu"`` runs this module alone, in vLLM's own environment, and elsewhere
skips it. What needs no GPU of it is tested in tests/unit/infer/test_gpu_parts.py.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY as METRICS

from services.infer.adapters.transformers import TransformersEngine, TransformersSettings
from services.infer.adapters.vllm import VllmEngine, VllmSettings
from services.infer.adapters.vllm_local import VllmLocalEngine, VllmLocalSettings
from services.infer.ports import (
    Delta,
    Engine,
    Finish,
    FinishReason,
    GenerateRequest,
    Role,
    Sampling,
    TokenCounter,
    Usage,
    text_message,
)
from tests.conftest import NOT_APPLICABLE
from tests.engines.processes import free_port, interpreter, serving
from tests.engines.random_model import CONTEXT, END, Quantization, make
from tests.engines.test_servers import running as running_at

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

KV_BYTES = 64 * 1024 * 1024
LIMIT = 32


@dataclass(frozen=True)
class Case:
    """A model and how it is loaded."""

    dtype: str
    """What the engine is told to compute in."""
    quantization: str = ""
    """What the engine is told of the weights."""
    saved: Quantization = ""
    """How the weights are saved."""

    @property
    def name(self) -> str:
        return f"{self.quantization or 'plain'}-{self.dtype}"

    def model(self, folder: Path) -> Path:
        dtype = "bfloat16" if self.dtype == "bfloat16" else "float16"
        return make(folder / self.name, dtype=dtype, quantization=self.saved)

    def local(self, path: Path) -> VllmLocalSettings:
        """vLLM in this process."""
        return VllmLocalSettings(
            model_path=str(path),
            dtype=self.dtype,  # type: ignore[arg-type] # one of its names
            quantization=self.quantization,
            context_length=CONTEXT,
            max_sequences=16,
            engine_args={"enforce_eager": True, "kv_cache_memory_bytes": KV_BYTES},
        )

    def server(self, python: str, path: Path, port: int) -> Sequence[str]:
        """The command of vLLM's server."""
        quantized = ["--quantization", self.quantization] if self.quantization else []
        return [
            python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(path),
            "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port),
            "--dtype", self.dtype, *quantized, "--max-model-len", str(CONTEXT),
            "--max-num-seqs", "16", "--enforce-eager", "--kv-cache-memory-bytes", str(KV_BYTES),
        ]  # fmt: skip


CASES = (
    Case("float16"),
    Case("bfloat16"),
    Case("auto", "awq", "awq"),
    Case("float16", "gptq", "gptq"),
    Case("bfloat16", "fp8"),  # made of the weights while they are loaded
)


def case_of(case: Case) -> str:
    return case.name


def asked(tokens: int = LIMIT) -> GenerateRequest:
    """So many tokens, whatever the model would say: it may not end."""
    sampling = Sampling(temperature=0.0, max_tokens=tokens, logit_bias={END: -100.0})
    chat = (text_message(Role.USER, "こんにちは fox"),)
    return GenerateRequest(model="tiny", messages=chat, sampling=sampling, stream=True)


async def holds(engine: Engine) -> None:
    """It says as much as it was asked for, and counts it exactly."""
    async with aclosing(engine.generate(asked())) as events:
        *said, finish, usage = [event async for event in events]
    assert "".join(event.text for event in said if isinstance(event, Delta))
    assert finish == Finish(FinishReason.LENGTH)
    assert isinstance(usage, Usage)
    assert (usage.completion_tokens, usage.estimated) == (LIMIT, False)
    if isinstance(engine, TokenCounter):
        assert await engine.count_tokens(asked()) == usage.prompt_tokens


async def becomes_idle(engine: Engine, running: Callable[[], Any]) -> None:
    """Leaving in the middle of a long answer ends the engine's work on it.

    Args:
        running: awaited for how many requests the engine works on.
    """
    async with aclosing(engine.generate(asked(CONTEXT - 64))) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
        assert await running()
    async with asyncio.timeout(10):
        while await running():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    await holds(engine)


async def running_here() -> float:
    """Requests that vLLM works on or keeps waiting, as it tells this process's metrics. It tells
    with each step of its engine, so what has just ended is seen with the next request."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(
        sample.value
        for metric in METRICS.collect()
        for sample in metric.samples
        if sample.name in names
    )


@asynccontextmanager
async def local(case: Case, folder: Path) -> AsyncIterator[VllmLocalEngine]:
    if not importlib.util.find_spec("vllm"):
        pytest.skip(f"{NOT_APPLICABLE}vLLM is not in this environment")
    engine = VllmLocalEngine.from_settings(case.local(case.model(folder)))
    try:
        await engine.ready()
        yield engine
    finally:
        await engine.aclose()


@pytest.mark.parametrize("case", CASES, ids=case_of)
async def test_vllm_in_this_process(case: Case, tmp_path: Path) -> None:
    async with local(case, tmp_path) as engine:
        assert (await engine.models())[0].context_length == CONTEXT
        await holds(engine)


async def test_leaving_makes_vllm_in_this_process_idle(tmp_path: Path) -> None:
    async with local(CASES[0], tmp_path) as engine:
        await becomes_idle(engine, running_here)


@pytest.mark.parametrize("case", CASES, ids=case_of)
async def test_vllms_server(case: Case, tmp_path: Path) -> None:
    python, port = interpreter("TEST_VLLM_PYTHON", "vllm"), free_port()
    url = f"http://127.0.0.1:{port}"
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    with serving(case.server(python, case.model(tmp_path), port), f"{url}/health", quiet):
        engine = VllmEngine.from_settings(VllmSettings(url=f"{url}/v1"))
        try:
            await engine.ready()
            await holds(engine)
            await becomes_idle(engine, lambda: running_at(url))
        finally:
            await engine.aclose()


async def test_transformers_in_4_bits(tmp_path: Path) -> None:
    if not importlib.util.find_spec("bitsandbytes"):
        pytest.skip(f"{NOT_APPLICABLE}bitsandbytes is not in this environment")
    settings = TransformersSettings(
        model_path=str(make(tmp_path, dtype="bfloat16")), device="cuda", quantization="nf4"
    )
    engine = TransformersEngine.from_settings(settings)
    try:
        await engine.ready()
        assert engine._model is not None
        kinds = {type(module).__name__ for module in engine._model._model.modules()}
        assert "Linear4bit" in kinds
        await holds(engine)
    finally:
        await engine.aclose()
