"""A real Triton with a decoupled model of TensorRT-LLM's tensors, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from services.infer.adapters.triton import TritonSettings
from services.infer.ports import Delta, Role, Sampling, text_message
from services.runtime.errors import RagmeshError
from tests.contract.infer.rig import Rig
from tests.contract.infer.rows import KnownAnswerRig
from tests.contract.infer.test_engines import (  # noqa: F401 - collected here with another row
    CHAT,
    Harness,
    harness,
    test_an_unknown_model_is_not_found,
    test_events_come_in_order_and_no_answer_is_empty,
    test_models_are_listed_and_answer_by_their_own_name,
    test_the_known_answer_arrives_whole,
)
from tests.engines.processes import free_port, interpreter, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = Path(__file__).parent / "triton_model.py"


@asynccontextmanager
async def triton() -> AsyncIterator[Rig]:
    python = interpreter("TEST_TRITON_PYTHON", "pytriton")
    http, port, metrics = free_port(), free_port(), free_port()
    command = [python, str(MODEL), str(http), str(port), str(metrics)]
    ready = f"http://127.0.0.1:{http}/v2/models/ensemble/ready"
    home = {"PYTRITON_HOME": str(Path(python).parents[1] / "pytriton")}
    with serving(command, ready, home):
        yield KnownAnswerRig(TritonSettings(url=f"grpc://127.0.0.1:{port}", model="ensemble"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Harness]:
    async with harness("triton", rows={"triton": triton}) as made:
        await made.engine.ready()
        yield made


async def test_an_error_inside_the_stream_is_read(mesh: Harness) -> None:
    with pytest.raises(RagmeshError) as caught:
        await mesh.events(replace(CHAT, messages=(text_message(Role.USER, "word " * 2000),)))
    assert caught.value.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert "4096" in caught.value.message


async def test_leaving_frees_the_model_for_the_next(mesh: Harness) -> None:
    """The model works for one caller at a time, and would be busy for hours."""
    endless = replace(
        CHAT,
        messages=(text_message(Role.USER, "endless"),),
        sampling=Sampling(max_tokens=1_000_000),
    )
    async with aclosing(mesh.stream(endless)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    async with asyncio.timeout(60):
        assert await mesh.text(CHAT) == mesh.rig.text
