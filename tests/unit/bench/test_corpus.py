"""The corpus of the benches: the same every time, whichever part is asked for."""

import numpy as np
import pytest

from bench.corpus import BLOCK, DOCUMENT_CHUNKS, Corpus
from bench.inside import frames
from bench.search import TOP_K, encoded, exact, recall
from bench.word_vectors import WordVectors
from services.retrieve.ports import Document

CHUNKS = BLOCK + 130


@pytest.fixture(scope="module")
def corpus():
    return Corpus(3, chunks=CHUNKS, words=3000)


@pytest.fixture(scope="module")
def encoder():
    model = WordVectors(f"3,{CHUNKS},96")
    model.load()
    return model


def test_a_part_is_what_the_whole_has_there(corpus):
    whole = list(corpus.pieces())
    assert [one.number for one in whole] == list(range(CHUNKS))
    again = Corpus(3, chunks=CHUNKS, words=3000)
    assert list(again.pieces(BLOCK - 5, BLOCK + 5)) == whole[BLOCK - 5 : BLOCK + 5]
    assert next(iter(Corpus(4, chunks=CHUNKS, words=3000).pieces())) != whole[0]


def test_words_are_distributed_as_promised(corpus):
    stop = set(corpus.words[: corpus.stops])
    words = [one.text.lower().replace(".", "").split() for one in corpus.pieces(0, 500)]
    assert all(40 <= len(one) <= 160 for one in words)
    assert 75 < np.mean([len(one) for one in words]) < 85
    share = np.mean([word in stop for one in words for word in one])
    assert 0.38 < share < 0.46
    assert len(set(corpus.words)) == len(corpus.words)
    assert corpus.frequency.sum() == pytest.approx(1.0)


def test_questions_differ_and_are_made_of_their_chunk(corpus):
    questions = corpus.questions(300)
    assert len({one.text for one in questions}) == 300
    stop = set(corpus.words[: corpus.stops])
    pieces = list(corpus.pieces())
    for one in questions:
        own = set(pieces[one.chunk].text.lower().replace(".", "").split())
        content = [word for word in one.text.split() if word not in stop]
        assert content
        assert set(content) <= own
    assert corpus.questions(300) == questions


def test_a_question_lies_nearer_to_its_chunk_than_to_others():
    encoder = WordVectors(f"3,{CHUNKS},96")
    encoder.load()
    corpus = Corpus(3, chunks=CHUNKS)
    rows = encoded(encoder, [f"{one.title}\n{one.text}" for one in corpus.pieces()])
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-5)
    questions = corpus.questions(50)
    cosines = encoded(encoder, [one.text for one in questions], query=True) @ rows.T
    own = cosines[np.arange(50), [one.chunk for one in questions]]
    assert np.median(own) > np.median(cosines) + 0.3


def test_exact_search_is_that_of_all_vectors_at_once(encoder):
    corpus = Corpus(3, chunks=CHUNKS)
    questions = corpus.questions(20)
    rows = encoded(encoder, [f"{one.title}\n{one.text}" for one in corpus.pieces()])
    cosines = encoded(encoder, [one.text for one in questions], query=True) @ rows.T
    best = np.argsort(-cosines, axis=1)[:, :TOP_K]
    found = exact(corpus, encoder, questions)
    assert recall(found.tolist(), best) == 1.0
    assert recall([one[:5] for one in found.tolist()], best) == 0.5


@pytest.mark.parametrize("total", [1, DOCUMENT_CHUNKS, 3 * DOCUMENT_CHUNKS + 7])
async def test_documents_announce_the_chunks_that_follow(corpus, total):
    left = 0
    read = 0
    async for frame in frames(corpus.pieces(0, total), total):
        if isinstance(frame, Document):
            assert left == 0
            left = frame.chunks
        else:
            left -= len(frame)
            read += len(frame)
    assert (left, read) == (0, total)
