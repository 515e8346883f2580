"""What every encoder promises, over the registry."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from services.retrieve.adapters import ENCODERS
from services.retrieve.encoding import Encoder
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import RagmeshError
from services.runtime.registry import resolve
from tests.unit.retrieve.embedding_server import MODEL, embedding_server
from tests.unit.retrieve.tiny_cross_encoder import TEXTS
from tests.unit.retrieve.tiny_encoder import E5, make

LOCAL = {"auto", "onnx", "openvino", "sentence-transformers"}
REMOTE = {"nim", "nim-embed", "openai"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make(folder / "tiny", prompts=E5, languages="language: en")
    return folder


@pytest.fixture(params=sorted(ENCODERS))
def backend(request):
    return request.param


@asynccontextmanager
async def running(backend, models, **more):
    settings = {"data": models / "data", "embedding_backend": backend}
    async with embedding_server(kind="nim" if backend.startswith("nim") else "openai") as server:
        if backend in LOCAL:
            settings |= {"embedding_model": str(models / "tiny"), "embedding_precision": "float32"}
        else:
            settings |= {"embedding_url": f"{server.url}/v1", "embedding_model": MODEL}
        made = RetrieveSettings(**settings | more)
        model = resolve(ENCODERS, backend, "EMBEDDING_BACKEND").from_settings(made)
        encoder = Encoder(model, batch_tokens=256, queue=4096, query_cache=10)
        await encoder.start()
        try:
            yield encoder
        finally:
            await encoder.aclose()


async def encoded(encoder, texts, **how):
    return (await encoder.encode(await encoder.prepare(texts, **how))).vectors


def test_each_is_a_server_of_the_tests_or_runs_here():
    assert ENCODERS.keys() == LOCAL | REMOTE


async def test_facts(backend, models):
    async with running(backend, models) as encoder:
        facts = encoder.facts
        vectors = await encoded(encoder, TEXTS)
    assert facts.id == f"{facts.name}@{facts.version}"
    assert vectors.shape == (len(TEXTS), facts.dimensions)
    assert vectors.dtype == np.float32
    assert len(facts.tokenizer_id) == 64
    assert facts.backend in ENCODERS
    if backend in LOCAL:
        assert (facts.max_tokens, facts.languages, facts.normalizes) == (48, ("en",), True)


async def test_vectors_have_length_1_and_the_order_of_the_texts(backend, models):
    async with running(backend, models) as encoder:
        vectors = await encoded(encoder, TEXTS)
        turned = await encoded(encoder, TEXTS[::-1])
        alone = np.concatenate([await encoded(encoder, [text]) for text in TEXTS])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert np.allclose(turned[::-1], vectors, atol=1e-4)
    assert np.allclose(alone, vectors, atol=1e-4)  # neither batch nor padding changes one


async def test_questions_overtake_and_agree(backend, models):
    async with running(backend, models) as encoder:
        prepared = await encoder.prepare(TEXTS, query=True)
        slow = asyncio.create_task(encoder.encode(await encoder.prepare(TEXTS * 40)))
        fast = (await encoder.encode(prepared, query=True)).vectors
        same = (await encoder.encode(prepared)).vectors
        await slow
    assert np.allclose(fast, same, atol=1e-4)


async def test_callers_at_once_get_their_own(backend, models):
    texts = [f"{text} number {n}" for n, text in enumerate(TEXTS * 8)]
    async with running(backend, models) as encoder:
        together = await asyncio.gather(*(encoded(encoder, [text]) for text in texts))
        alone = await encoded(encoder, texts)
    assert np.allclose(np.concatenate(together), alone, atol=1e-4)


async def test_long_texts_and_odd_ones_are_read(backend, models):
    texts = ["word " * 20_000, "x", "絵文字 🦊", "a\nb\tc", "</s> [SEP] <|im_end|>"]
    async with running(backend, models) as encoder:
        vectors = await encoded(encoder, texts)
    assert np.isfinite(vectors).all()


async def test_token_ids_are_read_or_refused(backend, models):
    async with running(backend, models) as encoder:
        if not encoder.facts.vocabulary:
            assert backend in REMOTE
            return
        (text,) = await encoder.prepare(["the quick fox"], truncate=False)
        (ids,) = await encoder.prepare([text.content], truncate=False)
        assert ids.content == text.content


async def test_prompts_that_are_set(backend, models):
    prompts = {"embedding_query_prompt": "find the fox ", "embedding_passage_prompt": ""}
    async with running(backend, models, **prompts) as encoder:
        question = await encoder.prepare(["dog"], query=True)
        asked = (await encoder.encode(question)).vectors
        other = await encoded(encoder, ["find the fox dog"])
        bare = await encoded(encoder, ["dog"])
    assert np.allclose(asked, other, atol=1e-4)
    assert not np.allclose(asked, bare, atol=1e-2)


async def test_a_passage_prompt_makes_another_encoder_a_query_prompt_does_not(backend, models):
    ids = []
    for more in (
        {}, {"embedding_query_prompt": "q: "}, {"embedding_passage_prompt": "p: "},
    ):  # fmt: skip
        async with running(backend, models, **more) as encoder:
            ids.append(encoder.facts.id)
            revision = encoder.facts.revision
            if "embedding_query_prompt" in more:
                assert "q: " in revision
    assert ids[0] == ids[1] != ids[2]


async def test_it_cannot_start_without_a_model(backend, tmp_path):
    more: Any = {"embedding_url": "http://127.0.0.1:9/v1"} if backend in REMOTE else {}
    model = "" if backend in REMOTE else str(tmp_path / "nowhere" / "at" / "all")
    settings = RetrieveSettings(data=tmp_path, embedding_model=model, **more)
    with pytest.raises(RagmeshError):
        await resolve(ENCODERS, backend, "EMBEDDING_BACKEND").from_settings(settings).start()
