"""A service that hangs with its connection open."""

import asyncio
import os
import signal
import sys
import time

import grpc
import pytest

from services.runtime import channel

SERVER = """
import asyncio, grpc

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


async def test_its_calls_fail_long_before_their_deadline(monkeypatch):
    monkeypatch.setattr(channel, "PING_AFTER_MS", 1_000)
    monkeypatch.setattr(channel, "PING_TIMEOUT_MS", 1_000)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    try:
        async with channel.connect(f"127.0.0.1:{port}") as connection:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = connection.unary_unary("/a.B/C")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED  # it is connected
            os.kill(process.pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=60)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 20
    finally:
        process.kill()
        await process.wait()
