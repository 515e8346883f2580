"""How many generations run at once, who comes next, and what is shed."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.infer import metrics
from services.infer.ports import ModelManager
from services.runtime.errors import DeadlineExceeded, Unavailable

_RETRY_AFTER = 1.0
"""Seconds, while nothing is known of how long generations take."""
_MOST_RETRY_AFTER = 60.0
_ENOUGH = 5
"""Generations that must have ended before their mean is believed."""
_SMOOTHING = 0.1
"""Weight of the latest generation in the mean."""


@dataclass(slots=True, eq=False)
class _Waiter:
    tenant: str
    model: str
    number: int
    """Rises with each arrival."""
    granted: asyncio.Future[None]


@dataclass(slots=True)
class _Tenant:
    """One tenant's share. `turn` is its virtual time: it moves on with every grant, the slower the
    heavier the tenant, and who is least far comes next (stride scheduling, Waldspurger 1995)."""

    turn: float = 0.0
    running: int = 0
    waiters: deque[_Waiter] = field(default_factory=deque)


class Admission:
    """A limit of running generations and a bounded queue that is fair between tenants.

    A slot that comes free goes to the waiting tenant that has the fewest running generations by
    its weight, and among equals to the one whose turn it is; within a tenant to the first that
    came. When the queue is full, the tenant that fills most of it gives its latest place up to one
    that has less, so that no tenant can shut another out.
    """

    def __init__(
        self,
        limit: int,
        queue: int,
        *,
        provider: str = "",
        model_limits: Mapping[str, int] | None = None,
        weights: Mapping[str, float] | None = None,
        manager: ModelManager | None = None,
    ) -> None:
        """Args:
        limit: generations at a time.
        queue: how many may wait.
        provider: for the metrics.
        model_limits: model -> generations at a time, where a model bears less.
        weights: tenant -> its share relative to others', 1 where it is not named.
        manager: whose models take turns, when it is exclusive: the loaded one is unloaded before
            another answers, and arrivals after a wish for another model wait behind it.
        """
        self._limit = limit
        self._queue = queue
        self._provider = provider
        self._model_limits = model_limits or {}
        self._weights = weights or {}
        self._manager = manager if manager and manager.exclusive else None
        self._loaded = ""
        self._switching = False
        self._tenants: dict[str, _Tenant] = {}
        self._models: defaultdict[str, int] = defaultdict(int)
        self._now = 0.0
        self._arrivals = 0
        self._mean = 0.0
        self._ended = 0
        self.waiting = 0
        self.running = 0

    @asynccontextmanager
    async def slot(self, end: float, *, tenant: str = "", model: str = "") -> AsyncIterator[None]:
        """Hold a slot for the length of the block.

        Args:
            end: loop time until which a slot is of use.
            tenant: on whose behalf.
            model: the engine's own name.

        Raises:
            Unavailable: ENGINE_OVERLOADED, when the queue is full, or so slow that the deadline
                would pass in it.
            DeadlineExceeded: ENGINE_TIMEOUT, when no slot came free until `end`.
        """
        await self._acquire(end, tenant, model)
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            await self._switch(model)
            yield
        finally:
            self._observe(clock() - start)
            self._release(tenant, model)

    @property
    def expected_wait(self) -> float | None:
        """Seconds that the next arrival would wait behind all others; None: not known yet."""
        if self._ended < _ENOUGH:
            return None
        if self.running < self._limit and not self.waiting:
            return 0.0
        return self._mean * (self.waiting + 1) / self._limit

    async def _acquire(self, end: float, tenant: str, model: str) -> None:
        mine = self._tenants.setdefault(tenant, _Tenant())
        if not self.waiting and self.running < self._limit and self._fits(model):
            self._grant(mine, tenant, model)
            return
        waiter = self._enqueue(mine, tenant, model, end)
        start = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(end):
                await waiter.granted
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError):
                self._shed("deadline")
                raise DeadlineExceeded(
                    "ENGINE_TIMEOUT", "The engine was busy for too long."
                ) from None
            raise
        finally:
            waited = asyncio.get_running_loop().time() - start
            metrics.WAIT_SECONDS.labels(self._provider).observe(waited)

    def _enqueue(self, mine: _Tenant, tenant: str, model: str, end: float) -> _Waiter:
        left = end - asyncio.get_running_loop().time()
        wait = self._wait_of(mine)
        if wait is not None and wait > left:
            self._shed("hopeless")
            raise self._overloaded("The engine is too busy for the time allowed")
        if self.waiting >= self._queue and not self._push_out(mine, tenant):
            self._shed("full")
            self._forget()
            raise self._overloaded("Too many generations are waiting")
        self._arrivals += 1
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(tenant, model, self._arrivals, granted)
        if not mine.waiters and not mine.running:
            mine.turn = max(mine.turn, self._now)  # who was away saved nothing up
        mine.waiters.append(waiter)
        self._count_waiting(1)
        self._dispatch()
        return waiter

    def _wait_of(self, mine: _Tenant) -> float | None:
        """Seconds until a tenant's next place comes, each waiting tenant served in turn."""
        if self._ended < _ENOUGH:
            return None
        others = sum(bool(one.waiters) for one in self._tenants.values() if one is not mine)
        ahead = min(self.waiting, (len(mine.waiters) + 1) * (others + 1) - 1)
        return self._mean * (ahead + 1) / self._limit

    def _push_out(self, mine: _Tenant, tenant: str) -> bool:
        """Take the latest place of the tenant that has most, if that is more than this one has."""
        places = {name: len(t.waiters) / self._weight(name) for name, t in self._tenants.items()}
        name = max(places, key=lambda each: places[each])
        most = self._tenants[name]
        if most is mine or places[name] <= (len(mine.waiters) + 1) / self._weight(tenant):
            return False
        waiter = most.waiters.pop()
        self._count_waiting(-1)
        self._shed("displaced")
        waiter.granted.set_exception(self._overloaded("Too many generations are waiting"))
        return True

    def _dispatch(self) -> None:
        while self.running < self._limit and not self._switching:
            best: tuple[float, float] | None = None
            chosen: _Waiter | None = None
            for name, tenant in self._tenants.items():
                waiter = self._first(tenant)
                rank = (tenant.running / self._weight(name), tenant.turn)
                if waiter is not None and (best is None or rank < best):
                    best, chosen = rank, waiter
            if chosen is None:
                return
            mine = self._tenants[chosen.tenant]
            mine.waiters.remove(chosen)
            self._count_waiting(-1)
            self._grant(mine, chosen.tenant, chosen.model)
            chosen.granted.set_result(None)

    def _first(self, tenant: _Tenant) -> _Waiter | None:
        """A tenant's first waiter whose model has room; those that are about to leave are none."""
        return next(
            (
                waiter
                for waiter in tenant.waiters
                if not waiter.granted.done() and self._fits(waiter.model, waiter.number)
            ),
            None,
        )

    def _fits(self, model: str, number: int | None = None) -> bool:
        if self._models[model] >= self._model_limits.get(model, self._limit):
            return False
        if self._manager is None:
            return True
        if self._switching:
            return False
        if model != self._loaded:
            return self.running == 0
        others = (
            waiter.number
            for tenant in self._tenants.values()
            for waiter in tenant.waiters
            if waiter.model != model
        )
        return number is None or number < min(others, default=number + 1)

    def _grant(self, mine: _Tenant, tenant: str, model: str) -> None:
        self._now = max(self._now, mine.turn)
        mine.turn = self._now + 1.0 / self._weight(tenant)
        mine.running += 1
        self._models[model] += 1
        self.running += 1
        if self._manager is not None and model != self._loaded:
            self._switching = True

    async def _switch(self, model: str) -> None:
        """Make room for the first generation of another model."""
        if self._manager is None or model == self._loaded:
            return
        try:
            if self._loaded:
                await self._manager.unload(self._loaded)
            self._loaded = model
        finally:
            self._switching = False
            self._dispatch()

    def _release(self, tenant: str, model: str) -> None:
        self.running -= 1
        self._models[model] -= 1
        if not self._models[model]:
            del self._models[model]
        self._tenants[tenant].running -= 1
        self._dispatch()
        self._forget()

    def _leave(self, waiter: _Waiter) -> None:
        """Give up a place in the queue, or a slot that came in the same moment."""
        mine = self._tenants.get(waiter.tenant)
        if mine is not None and waiter in mine.waiters:
            mine.waiters.remove(waiter)
            self._count_waiting(-1)
            self._dispatch()  # another model may have waited for this one
            self._forget()
        elif not waiter.granted.cancelled() and waiter.granted.exception() is None:
            self._switching = False
            self._release(waiter.tenant, waiter.model)

    def _forget(self) -> None:
        """Once nobody waits, drop the tenants that run nothing: nobody is ahead of a turn then."""
        if not self.waiting and len(self._tenants) > self.running:
            self._tenants = {name: one for name, one in self._tenants.items() if one.running}

    def _observe(self, seconds: float) -> None:
        change = seconds - self._mean
        self._mean += change * (_SMOOTHING if self._ended else 1.0)
        self._ended += 1

    def _overloaded(self, message: str) -> Unavailable:
        wait = self.expected_wait
        delay = _RETRY_AFTER if wait is None else min(max(wait, 0.05), _MOST_RETRY_AFTER)
        return Unavailable(
            "ENGINE_OVERLOADED", f"{message}; try again later.", retry_after=round(delay, 3)
        )

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def _count_waiting(self, change: int) -> None:
        self.waiting += change
        metrics.WAITING.labels(self._provider).set(self.waiting)

    def _shed(self, reason: str) -> None:
        metrics.SHED.labels(self._provider, reason).inc()
