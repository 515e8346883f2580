"""What verifying and limiting cost in process: processor time per request.

Side by side: an awaited function that does nothing; a bare request, which is a Starlette app called
with a body and no socket; the warm authenticator; the limits; both together; the rest of the
rendered file; and all of it, which is what a request pays. With --redis also the limits over Redis,
one call at a time, with the wall time of each, and in bursts.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bench.harness import Block, Defaults, Finding, Run, Side, Work, stopwatch
from bench.harness.sides import Figures
from gateway.auth import Authenticator, Principal
from gateway.edge.middleware import EdgeGuard
from gateway.edge.rules import EdgeRules
from gateway.keys import Keyring
from gateway.limits.limiter import Limiter
from gateway.limits.settings import LimitSettings

SUMMARY = "what verifying and limiting cost beside a bare request, in processor time"
QUICK = ("--calls", "2000", "--starts", "1", "--rounds", "3")
DEFAULTS = Defaults(starts=2, rounds=7)
BARE = "bare request"
PAID = "edge + verify + limit"
CASES = (
    BARE,
    "awaited function",
    "verify, warm",
    "limit",
    "verify + limit",
    "the edge's rules, with verify",
    PAID,
    "verify + limit + tokens and stream place",
)
REDIS_ONE = "verify + limit over Redis"
REDIS_BURST = "verify + limit over Redis, bursts of 32"
BUDGET_US = 150.0
BURST = 32
Call = Callable[[], Awaitable[Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=int, default=3000, help="of a block")
    parser.add_argument("--redis", help="URL of a Redis whose keys may be used")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    cases = [(case, options.calls) for case in CASES]
    if options.redis:
        cases += [(REDIS_ONE, options.calls // 10), (REDIS_BURST, options.calls)]
    return [
        Side(case, "bench.limits:Case", {"case": case, "calls": calls, "redis": options.redis})
        for case, calls in cases
    ]


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    if PAID not in run.sides:
        return []
    return [Finding(PAID, run.cpu_per_call(PAID)[0] * 1e6, "us of CPU", below=BUDGET_US)]


class Case(Work):
    """One kind of request, many times."""

    async def prepare(self) -> Figures:
        self._folder = tempfile.TemporaryDirectory()
        self._limiter: Limiter | None = None
        keyring = Keyring(Path(self._folder.name))
        keyring.create("bench", tenants=["*"], scopes=["chat"])
        token = keyring.issue(consumer="bench", subject="bench", scopes=["chat"])
        raise_edge_limits(keyring.rendered)
        self._call = await self._of(self.options["case"], keyring, token)
        await self._call()
        return {}

    async def measure(self, round_: int) -> Block:
        calls, call = int(self.options["calls"]), self._call
        if self.options["case"] == REDIS_ONE:
            seconds: list[float] = []
            for _ in range(calls):
                with stopwatch(seconds):
                    await call()
            return Block(calls, {"one call": seconds}, self._shared())
        if self.options["case"] == REDIS_BURST:
            for _ in range(calls // BURST):
                await asyncio.gather(*(call() for _ in range(BURST)))
            return Block(calls // BURST * BURST, figures=self._shared())
        for _ in range(calls):
            await call()
        return Block(calls)

    async def aclose(self) -> None:
        if self._limiter is not None:
            await self._limiter.aclose()
        self._folder.cleanup()

    def _shared(self) -> Figures:
        """1 while the counts are in Redis."""
        return {"shared": float(self._limiter is not None and self._limiter.is_shared)}

    async def _of(self, case: str, keyring: Keyring, token: str) -> Call:
        authenticator = Authenticator(keyring.rendered)
        over_redis = case in (REDIS_ONE, REDIS_BURST)
        limits = self._limiter = limiter(keyring, self.options["redis"] if over_redis else None)
        if over_redis:
            await limits.start()
        principal = authenticator.authenticate(f"Bearer {token}")

        async def nothing() -> None:
            pass

        async def verify() -> Principal:
            return authenticator.authenticate(f"Bearer {token}")

        async def both() -> None:
            caller = authenticator.authenticate(f"Bearer {token}")
            admission = await limits.admit(caller, "192.0.2.1", "POST", "/v1/query")
            admission.check()

        async def admit() -> None:
            (await limits.admit(principal, "192.0.2.1", "POST", "/v1/query")).check()

        guard = guarded(EdgeRules(keyring.rendered), authenticator, token)

        async def whole() -> None:
            await guard()
            await both()

        async def generate() -> None:
            await both()
            work = await limits.begin(principal.tenant_id, prompt=100, max_output=200, stream=True)
            with work:
                work.tokens.report(150)

        calls = (bare_request(), nothing, verify, admit, both, guard, whole, generate)
        return dict(zip(CASES, calls, strict=True)).get(case, both)


def bare_request() -> Call:
    async def answer(request: Request) -> PlainTextResponse:
        await request.body()
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/v1/query", answer, methods=["POST"])])
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/query",
        "raw_path": b"/v1/query",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def call() -> None:
        await app(dict(scope), receive, send)

    return call


def guarded(rules: EdgeRules, authenticator: Authenticator, token: str) -> Call:
    """What the rendered file asks before a route: route, token, address, size, cors."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        pass

    guard = EdgeGuard(nothing, rules=rules, authenticator=authenticator)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/query",
        "client": ("192.0.2.1", 1),
        "headers": [
            (b"content-length", b"2"),
            (b"authorization", f"Bearer {token}".encode()),
        ],
    }

    async def call() -> None:
        await guard(dict(scope), nothing, nothing)  # type: ignore[arg-type]

    return call


def limiter(keyring: Keyring, redis: str | None = None) -> Limiter:
    unreachable = 10**9
    settings = LimitSettings(
        redis_url=redis,  # type: ignore[arg-type]
        limit_redis_timeout=1.0,
        tenant_requests_per_minute=unreachable,
        tenant_requests_per_hour=unreachable,
        tenant_tokens_per_minute=unreachable,
        tenant_tokens_per_day=unreachable,
        tenant_streams=1000,
    )
    return Limiter(settings, keyring.rendered)


def raise_edge_limits(rendered: Path) -> None:
    """The file's limit is for people; a benchmark would spend its time being refused."""
    document = yaml.safe_load(rendered.read_text())
    for plugin in document["plugins"]:
        if plugin["name"] == "rate-limiting":
            plugin["config"]["minute"] = plugin["config"]["hour"] = 10**9
    rendered.write_text(yaml.safe_dump(document))
