"""What waits for the encoder: short passes, of similar lengths, shared fairly.

Each stream of inputs gets the same share of the encoder's tokens while it has any waiting, by
start-time fair queueing (Goyal, Vin, Cheng 1996): an input is tagged with the work that its stream
has asked for so far, and the smallest tag goes next. Inputs of about that one's length go with it,
as far as budget and padding allow.
"""

import asyncio
import heapq
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.retrieve.ports import EncoderInput

Row = NDArray[np.float32]

BUCKET_TOKENS = 16
"""Lengths that differ by less wait together."""
_REMEMBERED = 1024
"""Streams past which those are forgotten that have nothing ahead of the others."""


@dataclass(slots=True)
class Waiting:
    """An input in a lane, and the caller's future."""

    input: EncoderInput
    future: "asyncio.Future[tuple[Row, int]]"
    """Its vector and how many tokens it took."""
    gone: bool = False
    """Whether it was taken, or its caller has left."""


@dataclass(order=True, slots=True)
class _Entry:
    tag: float
    number: int
    waiting: Waiting = field(compare=False)


class Lane:
    """Inputs that wait for passes of one kind."""

    def __init__(self, *, batch_tokens: int, max_padding: float) -> None:
        """Args:
        batch_tokens: of a pass, padding included; a longer input goes alone.
        max_padding: share of these that may be padding.
        """
        self._batch_tokens = batch_tokens
        self._max_padding = max_padding
        self._buckets: dict[int, list[_Entry]] = {}
        self._finish: dict[Hashable, float] = {}
        self._now = 0.0
        self._numbers = itertools.count()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, inputs: Sequence[Waiting], stream: Hashable) -> None:
        """Let inputs of a stream wait."""
        tag = max(self._now, self._finish.get(stream, 0.0))
        for one in inputs:
            bucket = self._buckets.setdefault(_bucket(one), [])
            heapq.heappush(bucket, _Entry(tag, next(self._numbers), one))
            tag += one.input.tokens
        self._finish[stream] = tag
        self._waiting += len(inputs)
        if len(self._finish) > _REMEMBERED:
            ahead = {one: finish for one, finish in self._finish.items() if finish > self._now}
            self._finish = ahead

    def remove(self, inputs: Sequence[Waiting]) -> None:
        """Forget those whose caller has left; what was taken already is passed over."""
        for one in inputs:
            if not one.gone:
                one.gone = True
                self._waiting -= 1

    def take(self) -> list[Waiting]:
        """What goes next; empty when nothing waits."""
        heads = {place: head for place in list(self._buckets) if (head := self._head(place))}
        if not heads:
            self._finish.clear()
            self._now = 0.0
            return []
        first = min(heads, key=lambda place: (heads[place].tag, heads[place].number))
        self._now = heads[first].tag
        batch: list[Waiting] = []
        longest = total = 0
        for place in sorted(heads, key=lambda place: (abs(place - first), place)):
            while head := self._head(place):
                tokens = head.waiting.input.tokens
                padded = max(longest, tokens) * (len(batch) + 1)
                padding = 1 - (total + tokens) / padded
                if batch and (padded > self._batch_tokens or padding > self._max_padding):
                    break
                heapq.heappop(self._buckets[place])
                head.waiting.gone = True
                batch.append(head.waiting)
                longest, total = max(longest, tokens), total + tokens
            if longest * (len(batch) + 1) > self._batch_tokens:
                break
        self._waiting -= len(batch)
        return batch

    def _head(self, place: int) -> _Entry | None:
        bucket = self._buckets.get(place)
        while bucket and bucket[0].waiting.gone:
            heapq.heappop(bucket)
        if not bucket:
            self._buckets.pop(place, None)
            return None
        return bucket[0]


def _bucket(one: Waiting) -> int:
    return (one.input.tokens - 1) // BUCKET_TOKENS
