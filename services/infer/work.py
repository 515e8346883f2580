"""What a generation asks of its engine: one call, or many for a long summary."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from services.infer.lengths import ContextExceeded, too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    Engine,
    EngineEvent,
    GenerateRequest,
    Task,
    TextCounter,
    TokenCounter,
    Usage,
)
from services.infer.prompt import (
    ANSWER_RESERVE,
    SAFETY,
    Prompt,
    render,
    summary_parts,
    summary_request,
)
from services.infer.tokens import estimate_tokens
from services.runtime.errors import RagmeshError

COUNTING_TIMEOUT = 2.0
"""Seconds that an engine may take to count tokens; then estimates stand."""
_SURE = 3
"""By how much estimates may be wrong at most: below the room divided by it nothing is counted."""
_ROUNDS = 3
"""Times that a prompt is packed again with a better idea of the tokenizer."""
_PARALLEL = 4
"""Parts of a long text that are worked on at a time."""
_LEVELS = 4
"""Times that notes on parts are summarised again before they are shortened instead."""
_MIN_NOTE = 64

Slot = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(slots=True)
class Work:
    """One generation on one engine. `asked` is what the engine was last asked."""

    engine: Engine
    can: Capabilities
    context_length: int
    slot: Slot
    """One more of the engine's slots, for parts."""
    asked: GenerateRequest = field(default_factory=GenerateRequest)
    notes: Usage | None = None
    """What the parts of a long text took."""

    async def begin(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """Render the prompt and start the engine; what it yields are the generation's events.

        Raises:
            InvalidArgument: CONTEXT_LENGTH_EXCEEDED.
            RagmeshError: as Engine.generate, while parts are summarised.
        """
        asked, passages = request, bool(request.passages) and not self.can.reads_tasks
        if not self.can.reads_tasks:
            if request.task is Task.SUMMARIZE:
                request = await self._reduced(request)
            else:
                request = await self._rendered(request)
        self.asked = request
        if passages and not self.can.counts_tokens:
            return self._repacking(asked)
        return self.engine.generate(request)

    async def _repacking(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """An answer by an engine that cannot count: when it finds the prompt too long and says how
        long it may be, one with fewer passages is tried, once."""
        spoke = False
        try:
            async with aclosing(self.engine.generate(self.asked)) as events:
                async for event in events:
                    spoke = True
                    yield event
            return
        except ContextExceeded as error:
            if spoke or not error.limit:
                raise
            prompt = Prompt(error.limit)
            estimated = _estimated(self.asked) + prompt.answer(request)
            needed = error.needed or error.limit + 1
            scale = max(prompt.scale, needed / max(1, estimated)) * SAFETY
        self.asked = render(request, replace(prompt, scale=scale))
        async with aclosing(self.engine.generate(self.asked)) as events:
            async for event in events:
                yield event

    async def settle(self, usage: Usage | None, said: str) -> Usage:
        """The tokens of the whole generation: the engine's own count, else its tokenizer's, else
        the marked estimate."""
        if usage is None or usage.estimated:
            usage = await self._counted(self.asked, said) or usage or Usage(estimated=True)
        return self.notes + usage if self.notes else usage

    async def _counted(self, request: GenerateRequest, said: str) -> Usage | None:
        if not isinstance(self.engine, TextCounter) or not self.can.counts_tokens:
            return None
        try:
            async with asyncio.timeout(COUNTING_TIMEOUT):
                prompt = await self.engine.count_tokens(request)
                completion = await self.engine.count_text(request.model, said) if said else 0
        except (RagmeshError, TimeoutError):
            return None
        return Usage(prompt, completion)

    async def _count(self, request: GenerateRequest) -> int | None:
        """Exact tokens of a prompt, or None."""
        if not isinstance(self.engine, TokenCounter) or not self.can.counts_tokens:
            return None
        try:
            async with asyncio.timeout(COUNTING_TIMEOUT):
                return await self.engine.count_tokens(request)
        except (RagmeshError, TimeoutError):
            return None

    async def _rendered(self, request: GenerateRequest) -> GenerateRequest:
        """The prompt, packed again while exact counts say that it does not fit, or that more
        would."""
        prompt = Prompt(self.context_length)
        chat = render(request, prompt)
        if request.task is not Task.ANSWER or not self.context_length:
            return chat
        room = prompt.room(request)
        if _estimated(chat) * _SURE <= room and not _dropped(request, chat):
            return chat
        best: GenerateRequest | None = None
        exact = 0
        for _ in range(_ROUNDS):
            counted = await self._count(chat)
            if counted is None:
                return best or chat
            exact = counted
            if exact <= room:
                if not _dropped(request, chat) or best is not None:
                    return chat
                best = chat
            elif best is not None:
                return best
            # A little less than what was measured: other passages have other texts.
            scale = exact / max(1, _estimated(chat)) * 1.02
            chat = render(request, replace(prompt, scale=scale))
        if best is None:
            raise too_long(exact + prompt.answer(request), prompt.context)
        return best

    async def _reduced(self, request: GenerateRequest) -> GenerateRequest:
        """The last call of a summary: the text itself when it fits, else notes on its parts."""
        prompt = Prompt(self.context_length)
        parts = summary_parts(request.text, request, prompt)
        if self.context_length:
            first = summary_request(request, parts[0])
            exact = await self._count(first) if len(parts) > 1 or self._near(first) else None
            if exact is not None:
                scale = max(0.25, exact / max(1, _estimated(first)) * 1.05)
                prompt = replace(prompt, scale=scale)
                parts = summary_parts(request.text, request, prompt)
        if len(parts) == 1:
            return summary_request(request, parts[0])
        for _ in range(_LEVELS):
            note = prompt.room(request) // (2 * len(parts))
            notes = await self._map(request, parts, max(_MIN_NOTE, min(ANSWER_RESERVE, note)))
            fewer = summary_parts("\n\n".join(notes), request, prompt)
            if len(fewer) >= len(parts):  # these notes are no shorter than the text
                parts = fewer[:1]
                break
            parts = fewer
            if len(parts) == 1:
                break
        return summary_request(request, parts[0], merge=True)

    def _near(self, chat: GenerateRequest) -> bool:
        return _estimated(chat) * _SURE > self.context_length

    async def _map(self, request: GenerateRequest, parts: Sequence[str], tokens: int) -> list[str]:
        """A note on each part. One worker goes on in the slot that the generation has; others
        help as far as the engine has slots to spare. Whoever fails, or leaves, ends them all."""
        waiting = deque(enumerate(parts))
        notes = [""] * len(parts)

        async def worker() -> None:
            while waiting:
                index, part = waiting.popleft()
                asked = summary_request(request, part, note=tokens)
                notes[index] = await self._note(asked)

        idle: set[asyncio.Task[Any] | None] = set()

        async def helper() -> None:
            task = asyncio.current_task()
            try:
                async with self.slot():
                    idle.discard(task)
                    await worker()
            except RagmeshError:
                if task not in idle:
                    raise  # a part failed; else there was no room for a helper

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_PARALLEL, len(parts)) - 1):
                    idle.add(group.create_task(helper()))
                await worker()
                for task in idle:
                    if task is not None:
                        task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return notes

    async def _note(self, request: GenerateRequest) -> str:
        texts: list[str] = []
        usage: Usage | None = None
        async with aclosing(self.engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    texts.append(event.text)
                elif isinstance(event, Usage):
                    usage = event
        said = "".join(texts)
        if usage is None or usage.estimated:
            usage = await self._counted(request, said) or usage or Usage(estimated=True)
        self.notes = self.notes + usage if self.notes else usage
        return said


def _estimated(chat: GenerateRequest) -> int:
    return sum(estimate_tokens(message.text) for message in chat.messages)


def _dropped(request: GenerateRequest, chat: GenerateRequest) -> bool:
    """Whether a passage of the request is missing, or not whole, in the chat."""
    prompt = chat.messages[-1].text
    return any(f'n="[{passage.marker}]"' not in prompt for passage in request.passages)
