"""The packaged MiniLM in the composition root, as ``python -m services.retrieve`` wires it."""

import asyncio

import numpy as np
import pytest

from services.retrieve.__main__ import build
from services.retrieve.adapters.sentence_transformers import Model
from services.retrieve.encoding import Encoder
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition, InvalidArgument


@pytest.fixture(scope="module")
def model():
    model = Model(precision="float32", threads=1)
    model.facts = model.load()  # type: ignore[attr-defined]
    return model


def test_its_facts(model):
    facts = model.facts
    assert (facts.name, facts.dimensions, facts.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert facts.languages == ("en",)
    assert facts.special_tokens == 2
    assert Model(precision="bfloat16").load().id == facts.id  # precision makes no other encoder


def test_near_texts_are_near(model):
    texts = ["How old are you?", "What is your age?", "The stock market fell."]
    tokens = model.tokenize(texts, query=False, truncate=True)
    vectors = model.forward([one.ids for one in tokens])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.7
    assert cosines[0, 2] < 0.3
    alone = np.stack([model.forward([one.ids])[0] for one in tokens])
    assert np.allclose(vectors, alone, atol=1e-5)  # padding changes nothing


def test_token_ids_equal_the_text(model):
    (tokens,) = model.tokenize(["hello world"], query=False, truncate=False)
    assert model.wrap(tokens.ids[1:-1]) == tokens.ids
    assert model.wrap(tokens.ids) == tokens.ids


def test_long_texts_are_cut_only_when_asked(model):
    text = "word " * 400
    (cut,) = model.tokenize([text], query=False, truncate=True)
    (whole,) = model.tokenize([text], query=False, truncate=False)
    assert (len(cut.ids), len(whole.ids)) == (256, 402)


def test_unknown_words_are_counted(model):
    known, unknown = model.tokenize(["a known text", "🦊🦊 🦊"], query=True, truncate=True)
    assert known.unknown == 0
    assert unknown.unknown > 0.5


async def test_the_event_loop_stays_free_while_it_encodes(model):
    encoder = Encoder(model, batch_tokens=2048, queue=1000, query_cache=1)
    await encoder.start()
    lags = []

    async def tick():
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            lags.append(loop.time() - before - 0.005)

    ticking = asyncio.create_task(tick())
    prepared = await encoder.prepare(["a passage of some length " * 20] * 64)
    await encoder.encode(prepared)
    ticking.cancel()
    await encoder.aclose()
    assert sorted(lags)[len(lags) * 9 // 10] < 0.1


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(FailedPrecondition) as caught:
        Model(str(tmp_path)).load()
    assert caught.value.reason == "ENCODER_UNREADABLE"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"embedding_backend": "bert"}, InvalidArgument),
        ({"vector_url": "sqlite://x"}, InvalidArgument),
        ({"sparse_backend": "lucene"}, InvalidArgument),
    ],
)
def test_other_back_ends_stop_the_start(settings, error):
    with pytest.raises(error) as caught:
        build(RetrieveSettings(**settings))
    assert next(iter(settings.values())).partition(":")[0] in caught.value.message


def test_existing_names_are_read(monkeypatch):
    monkeypatch.setenv("EMBEDDING_BACKEND", "openai")
    monkeypatch.setenv("VECTOR_URL", "edge:///data/x")
    monkeypatch.setenv("RAGMESH_SPARSE_BACKEND", "engine")
    settings = RetrieveSettings()
    assert settings.embedding_backend == "openai"
    assert (settings.vector_backend, settings.vector_location) == ("edge", "/data/x")
