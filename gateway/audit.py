"""Who did what: how a request records an action in the audit log."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter

from gateway.actions import INTERRUPTED, OK
from gateway.exchange import Call
from gateway.store.audit import AuditStore, Event, moment
from services.runtime.errors import RagmeshError

log = logging.getLogger(__name__)

LOST = Counter("ragmesh_gateway_audit_lost", "Actions that the audit log could not record.")


class AuditLog:
    """Records what requests do."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    @asynccontextmanager
    async def recording(self, call: Call, action: str, target: str) -> AsyncIterator[None]:
        """Record the block's end: that it went well, or the reason why not.

        An action that was carried out is not taken back when the store cannot record it: that is
        logged whole and counted, and the request keeps its answer.
        """
        outcome = INTERRUPTED
        try:
            yield
            outcome = OK
        except RagmeshError as error:
            outcome = error.reason.lower()
            raise
        finally:
            principal = call.principal
            event = Event(
                at=moment(),
                tenant=principal.tenant_id,
                tenant_name=principal.tenant,
                consumer=principal.consumer,
                subject=principal.subject,
                token_id=principal.token_id or "",
                request_id=call.exchange.request_id,
                action=action,
                target=target.replace("\0", ""),  # PostgreSQL's text holds none
                outcome=outcome,
            )
            # Shielded: a caller that leaves must not leave its deed unrecorded.
            await asyncio.shield(asyncio.ensure_future(self._append(event)))

    async def _append(self, event: Event) -> None:
        try:
            await self._store.append(event)
        except RagmeshError as error:
            LOST.inc()
            told = {"reason": error.reason, "event": repr(event)}
            log.error("an action is not in the audit log", extra=told)
