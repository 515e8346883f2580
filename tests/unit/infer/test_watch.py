"""A deadline that may stay open across yields."""

import asyncio

import pytest

from services.infer.watch import Deadline, within
from services.runtime.errors import DeadlineExceeded


def soon(seconds=0.02):
    return asyncio.get_running_loop().time() + seconds


async def wait(deadline, event):
    deadline.begin()
    try:
        await event.wait()
    except asyncio.CancelledError:
        if deadline.struck():
            raise DeadlineExceeded("ENGINE_TIMEOUT", "late") from None
        raise
    deadline.finish()


async def test_it_ends_a_wait():
    with Deadline(soon()) as deadline, pytest.raises(DeadlineExceeded):
        await wait(deadline, asyncio.Event())
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)  # nothing is left that would cancel this


async def test_between_waits_it_cancels_nobody_and_ends_the_next():
    with Deadline(soon()) as deadline:
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlineExceeded):
            deadline.begin()


async def test_a_cancel_from_outside_stays_one():
    async def working():
        with Deadline(soon(60)) as deadline:
            await wait(deadline, asyncio.Event())

    task = asyncio.ensure_future(working())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_that_comes_with_the_deadline_is_not_swallowed():
    deadline = Deadline(soon(60))

    async def working():
        with deadline:
            await wait(deadline, asyncio.Event())

    task = asyncio.ensure_future(working())
    await asyncio.sleep(0)
    deadline._strike()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_within_leaves_the_blocks_own_timeouts_alone():
    with pytest.raises(DeadlineExceeded):
        async with within(soon()):
            await asyncio.sleep(10)
    with pytest.raises(TimeoutError):
        async with within(soon(60)):
            raise TimeoutError
