import asyncio

from services.retrieve.batching import Lane, Waiting
from services.retrieve.ports import EncoderInput


def waiting(*lengths):
    loop = asyncio.get_running_loop()
    return [Waiting(EncoderInput("x", length), loop.create_future()) for length in lengths]


async def test_a_pass_keeps_to_budget_and_padding():
    lane = Lane(batch_tokens=256, max_padding=0.2)
    lane.add(waiting(*(10 + 7 * n % 90 for n in range(200))), "a")
    taken = 0
    while batch := lane.take():
        lengths = [one.input.tokens for one in batch]
        padded = max(lengths) * len(lengths)
        assert padded <= 256
        assert 1 - sum(lengths) / padded <= 0.2
        taken += len(batch)
    assert taken == 200
    assert not lane


async def test_streams_share_evenly_however_much_one_brings():
    lane = Lane(batch_tokens=100, max_padding=0.2)
    many, few = waiting(*[10] * 500), waiting(*[10] * 20)
    lane.add(many, "greedy")
    lane.take()
    lane.add(few, "modest")
    passes = 0
    while not all(one.gone for one in few):
        lane.take()
        passes += 1
    assert passes <= 5  # twenty of theirs and about as many of the others'


async def test_those_who_left_are_not_taken():
    lane = Lane(batch_tokens=100, max_padding=0.2)
    gone, here = waiting(10, 10), waiting(10)
    lane.add(gone, "a")
    lane.add(here, "b")
    lane.remove(gone)
    assert len(lane) == 1
    assert lane.take() == here
    lane.remove(here)
    assert (len(lane), lane.take()) == (0, [])


async def test_one_that_is_longer_than_a_pass_goes_alone():
    lane = Lane(batch_tokens=100, max_padding=0.2)
    lane.add(waiting(150, 140), "a")
    assert [len(lane.take()), len(lane.take())] == [1, 1]
