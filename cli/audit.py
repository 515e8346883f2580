"""What the operator's command does to keys and tokens, in the audit log.

It writes to the gateway's store itself: the same file, or the same PostgreSQL by DATABASE_URL. The
chain of the log makes that safe while gateways run. The store is opened before the deed, so that
nothing is done which could not be recorded.
"""

import asyncio
import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.actions import INTERRUPTED, OK
from services.runtime.errors import RagmeshError
from services.runtime.settings import load

CONSUMER = "operator"
"""Who acts: no issuer of tokens, but who may write to the data directory."""


@dataclass(slots=True)
class Record:
    """What is told of the deed; the target may become known only by it."""

    target: str


@contextmanager
def recorded(action: str, target: str = "") -> Iterator[Record]:
    """Record the block's end in the audit log.

    Raises:
        FailedPrecondition: DATABASE_UNAVAILABLE: nothing has been done.
    """
    # The store's libraries take as long to import as the rest of the command.
    from gateway.settings import GatewaySettings  # noqa: PLC0415
    from gateway.store.audit import AuditStore, Event, moment  # noqa: PLC0415
    from gateway.store.database import open_database  # noqa: PLC0415

    record = Record(target)
    with asyncio.Runner() as runner:
        engine = runner.run(open_database(load(GatewaySettings).store_url))
        outcome = INTERRUPTED
        try:
            yield record
            outcome = OK
        except RagmeshError as error:
            outcome = error.reason.lower()
            raise
        finally:
            event = Event(
                at=moment(),
                tenant="",
                tenant_name="",
                consumer=CONSUMER,
                subject=f"{getpass.getuser()}@{socket.gethostname()}",
                token_id="",
                request_id="",
                action=action,
                target=record.target,
                outcome=outcome,
            )
            runner.run(AuditStore(engine).append(event))
            runner.run(engine.dispose())
