"""Tenants as a whole: what one has in every store, and its deletion.

What is left afterwards is counted in every store anew; zero everywhere is the proof. Three things
stay on purpose: the audit log, revoked tokens until they would have expired (forgetting them would
revive them), and counters of limits in memory or Redis, which hold no content and end with their
window. A tenant exists by its tokens alone: as long as they are valid it may begin again, so its
keys or tokens are revoked first.
"""

from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway import clients
from gateway.audit import AuditLog
from gateway.auth import tenant_id_of
from gateway.clients import Mesh
from gateway.exchange import Call
from gateway.store.database import checkpoint
from gateway.store.sessions import SessionStore
from gateway.store.usage import UsageStore
from gateway.usage import UsageMeter
from ragmesh.retrieve.v1 import retrieve_pb2
from services.runtime.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Contents:
    """What a tenant has, counted."""

    collections: int
    documents: int
    chunks: int
    folders: int
    """On the disk of retrieve."""
    sessions: int
    turns: int
    usage: int
    """Rows: days by models."""

    @property
    def is_empty(self) -> bool:
        return self == Contents(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What was there, and what is left."""

    removed: Contents
    left: Contents


class Tenants:
    """Counts and deletes tenants, for administrators."""

    def __init__(
        self,
        mesh: Mesh,
        engine: AsyncEngine,
        sessions: SessionStore,
        *,
        meter: UsageMeter,
        audit: AuditLog,
    ) -> None:
        self._mesh = mesh
        self._engine = engine
        self._sessions = sessions
        self._usage = UsageStore(engine)
        self._meter = meter
        self._audit = audit

    async def contents(self, call: Call, consumer: str, tenant: str) -> Contents:
        """Raises:
        PermissionDenied: TENANT_NOT_ALLOWED.
        """
        return await self._count(acting_for(call, consumer, tenant))

    async def delete(self, call: Call, consumer: str, tenant: str) -> Deletion:
        """Delete everything that a tenant has, whatever its access lists.

        Raises:
            PermissionDenied: TENANT_NOT_ALLOWED.
        """
        async with self._audit.recording(call, "tenant.delete", f"{consumer}/{tenant}"):
            acting = acting_for(call, consumer, tenant)
            removed = await self._count(acting)
            await self._sessions.delete_tenant(acting.tenant)
            await clients.delete_tenant(acting, self._mesh, retrieve_pb2.DeleteTenantRequest())
            await self._meter.forget(acting.tenant)
            await checkpoint(self._engine)
            return Deletion(removed, await self._count(acting))

    async def _count(self, call: Call) -> Contents:
        request = retrieve_pb2.GetTenantContentsRequest()
        found = (await clients.get_tenant_contents(call, self._mesh, request)).contents
        sessions, turns = await self._sessions.count(call.tenant)
        return Contents(
            found.collections,
            found.documents,
            found.chunks,
            found.folders,
            sessions,
            turns,
            await self._usage.count(call.tenant),
        )


def acting_for(call: Call, consumer: str, tenant: str) -> Call:
    """The call on behalf of another tenant.

    Raises:
        PermissionDenied: TENANT_NOT_ALLOWED, unless the token's consumer is the operator's, or is
            trusted with every tenant of its own and this is one.
    """
    principal = call.principal
    own = consumer == principal.consumer and principal.any_tenant
    if not (own or principal.operator):
        raise PermissionDenied(
            "TENANT_NOT_ALLOWED", "The token may not administer this tenant.", field="tenant"
        )
    other = replace(
        principal, consumer=consumer, tenant=tenant, tenant_id=tenant_id_of(consumer, tenant)
    )
    return Call(other, call.budget, call.exchange)
