"""The base of encoders that run in this process: blocking methods behind the asynchronous port.

Passages are encoded in a thread of low priority, whose helpers inherit it, so that the event loop
and questions get the processor first. Work that holds the GIL keeps the process's priority: where
others take the processors, a low thread would wait for one while the event loop waits for the GIL.
A question has a thread of its own where the model can run two passes at a time.
"""

import asyncio
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from services.retrieve.ports import (
    EncoderFacts,
    EncoderInput,
    EncoderText,
    Forward,
    Matrix,
)

T = TypeVar("T")

NICENESS = 10
"""Of the thread that encodes passages, above the process's own: about a tenth of a busy core's
time, all of an idle one's."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised text."""

    ids: tuple[int, ...]
    """Special tokens included."""
    unknown: float
    """Share of the tokens that the vocabulary does not know, from 0 to 1."""


class InProcessModel(ABC):
    """An `EncoderModel` made of methods that block; none of them is called from the loop."""

    overtakes: bool = False
    """Whether `forward_urgent` may run while `forward` does, in another thread."""
    holds_gil: bool = False
    """Whether `forward` works with the GIL held; its thread then has the process's own priority."""

    def __init__(self) -> None:
        self._passages = ThreadPoolExecutor(
            1,
            thread_name_prefix="encoder",
            initializer=None if self.holds_gil else lower_priority,
        )
        self._urgent = ThreadPoolExecutor(1, thread_name_prefix="encoder-query")
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    @abstractmethod
    def load(self) -> EncoderFacts:
        """Read the model. Raises: FailedPrecondition ENCODER_UNREADABLE."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str], *, query: bool, truncate: bool) -> list[Tokens]:
        """Tokens of each text, with the prompt that the model wants for questions or passages."""

    @abstractmethod
    def wrap(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Put the special tokens around ids that lack them."""

    @abstractmethod
    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        """Vectors of a batch of token ids."""

    def forward_urgent(self, batch: Sequence[Sequence[int]]) -> Matrix:
        """As `forward`, for questions."""
        return self.forward(batch)

    async def start(self) -> EncoderFacts:
        # Threads that the model makes while it loads inherit the priority of this one.
        return await _run(self._passages, self.load)

    async def aclose(self) -> None:
        for threads in (self._passages, self._urgent, self._tokenizing):
            threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self, inputs: Sequence[EncoderText], *, query: bool, truncate: bool
    ) -> Sequence[EncoderInput]:
        texts = [one for one in inputs if isinstance(one, str)]
        tokens: list[Tokens] = []
        if texts:
            threads = self._urgent if query and self.overtakes else self._tokenizing
            tokens = await _run(
                threads, lambda: self.tokenize(texts, query=query, truncate=truncate)
            )
        known = iter(tokens)
        prepared: list[EncoderInput] = []
        for one in inputs:
            read = next(known) if isinstance(one, str) else Tokens(self.wrap(one), 0.0)
            prepared.append(EncoderInput(read.ids, len(read.ids), read.unknown))
        return prepared

    async def encode(self, batch: Sequence[EncoderInput], *, query: bool) -> Forward:
        ids = [one.content for one in batch if not isinstance(one.content, str)]
        if query and self.overtakes:
            return Forward(await _run(self._urgent, lambda: self.forward_urgent(ids)))
        return Forward(await _run(self._passages, lambda: self.forward(ids)))


def lower_priority() -> None:
    """Let the calling thread, and those that it starts, get the processor after all others.

    Linux counts niceness by thread; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        lowest = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), lowest)


async def _run(threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function)
