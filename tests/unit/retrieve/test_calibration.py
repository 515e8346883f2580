"""What calibration concludes about sound and broken encoders, through a store and the worker."""

import asyncio
import random
from dataclasses import replace

import numpy as np
import pytest

from services.retrieve import learning
from services.retrieve.adapters.memory import MemoryStore
from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.analysis import Analysis
from services.retrieve.calibration import MAX_QUESTIONS, pose
from services.retrieve.core import CollectionOptions, Retrieval
from services.retrieve.encoding import Encoder
from services.retrieve.indexing import COMMIT_CHUNKS, Indexing
from services.retrieve.learning import FIRST_CHUNKS
from services.retrieve.ports import ArmWeights, Chunk, CollectionKey, Document, IndexedChunk
from services.retrieve.profiles import Profile, dump, parse
from services.retrieve.searches import Search
from services.runtime.errors import InvalidArgument
from tests.unit.retrieve.fakes import DIMENSIONS, WordModel

KEY = CollectionKey("tenant", "notes")
CHUNKS = 300


class ShuffledModel(WordModel):
    """Every text gets the vector of another: a broken encoder."""

    def forward(self, batch):
        rows = [np.random.default_rng(sum(ids) * 31 + len(ids)) for ids in batch]
        matrix = np.array([row.standard_normal(DIMENSIONS) for row in rows], dtype=np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def corpus(chunks=CHUNKS):
    """Texts of several sentences about a subject each, from a small vocabulary."""
    dice = random.Random(7)
    words = ["".join(dice.choices("abcdefghiklmnoprstuvw", k=6)) for _ in range(600)]
    for number in range(chunks):
        subject = dice.sample(words, 14)
        sentences = [" ".join(dice.sample(subject, 7)) + "." for _ in range(4)]
        yield f"d{number:04}", " ".join(sentences), " ".join(dice.sample(subject, 5))


async def index(retrieval, texts, language="en"):
    async def frames():
        for document_id, text, _ in texts:
            yield Document(document_id, "", "", "{}", document_id + text[:20], "txt", language,
                           0, 1, 10)  # fmt: skip
            yield [Chunk(0, text, text, "", None, language)]

    async for _ in Indexing(retrieval, KEY.tenant, KEY.name).run(frames()):
        pass


async def learned(retrieval, chunks=CHUNKS):
    async with asyncio.timeout(20):
        while True:
            profile = parse((await retrieval.store.get_collection(KEY)).profile)
            if profile.chunks == chunks and not profile.unfinished:
                return profile
            await asyncio.sleep(0.01)


@pytest.fixture
async def start(tmp_path):
    running = []

    async def begin(model):
        encoder = Encoder(model, batch_tokens=4096, queue=1000, query_cache=500)
        options = CollectionOptions(chunk_tokens=40, chunk_overlap=0, max_collections=3)
        retrieval = Retrieval(
            MemoryStore("", tmp_path), encoder, Analysis(TermsAnalyzer()), options
        )
        await retrieval.start()
        running.append(retrieval)
        await retrieval.create_collection(KEY.tenant, KEY.name)
        return retrieval

    yield begin
    for retrieval in running:
        await retrieval.aclose()


async def ranks(retrieval, texts, mode, **options):
    """The rank of each question's document; 11 where it is not among ten."""
    found = []
    for document_id, _, question in texts:
        search = Search(KEY.name, question, language="en", mode=mode, **options)
        hits = (await retrieval.search(KEY.tenant, search)).hits
        ids = [hit.candidate.chunk.document_id for hit in hits]
        found.append(ids.index(document_id) + 1 if document_id in ids else 11)
    return np.mean(1 / np.log2(1 + np.array(found)))


async def test_a_broken_encoder_costs_nothing(start):
    retrieval = await start(ShuffledModel())
    texts = list(corpus())
    await index(retrieval, texts)
    profile = await learned(retrieval)
    assert profile.weights["en"] == ArmWeights(0.0, 1.0)
    assert profile.languages["en"].questions == MAX_QUESTIONS
    assert profile.seconds < 10
    asked = texts[:60]
    sparse, hybrid = [await ranks(retrieval, asked, mode) for mode in ("sparse", "hybrid")]
    assert abs(hybrid - sparse) <= 0.01
    assert await ranks(retrieval, asked, "dense") < 0.5 * sparse
    found = await retrieval.search(KEY.tenant, Search(KEY.name, asked[0][2], "en", explain=True))
    assert "calibration" in found.reasons[0].dense_left_out


async def test_a_sound_encoder_keeps_its_weight(start):
    retrieval = await start(WordModel())
    texts = list(corpus())
    await index(retrieval, texts)
    profile = await learned(retrieval)
    one = profile.languages["en"]
    assert one.weights.dense >= 0.2
    assert one.dense > 0.5 * one.sparse
    assert 0 < one.agreement <= 1


async def test_a_request_has_the_last_word(start):
    retrieval = await start(ShuffledModel())
    texts = list(corpus(FIRST_CHUNKS))
    await index(retrieval, texts)
    await learned(retrieval, FIRST_CHUNKS)
    question = texts[0][2]
    search = Search(KEY.name, question, weights=ArmWeights(1.0, 0.5))
    found = await retrieval.search(KEY.tenant, search)
    assert found.weights == ArmWeights(1.0, 0.5)
    for weights in (ArmWeights(0.0, 0.0), ArmWeights(-1.0, 1.0), ArmWeights(1.0, 2.0)):
        with pytest.raises(InvalidArgument, match="Weights"):
            await retrieval.search(KEY.tenant, Search(KEY.name, question, weights=weights))


async def test_it_is_measured_again_as_the_collection_grows(start):
    retrieval = await start(WordModel())
    texts = list(corpus(FIRST_CHUNKS * 4))
    await index(retrieval, texts[: FIRST_CHUNKS - 1])
    await asyncio.sleep(0.05)
    assert not (await retrieval.store.get_collection(KEY)).profile  # too small to conclude from
    await index(retrieval, texts[:FIRST_CHUNKS])
    first = await learned(retrieval, FIRST_CHUNKS)
    await index(retrieval, texts)
    second = await learned(retrieval, FIRST_CHUNKS * 4)
    assert second.at > first.at


async def test_lengths_that_drift_are_weighed_again(start):
    retrieval = await start(WordModel())
    short = [(f"s{n:03}", f"word{n} mountain river", "") for n in range(40)]
    await index(retrieval, short)
    first = await learned(retrieval, 40)
    assert first.averages["en"][0] < 6
    await index(retrieval, list(corpus(120)))
    second = await learned(retrieval, 160)
    assert second.averages["en"][0] > 1.2 * first.averages["en"][0]
    # A chunk that was there before scores as one that comes now.
    await index(retrieval, [("s999", "word7 mountain river", "")])
    search = Search(KEY.name, "word7 mountain", language="en", mode="sparse")
    hits = (await retrieval.search(KEY.tenant, search)).hits
    assert {hit.candidate.chunk.document_id for hit in hits[:2]} == {"s007", "s999"}
    assert hits[0].candidate.score == pytest.approx(hits[1].candidate.score)


async def test_a_stream_is_learned_from_while_it_comes_and_then_as_a_whole(start):
    retrieval = await start(WordModel())
    texts = list(corpus(COMMIT_CHUNKS * 4))
    reached = asyncio.Event()

    async def frames():
        for number, (document_id, text, _) in enumerate(texts):
            if number == COMMIT_CHUNKS * 2:
                await reached.wait()
            yield Document(document_id, "", "", "{}", document_id, "txt", "en", 0, 1, 10)
            yield [Chunk(0, text, text, "", None, "en")]

    async def consume():
        async for _ in Indexing(retrieval, KEY.tenant, KEY.name).run(frames()):
            pass

    stream = asyncio.create_task(consume())
    async with asyncio.timeout(20):
        while True:
            if parse((await retrieval.store.get_collection(KEY)).profile).languages:
                break
            await asyncio.sleep(0.01)
    assert not stream.done()
    reached.set()
    await stream
    await learned(retrieval, len(texts))


async def test_the_first_chunks_of_a_collection_give_it_its_lengths(start):
    retrieval, chunks = await start(WordModel()), 2 * FIRST_CHUNKS
    short = [(f"s{n}", f"word{n} mountain river", "") for n in range(100, 100 + chunks)]
    more = asyncio.Event()

    async def frames():
        for number, (document_id, text, _) in enumerate(short):
            if number == 1:
                await asyncio.wait_for(more.wait(), 20)  # the first one is on its way alone
            yield Document(document_id, "", "", "{}", document_id, "txt", "en", 0, 1, 10)
            yield [Chunk(0, text, text, "", None, "en")]

    async for _ in Indexing(retrieval, KEY.tenant, KEY.name).run(frames()):
        more.set()
    profile = await learned(retrieval, chunks)
    assert profile.averages["en"][0] < 6
    search = Search(KEY.name, "mountain", language="en", mode="sparse", top_k=chunks)
    hits = (await retrieval.search(KEY.tenant, search)).hits
    assert len(hits) == chunks
    assert len({round(hit.candidate.score, 6) for hit in hits}) == 1


async def test_a_large_collection_is_not_weighed_again(start, monkeypatch):
    monkeypatch.setattr(learning, "MAX_WEIGHED", 100)
    retrieval = await start(WordModel())
    short = [(f"s{n:03}", f"word{n} mountain river", "") for n in range(40)]
    await index(retrieval, short)
    first = await learned(retrieval, 40)
    await index(retrieval, list(corpus(120)))
    await learned(retrieval, 160)
    # A language that comes anew is one of few chunks, wherever it comes.
    await index(retrieval, [(f"j{n}", "東京 の 山 と 川", "") for n in range(40)], "ja")
    await index(retrieval, list(corpus(400)))
    second = await learned(retrieval, 480)
    assert second.averages["en"] == first.averages["en"]
    assert second.averages["ja"] != first.averages["en"]
    # Whatever comes is weighed as what is there.
    await index(retrieval, [("s999", "word7 mountain river", "")])
    search = Search(KEY.name, "word7 mountain", language="en", mode="sparse")
    hits = (await retrieval.search(KEY.tenant, search)).hits
    assert {hit.candidate.chunk.document_id for hit in hits[:2]} == {"s007", "s999"}
    assert hits[0].candidate.score == pytest.approx(hits[1].candidate.score)


def test_questions_are_held_out_of_their_targets():
    texts = [
        f"Topic{n} begins with apples and pears here. It goes on about rivers{n} and mountains. "
        "Then it ends quietly with lakes near forests."
        for n in range(20)
    ]
    sample = [
        IndexedChunk(n, f"The title of item{n} about harvest", Chunk(0, text, text, "", None, "en"),
                     b"")
        for n, text in enumerate(texts)
    ]  # fmt: skip
    posed = pose(sample, "en", seed=1)
    assert len(posed) == 20
    assert all(one.text not in one.target for one in posed)
    assert {one.text.startswith("The title") for one in posed} == {True, False}
    assert posed == pose(sample, "en", seed=1)
    assert not pose(sample, "ja", seed=1)


def test_a_profile_of_another_format_is_learned_again():
    profile = Profile(chunks=3, averages={"en": (1.0, 2.0)})
    assert parse(dump(profile)) == profile
    unfinished = replace(profile, unfinished=("en",))
    assert parse(dump(unfinished)) == unfinished
    earlier = dump(profile).replace('"unfinished":[]', '"unfinished":true')
    assert parse(earlier) == unfinished
    assert parse('{"format": 0, "chunks": 9}') == parse("") == Profile()
