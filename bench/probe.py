"""``python -m bench.probe ADDRESS``: ask a service's gRPC health until the standard input ends.

A process of its own, so that what it measures is the service's and not the bench's own turn to
run. Says "ready" once it was answered, and at the end the seconds of each answer, as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.harness import stopwatch

PAUSE_SECONDS = 0.01


async def probe(address: str) -> list[float]:
    """Seconds of each answer."""
    seconds: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        # The stub's annotations are those of a synchronous one.
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        print("ready", flush=True)
        over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not over.done():
            with stopwatch(seconds):
                answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            await asyncio.sleep(PAUSE_SECONDS)
    return seconds


if __name__ == "__main__":
    print(json.dumps(asyncio.run(probe(sys.argv[1]))))
