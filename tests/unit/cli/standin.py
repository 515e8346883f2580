"""A stand-in for a process of the mesh: health by the real chassis, and for the gateway REST too.

python standin.py NAME [MODE]      MODE: fine, refuses (status 2), dies (status 1 at once)
"""

import asyncio
import sys

from cli.settings import CommandSettings
from services.runtime.server import Service, serve


class StandinSettings(CommandSettings):
    """Its `service` is set to the name below."""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b'{"services": {"infer": {"version": "1", "available": false}}}'
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()


async def _run(name: str) -> None:
    StandinSettings.service = name
    settings = StandinSettings()
    server = None
    if name == "gateway":
        server = await asyncio.start_server(_answer, settings.rest_host, settings.port)
    await serve(Service(name, lambda _server: None, ()), settings)
    if server is not None:
        server.close()


if __name__ == "__main__":
    mode = sys.argv[2] if len(sys.argv) > 2 else "fine"
    if mode != "fine":
        sys.stderr.write(f"{sys.argv[1]}: the setting X is wrong\n")
        sys.exit(2 if mode == "refuses" else 1)
    asyncio.run(_run(sys.argv[1]))
