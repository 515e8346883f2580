"""Engines' own servers with a real model, through the adapters that reach them by URL."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr

from services.infer.adapters.litellm import LiteLlmSettings
from services.infer.adapters.llamacpp import LlamaCppSettings
from services.infer.adapters.vllm import VllmSettings
from services.infer.ports import (
    Delta,
    FormatType,
    ResponseFormat,
    Sampling,
)
from services.infer.providers import build_provider
from services.infer.settings import InferSettings
from services.runtime.errors import RagmeshError
from tests.conftest import SHARED_DATA
from tests.contract.infer.rig import Rig
from tests.contract.infer.rows import KnownAnswerRig, Row
from tests.contract.infer.test_engines import (  # noqa: F401 - collected here with other rows
    CHAT,
    SCHEMA,
    Harness,
    harness,
    test_events_come_in_order_and_no_answer_is_empty,
    test_many_at_once_do_not_mix,
    test_models_are_listed_and_answer_by_their_own_name,
    test_the_known_answer_arrives_whole,
)
from tests.engines.checks import (  # noqa: F401 - collected here
    test_a_limit_cuts_between_characters,
    test_a_prompt_past_the_context_is_refused_with_the_numbers,
)
from tests.engines.processes import free_port, interpreter, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "k-1"
MODEL = SHARED_DATA / "models" / "known_answer"


@asynccontextmanager
async def vllm_server() -> AsyncIterator[Rig]:
    port = free_port()
    command = [
        interpreter("TEST_VLLM_PYTHON", "vllm"), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(MODEL), "--served-model-name", "tiny", "--api-key", KEY,
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--max-model-len", "512", "--max-num-seqs", "16", "--enforce-eager",
        "--kv-cache-memory-bytes", str(1 << 26),
    ]  # fmt: skip
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    with serving(command, f"http://127.0.0.1:{port}/health", quiet):
        url = f"http://127.0.0.1:{port}/v1"
        yield KnownAnswerRig(VllmSettings(url=url, api_key=SecretStr(KEY)))


@asynccontextmanager
async def llamacpp_server() -> AsyncIterator[Rig]:
    port = free_port()
    command = [
        interpreter("TEST_LLAMACPP_PYTHON", "llama_cpp"), "-m", "llama_cpp.server",
        "--model", str(MODEL / "known_answer-f32.gguf"), "--n_ctx", "512", "--n_threads", "1",
        "--n_threads_batch", "1", "--interrupt_requests", "false",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with serving(command, f"http://127.0.0.1:{port}/v1/models"):
        yield KnownAnswerRig(LlamaCppSettings(url=f"http://127.0.0.1:{port}"))


@asynccontextmanager
async def litellm_proxy() -> AsyncIterator[Rig]:
    """The proxy in front of vLLM."""
    python, port = interpreter("TEST_LITELLM_PYTHON", "litellm"), free_port()
    async with vllm_server() as upstream:
        url = getattr(upstream.settings, "url", "")
        where = {"model": "hosted_vllm/tiny", "api_base": url, "api_key": KEY}
        models = [{"model_name": "tiny", "litellm_params": where}]
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "lite.yaml"
            settings = {"num_retries": 0, "master_key": f"sk-{KEY}"}
            config.write_text(json.dumps({"model_list": models, "general_settings": settings}))
            command = [
                str(Path(python).parent / "litellm"), "--config", str(config),
                "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1",
            ]  # fmt: skip
            quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
            with serving(command, f"http://127.0.0.1:{port}/health/liveliness", quiet):
                yield KnownAnswerRig(
                    LiteLlmSettings(url=f"http://127.0.0.1:{port}", api_key=SecretStr(f"sk-{KEY}"))
                )


SERVERS: Mapping[str, Row] = {
    "litellm": litellm_proxy,
    "llamacpp": llamacpp_server,
    "vllm": vllm_server,
}


@pytest_asyncio.fixture(params=sorted(SERVERS), scope="module", loop_scope="module")
async def mesh(request) -> AsyncIterator[Harness]:
    if not MODEL.is_dir():
        pytest.skip("needs the test data beside the checkout")
    async with harness(request.param, rows=SERVERS) as made:
        await made.engine.ready()
        yield made


@pytest.fixture
def vllm(mesh: Harness) -> Harness:
    if mesh.name != "vllm":
        pytest.skip("does not apply: vLLM alone")
    return mesh


async def test_a_schema_is_held_to(vllm: Harness) -> None:
    wanted = replace(
        CHAT,
        response_format=ResponseFormat(FormatType.JSON_SCHEMA, SCHEMA),
        sampling=Sampling(temperature=0.0, max_tokens=400),
    )
    text = await vllm.text(wanted)
    assert text.startswith("{")
    # The model cannot end a string by itself; what it says is the beginning of an object.
    assert re.match(r'\{\s*"answer"', text) or json.loads(text)


async def test_a_wrong_key_is_the_operators_matter(vllm: Harness) -> None:
    settings = vllm.rig.settings.model_copy(update={"api_key": SecretStr("wrong")})
    built = build_provider("vllm", InferSettings(model_backend="vllm"), settings)
    try:
        with pytest.raises(RagmeshError) as caught:
            await built.engine.ready()
    finally:
        await built.engine.aclose()
    assert caught.value.reason == "ENGINE_AUTHENTICATION_FAILED"


async def running(url: str) -> float:
    """Requests that vLLM works on or keeps waiting, as its metrics say."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    found = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M)
    assert found
    return sum(map(float, found))


async def test_leaving_makes_vllm_idle(vllm: Harness) -> None:
    url = str(getattr(vllm.rig.settings, "url", "")).removesuffix("/v1")
    endless = replace(
        CHAT, sampling=Sampling(max_tokens=480), extra={"ignore_eos": True, "min_tokens": 480}
    )
    seen = 0
    for _ in range(10):
        async with aclosing(vllm.stream(endless)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    break
            # On a busy machine so small a model may be done before its server is asked.
            seen += bool(await running(url))
        async with asyncio.timeout(20):
            while await running(url):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)
        if seen >= 3:
            break
    assert seen, "it was never seen at work"
