"""One connection to Redis: what the server must have, and its errors as ours."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis import exceptions as raised
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.retrieve.adapters.redis.options import RedisOptions
from services.runtime.errors import (
    FailedPrecondition,
    Internal,
    RagmeshError,
    Unavailable,
)

log = logging.getLogger(__name__)

NEEDED = ("VADD", "VEMB", "VREM", "VSIM", "EVAL_RO", "WAITAOF")
_DEFAULT_PORT = 6379


class Connection:
    """Calls in the one thread that works. A single connection, used by nobody else."""

    def __init__(self, url: str, options: RedisOptions) -> None:
        """Args:
        url: ``redis://[USER@]HOST[:PORT][/DATABASE]``, or ``rediss://`` with TLS.

        Raises:
            FailedPrecondition: VECTOR_URL_INVALID, VECTOR_CA_UNREADABLE.
        """
        self._options = options
        # The client's own types lack calls by name.
        self._redis: Any = Redis(
            **_address(url),
            **_tls(url, options.ca),
            password=options.password or None,
            protocol=2,
            socket_timeout=options.timeout,
            socket_connect_timeout=options.timeout,
            retry=Retry(NoBackoff(), 1),  # at once: an idle connection may have been closed
        )
        for command in ("COMMAND", "VSIM", "VEMB", "VADD", "VREM"):
            self._redis.set_response_callback(command, lambda answer, **_: answer)
        self.prefix = options.prefix
        self.run = ""
        """The server's life; another one after a restart or a failover."""

    def check(self) -> None:
        """Refuse a server that lacks something.

        Raises:
            FailedPrecondition: ENGINE_TOO_OLD, ENGINE_NOT_DURABLE, ENGINE_ACCESS_DENIED.
            Unavailable: ENGINE_UNAVAILABLE.
        """
        with translated():
            known = self._redis.execute_command("COMMAND", "INFO", *NEEDED)
            info: dict[str, Any] = self._redis.info()
        names = {one[0].decode().upper() for one in known if one}
        lacking = [one for one in NEEDED if one not in names]
        if lacking:
            raise FailedPrecondition(
                "ENGINE_TOO_OLD",
                f"The Redis at VECTOR_URL is version {str(info.get('redis_version'))[:20]} and has "
                f"no {', '.join(lacking)}; vector sets came with Redis 8. Upgrade it, or use "
                "VECTOR_URL=edge://.",
            )
        if self._options.durable:
            _check_durable(info)
        self.run = str(info["run_id"])

    def call(self, *command: Any) -> Any:
        with translated():
            return self._redis.execute_command(*command)

    @contextmanager
    def together(self, *, atomic: bool) -> Iterator[Any]:
        """The client's pipeline: commands of one round trip, which the caller executes."""
        with translated(), self._redis.pipeline(transaction=atomic) as pipeline:
            yield pipeline

    def many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers to commands that read, in one round trip."""
        if not commands:
            return []
        with self.together(atomic=False) as pipeline:
            for one in commands:
                pipeline.execute_command(*one)
            return list(pipeline.execute())

    def persist(self) -> str:
        """Wait until everything written so far is on the server's disk; the server's life.

        A write of its own goes first: WAITAOF waits for the last write of its connection, and the
        log is in the order of all writes, so what an earlier connection wrote is covered.

        Raises:
            Unavailable: ENGINE_UNAVAILABLE, where it takes too long.
        """
        milliseconds = math.ceil(self._options.timeout * 900)  # before the socket gives up
        commands: list[tuple[Any, ...]] = [("INCR", f"{self.prefix}:flushes")]
        if self._options.durable:
            commands.append(("WAITAOF", 1, 0, milliseconds))
        answers = self.many([*commands, ("INFO", "server")])
        if self._options.durable and int(answers[1][0]) < 1:
            raise unreachable()
        return str(answers[-1]["run_id"])

    def close(self) -> None:
        self._redis.close()


def _check_durable(info: dict[str, Any]) -> None:
    """Raises: FailedPrecondition ENGINE_NOT_DURABLE."""
    wrong = []
    if not int(info.get("aof_enabled", 0)):
        wrong.append("appendonly is off (set it to yes)")
    if int(info.get("maxmemory", 0)) and info.get("maxmemory_policy") != "noeviction":
        wrong.append("keys are evicted when memory is full (set maxmemory-policy to noeviction)")
    if info.get("role") != "master":
        wrong.append("it is a replica")
    if wrong:
        raise FailedPrecondition(
            "ENGINE_NOT_DURABLE",
            f"The Redis at VECTOR_URL may lose what was acknowledged: {'; '.join(wrong)}. "
            "RAGMESH_REDIS_DURABLE=false accepts that.",
        )


def _address(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
        database = int(parts.path.strip("/") or 0)
    except ValueError:
        parts, port, database = urlsplit(""), 0, 0
    if (
        parts.scheme.lower() not in ("redis", "rediss") or not parts.hostname
        or parts.password is not None or parts.query or parts.fragment or database < 0
    ):  # fmt: skip
        raise FailedPrecondition(
            "VECTOR_URL_INVALID",
            "VECTOR_URL of a Redis is redis://[USER@]HOST[:6379][/DATABASE], with rediss:// for "
            "TLS, and without a query. The password goes into VECTOR_API_KEY.",
        )
    user = unquote(parts.username) if parts.username else None
    return {"host": parts.hostname, "port": port, "db": database, "username": user}


def _tls(url: str, ca: Path | None) -> dict[str, Any]:
    if not url.lower().startswith("rediss:"):
        return {}
    if ca is None:
        return {"ssl": True}
    try:
        ca.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            "VECTOR_CA_UNREADABLE", f"The certificates {ca} (VECTOR_CA) cannot be read."
        ) from error
    return {"ssl": True, "ssl_ca_certs": str(ca)}


def unreachable() -> RagmeshError:
    return Unavailable(
        "ENGINE_UNAVAILABLE", "The vector database does not answer; try again.", retry_after=1.0
    )


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the client as ours. No text of the server goes out."""
    try:
        yield
    except (raised.AuthenticationError, raised.AuthorizationError, raised.NoPermissionError) as e:
        raise FailedPrecondition(
            "ENGINE_ACCESS_DENIED",
            "The vector database refuses the service's key; its operator must set VECTOR_API_KEY "
            "to one that may read and write.",
        ) from e
    except raised.OutOfMemoryError as error:
        raise Unavailable(
            "ENGINE_UNAVAILABLE",
            "The vector database is at its limits; try again later.",
            retry_after=30.0,
        ) from error
    except (raised.ConnectionError, raised.TimeoutError, raised.ReadOnlyError) as error:
        log.debug("Redis is away", exc_info=True)
        raise unreachable() from error
    except raised.RedisError as error:
        log.exception("Redis refused a call")
        raise Internal("ENGINE_FAILED", "The vector database failed.") from error
