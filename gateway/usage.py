"""Counts what tenants take of models, beside their requests.

A request adds to a counter in memory and waits for nothing. The counters are written every second
and when the gateway is stopped; a gateway that is killed loses at most the last second, and one
whose store is away keeps counting and writes when it is back.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, date, datetime

from prometheus_client import Gauge

from gateway.exchange import Call
from gateway.limits.generation import prompt_tokens, reranked_tokens
from gateway.limits.tokens import estimate_tokens
from gateway.store.usage import UsageCounts, UsageKey, UsageStore
from ragmesh.infer.v1 import infer_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from services.runtime.errors import RagmeshError

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
MAX_WAITING = 100_000
"""Rows that wait for a store that is away; beyond them new rows are dropped, with a log line."""
MAX_MODEL_CHARACTERS = 256

WAITING = Gauge("ragmesh_gateway_usage_rows_waiting", "Rows of usage not yet written.")

Events = AsyncGenerator[infer_pb2.GenerateResponse, None]


def _today() -> date:
    return datetime.now(UTC).date()


class UsageMeter:
    """Counts in memory, writes in the background."""

    def __init__(
        self,
        store: UsageStore,
        *,
        interval: float = FLUSH_SECONDS,
        today: Callable[[], date] = _today,
    ) -> None:
        """Args:
        interval: seconds between two writes.
        today: the day in UTC.
        """
        self._store = store
        self._interval = interval
        self._today = today
        self._counts: dict[UsageKey, UsageCounts] = {}
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._reachable = True

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write(), name="usage")

    async def aclose(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        try:
            await self.flush()
        except RagmeshError as error:
            lost = {"rows": len(self._counts), "reason": error.reason}
            log.error("usage of the last second is lost", extra=lost)

    def count(self, tenant: str, model: str, counts: UsageCounts) -> None:
        """Add to today's row. Never waits, so it is safe on the way out of a cancelled request."""
        key = UsageKey(tenant, self._today(), model[:MAX_MODEL_CHARACTERS].replace("\0", ""))
        self._add(key, counts)

    async def flush(self) -> None:
        """Write what was counted.

        Raises:
            Unavailable: STORE_UNAVAILABLE; the counts are kept.
        """
        async with self._flushing:
            counts, self._counts = self._counts, {}
            if not counts:
                return
            try:
                await self._store.add(counts)
            except BaseException:
                for key, waiting in counts.items():
                    self._add(key, waiting)
                raise
            finally:
                WAITING.set(len(self._counts))

    async def forget(self, tenant: str) -> None:
        """Drop what a tenant has, here and in the store."""
        async with self._flushing:
            self._counts = {key: row for key, row in self._counts.items() if key.tenant != tenant}
            await self._store.delete_tenant(tenant)

    async def generation(
        self, call: Call, request: infer_pb2.GenerateRequest, events: Events
    ) -> Events:
        """The events of a generation, counted. One that ends before its engine tells the tokens,
        because its client left or it failed, counts with an estimate of what was read and said.
        One that never began counts nothing."""
        model, pieces = "", list[str]()
        usage = None
        try:
            async with aclosing(events):
                async for event in events:
                    match event.WhichOneof("event"):
                        case "started":
                            model = event.started.model
                        case "delta":
                            pieces.append(event.delta.text or event.delta.reasoning)
                        case "usage":
                            usage = event.usage
                        case _:
                            pass
                    yield event
        finally:
            # A rewrite is a part of a question, which is counted when it is answered.
            requests = int(request.task != infer_pb2.TASK_REWRITE)
            if usage is not None:
                read, said = usage.prompt_tokens, usage.completion_tokens
                guessed = requests if usage.estimated else 0
                counts = UsageCounts(requests, read, said, estimated=guessed)
                self.count(call.tenant, model or request.model or "default", counts)
            elif model:
                said = estimate_tokens("".join(pieces))
                counts = UsageCounts(requests, prompt_tokens(request), said, estimated=requests)
                self.count(call.tenant, model, counts)

    def embedding(self, call: Call, made: retrieve_pb2.EmbedResponse) -> None:
        """Count an answered call of the encoder."""
        self.count(call.tenant, made.model, UsageCounts(1, embedding_tokens=made.tokens))

    def reranking(
        self, call: Call, request: retrieve_pb2.RerankRequest, made: retrieve_pb2.RerankResponse
    ) -> None:
        """Count an answered call of the reranker; an estimate where it does not tell the tokens."""
        read = made.tokens or reranked_tokens(request)
        self.count(call.tenant, made.model, UsageCounts(1, read, estimated=int(not made.tokens)))

    def _add(self, key: UsageKey, counts: UsageCounts) -> None:
        row = self._counts.get(key)
        if row is None:
            if len(self._counts) >= MAX_WAITING:
                log.error("a row of usage is dropped: the store has been away for too long")
                return
            row = self._counts[key] = UsageCounts()
        row.add(counts)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.flush()
            except RagmeshError as error:
                if self._reachable:
                    log.error("usage is not written", extra={"reason": error.reason})
                self._reachable = False
            else:
                if not self._reachable:
                    log.info("usage is written again")
                self._reachable = True
