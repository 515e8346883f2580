import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from services.retrieve.encoding import Encoder
from services.retrieve.ports import EncoderInput
from services.runtime.errors import ResourceExhausted, Unavailable
from tests.unit.retrieve.fakes import WordModel


@asynccontextmanager
async def running(model, *, batch_tokens=64, queue=1000, query_cache=2):
    encoder = Encoder(model, batch_tokens=batch_tokens, queue=queue, query_cache=query_cache)
    await encoder.start()
    model.batches.clear()
    try:
        yield encoder
    finally:
        await encoder.aclose()


def inputs(*ids):
    return [EncoderInput(one, len(one)) for one in ids]


async def test_vectors_come_back_in_the_order_of_the_inputs():
    model = WordModel()
    async with running(model) as encoder:
        ids = [(1, *range(3, 3 + length), 2) for length in (9, 1, 30, 4, 2, 17)]
        encoded = await encoder.encode(inputs(*ids))
    assert np.allclose(encoded.vectors, model.forward(ids))
    assert encoded.tokens == sum(map(len, ids))


async def test_batches_keep_to_the_budget_and_hold_similar_lengths():
    model = WordModel()
    async with running(model, batch_tokens=64) as encoder:
        await encoder.encode(inputs(*[(1, *[5] * (n % 20), 2) for n in range(60)]))
    for batch in model.batches:
        assert max(map(len, batch)) * len(batch) <= 64
    assert len(model.batches) < 20


async def test_concurrent_requests_share_batches():
    model = WordModel(pause=0.01)
    async with running(model, batch_tokens=1000) as encoder:
        await asyncio.gather(*(encoder.encode(inputs((1, n + 3, 2))) for n in range(40)))
    assert len(model.batches) <= 3


async def test_a_question_goes_before_waiting_passages():
    model = WordModel(pause=0.01)
    async with running(model, batch_tokens=30) as encoder:
        passages = asyncio.create_task(encoder.encode(inputs(*[(1, *[5] * 20, 2)] * 30)))
        await asyncio.sleep(0.03)
        await encoder.query("hello")
        assert not passages.done()
        await passages


async def test_the_same_question_is_encoded_once():
    model = WordModel()
    async with running(model) as encoder:
        first = await encoder.query("hello")
        assert await encoder.query("hello") == first
        assert len(model.batches) == 1
        await encoder.query("one")
        await encoder.query("two")  # the cache holds two
        await encoder.query("hello")
        assert len(model.batches) == 4


async def test_a_full_queue_refuses():
    model = WordModel(pause=0.05)
    async with running(model, queue=10, batch_tokens=10) as encoder:
        waiting = asyncio.create_task(encoder.encode(inputs(*[(1, 3, 2)] * 9)))
        await asyncio.sleep(0.01)
        with pytest.raises(ResourceExhausted) as caught:
            await encoder.encode(inputs(*[(1, 3, 2)] * 9))
        assert caught.value.reason == "ENCODER_BUSY"
        assert caught.value.retry_after
        await waiting


async def test_inputs_of_a_caller_who_left_are_not_encoded():
    model = WordModel(pause=0.05)
    async with running(model, batch_tokens=10) as encoder:
        first = asyncio.create_task(encoder.encode(inputs((1, 3, 2))))
        await asyncio.sleep(0.01)
        left = asyncio.create_task(encoder.encode(inputs((1, 4, 2))))
        await asyncio.sleep(0.01)
        left.cancel()
        await first
        await encoder.encode(inputs((1, 5, 2)))
    assert [(1, 4, 2)] not in model.batches


async def test_a_failing_batch_fails_its_callers_only():
    model = WordModel()
    async with running(model) as encoder:
        with pytest.raises(TypeError, match="ints"):
            await encoder.encode(inputs(("no", "numbers", "here")))
        assert (await encoder.encode(inputs((1, 3, 2)))).vectors.shape == (1, 32)


async def test_before_the_start_it_says_so():
    encoder = Encoder(WordModel(), batch_tokens=64, queue=10, query_cache=1)
    with pytest.raises(Unavailable, match="loaded"):
        await encoder.encode(inputs((1, 3, 2)))
    await encoder.aclose()
