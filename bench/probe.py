"""``python -m bench.probe ADDRESS``: ask a service's gRPC health until the standard input ends.

A process of its own, so that what it measures is the service's and not the bench's own turn to
run. Says "ready" once it was answered, and at the end of each answer when it was asked for, by the
monotonic clock, and the seconds that it took, as JSON.
"""

import asyncio
import json
import sys
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.stalls import Timed

PAUSE_SECONDS = 0.01


async def probe(address: str) -> list[Timed]:
    """When each answer was asked for, and how long it took."""
    timed: list[Timed] = []
    async with grpc.aio.insecure_channel(address) as channel:
        # The stub's annotations are those of a synchronous one.
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        print("ready", flush=True)
        over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not over.done():
            began = time.monotonic()
            answer = await health.Check(health_pb2.HealthCheckRequest())
            timed.append((began, time.monotonic() - began))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            await asyncio.sleep(PAUSE_SECONDS)
    return timed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(probe(sys.argv[1]))))
