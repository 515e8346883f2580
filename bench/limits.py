"""What verifying and limiting cost in process: CPU microseconds per request.

    python -m bench.limits [--calls 20000] [--redis redis://127.0.0.1:6379/0]

Prints, side by side in one run: an awaited function that does nothing; a bare request, which is a
Starlette app called with a body and no socket; the warm authenticator; the limits; both together;
the rest of the rendered file; and all of it, which is what a request pays. With --redis also the
limits over Redis, one call at a time and in bursts, with the wall time of one call.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.auth import Authenticator, Principal
from gateway.edge.middleware import EdgeGuard
from gateway.edge.rules import EdgeRules
from gateway.keys import Keyring
from gateway.limits.limiter import Limiter
from gateway.limits.settings import LimitSettings

ROUNDS = 7
BUDGET_US = 150.0
Work = Callable[[], Awaitable[Any]]


async def cpu_per_call(work: Work, calls: int, burst: int = 1) -> float:
    """Median over rounds of CPU microseconds per call, this process's threads together."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(calls // ROUNDS // burst):
            if burst == 1:
                await work()
            else:
                await asyncio.gather(*(work() for _ in range(burst)))
        spent = time.process_time() - started
        rounds.append(spent / (calls // ROUNDS // burst * burst) * 1e6)
    return statistics.median(rounds)


async def wall_per_call(work: Work, calls: int) -> tuple[float, float]:
    """Median and 99th percentile of wall microseconds."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        await work()
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def bare_request() -> Work:
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


def guarded(rules: EdgeRules, authenticator: Authenticator, token: str) -> Work:
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


async def measure(calls: int, redis: str | None, data: Path) -> None:
    keyring = Keyring(data)
    keyring.create("bench", tenants=["*"], scopes=["chat"])
    token = keyring.issue(consumer="bench", subject="bench", scopes=["chat"])
    raise_edge_limits(keyring.rendered)
    authenticator = Authenticator(keyring.rendered)
    alone = limiter(keyring)
    principal = authenticator.authenticate(f"Bearer {token}")

    async def nothing() -> None:
        pass

    async def verify() -> Principal:
        return authenticator.authenticate(f"Bearer {token}")

    async def both(limits: Limiter = alone) -> None:
        caller = authenticator.authenticate(f"Bearer {token}")
        admission = await limits.admit(caller, "192.0.2.1", "POST", "/v1/query")
        admission.check()

    async def admit() -> None:
        (await alone.admit(principal, "192.0.2.1", "POST", "/v1/query")).check()

    guard = guarded(EdgeRules(keyring.rendered), authenticator, token)

    async def whole() -> None:
        await guard()
        await both()

    async def generate() -> None:
        await both()
        work = await alone.begin(principal.tenant_id, prompt=100, max_output=200, stream=True)
        with work:
            work.tokens.report(150)

    cases: list[tuple[str, Work]] = [
        ("bare awaited function", nothing),
        ("bare request (Starlette, no socket)", bare_request()),
        ("verify, warm", verify),
        ("limit: edge and tenant, minute and hour", admit),
        ("verify + limit", both),
        ("the edge's rules, with verify", guard),
        ("edge + verify + limit", whole),
        ("verify + limit + tokens and stream place", generate),
    ]
    print(f"{'in process':<44}{'CPU us':>9}")
    figures = {}
    for name, work in cases:
        await work()
        figures[name] = await cpu_per_call(work, calls)
        print(f"{name:<44}{figures[name]:>9.2f}")
    bare = figures["bare request (Starlette, no socket)"]
    paid = figures["edge + verify + limit"]
    verdict = "within" if paid < BUDGET_US else "OVER"
    print(
        f"edge + verify + limit: {paid / 1000:.3f} ms, {paid / bare:.2f} of a bare request, "
        f"{verdict} the budget of {BUDGET_US / 1000:.2f} ms"
    )
    if redis is None:
        return
    shared = limiter(keyring, redis)
    await shared.start()

    async def over_redis() -> None:
        await both(shared)

    print(f"\n{'over Redis':<44}{'CPU us':>9}")
    print(
        f"{'verify + limit, one at a time':<44}{await cpu_per_call(over_redis, calls // 10):>9.2f}"
    )
    in_bursts = await cpu_per_call(over_redis, calls, burst=32)
    print(f"{'verify + limit, 32 at a time':<44}{in_bursts:>9.2f}")
    median, slow = await wall_per_call(over_redis, calls // 10)
    print(f"wall time of one call: median {median:.0f} us, 99th percentile {slow:.0f} us")
    print(f"shared to the end: {shared.is_shared}")
    await shared.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--redis", help="URL of a Redis whose keys may be used")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        asyncio.run(measure(options.calls, options.redis, Path(data)))


if __name__ == "__main__":
    main()
