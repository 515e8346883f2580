"""vLLM's own reranking, of a cross-encoder that is made on the spot and read in torch as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.retrieve.adapters import RERANKERS, cross_encoder
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import RagmeshError
from services.runtime.registry import resolve
from tests.engines.processes import free_port, interpreter, serving
from tests.unit.retrieve.tiny_cross_encoder import QUERY, TEXTS, make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LONG = [*TEXTS, "fox " * 500]
"""The last one is longer than the model reads."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's attention on a CPU wants heads of 32 or more.
    sizes: dict[str, Any] = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}
    return make(tmp_path_factory.mktemp("reranker") / "tiny", **sizes)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    python = interpreter("TEST_VLLM_PYTHON", "vllm")
    port = free_port()
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port),
        "--runner", "pooling", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "16",
        "--kv-cache-memory-bytes", str(64 * 1024 * 1024),
    ]  # fmt: skip
    environment = {
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": "",
    }  # fmt: skip
    with serving(command, f"http://127.0.0.1:{port}/health", environment):
        yield f"http://127.0.0.1:{port}"


async def scores(kind: str, url: str, model: str = "tiny") -> list[float]:
    settings = RetrieveSettings(
        data=Path("unused"), reranker_backend=kind, reranker_url=url, reranker_model=model
    )
    reranker = resolve(RERANKERS, kind, "RERANKER_BACKEND")(settings)
    try:
        made = await reranker.rerank(QUERY, LONG)
        assert made.tokens > 0
        return list(made.values)
    finally:
        await reranker.aclose()


async def test_it_says_what_torch_says(folder: Path, url: str) -> None:
    model = cross_encoder.Model(str(folder), precision="float32")
    model.load()
    expected = model.forward(model.pairs(QUERY, LONG))
    assert await scores("vllm", url) == pytest.approx(expected, rel=1e-3, abs=0)


async def test_what_it_refuses(url: str) -> None:
    with pytest.raises(RagmeshError) as caught:
        await scores("cohere", url)  # which does not ask for texts to be cut
    assert caught.value.reason == "RERANKER_CONTEXT_LENGTH_EXCEEDED"
    with pytest.raises(RagmeshError) as caught:
        await scores("vllm", url, model="another")
    assert caught.value.reason == "RERANKER_MISCONFIGURED"
