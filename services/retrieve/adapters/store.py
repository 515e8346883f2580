"""A `Store` that hands its calls to an `Index`, in another process or in a thread of this one."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from services.retrieve.adapters.index import Index
from services.retrieve.ports import (
    Attributes,
    Candidate,
    Collection,
    CollectionKey,
    Document,
    EncodedChunk,
    FieldTerms,
    IndexedChunk,
    NewCollection,
    Published,
    SparseVector,
    StoredChunk,
    StoreQuery,
    TenantContents,
)

IDLE_SECONDS = 300.0
"""A collection that nobody used for so long is closed."""


class IndexStore(ABC):
    """The methods of `Store` that an `Index` carries out, one call each."""

    @abstractmethod
    async def _call(self, method: str, *arguments: Any) -> Any:
        """Have the index carry out one of its methods."""

    async def create_collection(self, collection: NewCollection, limit: int) -> Collection:
        return cast(Collection, await self._call("create_collection", collection, limit))

    async def get_collection(self, key: CollectionKey, attributes: Attributes = ()) -> Collection:
        return cast(Collection, await self._call("get_collection", key, attributes))

    async def list_collections(
        self, tenant: str, after: str, limit: int, attributes: Attributes = ()
    ) -> Sequence[Collection]:
        found = await self._call("list_collections", tenant, after, limit, attributes)
        return cast(Sequence[Collection], found)

    async def replace_collection(
        self, key: CollectionKey, by: CollectionKey, attributes: Attributes = ()
    ) -> None:
        await self._call("replace_collection", key, by, attributes)

    async def delete_collection(self, key: CollectionKey, attributes: Attributes = ()) -> int:
        return cast(int, await self._call("delete_collection", key, attributes))

    async def tenant_contents(self, tenant: str) -> TenantContents:
        return cast(TenantContents, await self._call("tenant_contents", tenant))

    async def delete_tenant(self, tenant: str) -> TenantContents:
        return cast(TenantContents, await self._call("delete_tenant", tenant))

    async def check_documents(
        self,
        key: CollectionKey,
        versions: Sequence[tuple[str, str]],
        attributes: Attributes = (),
    ) -> Sequence[tuple[str, int]]:
        found = await self._call("check_documents", key, versions, attributes)
        return cast(Sequence[tuple[str, int]], found)

    async def get_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes = ()
    ) -> Document:
        return cast(Document, await self._call("get_document", key, document_id, attributes))

    async def list_documents(
        self, key: CollectionKey, after: str, limit: int, attributes: Attributes = ()
    ) -> Sequence[Document]:
        found = await self._call("list_documents", key, after, limit, attributes)
        return cast(Sequence[Document], found)

    async def list_chunks(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes = (),
    ) -> Sequence[StoredChunk]:
        found = await self._call("list_chunks", key, document_id, start, limit, attributes)
        return cast(Sequence[StoredChunk], found)

    async def read_document(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes = (),
    ) -> tuple[Document, Sequence[IndexedChunk]]:
        found = await self._call("read_document", key, document_id, start, limit, attributes)
        return cast(tuple[Document, Sequence[IndexedChunk]], found)

    async def delete_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes = ()
    ) -> int:
        return cast(int, await self._call("delete_document", key, document_id, attributes))

    async def stage(
        self,
        key: CollectionKey,
        documents: Sequence[tuple[str, Document]],
        chunks: Sequence[EncodedChunk],
        attributes: Attributes = (),
    ) -> None:
        await self._call("stage", key, documents, chunks, attributes)

    async def publish(
        self,
        key: CollectionKey,
        tokens: Sequence[str],
        removing: Sequence[tuple[str, str]] = (),
    ) -> Sequence[Published]:
        return cast(Sequence[Published], await self._call("publish", key, tokens, removing))

    async def search(self, key: CollectionKey, query: StoreQuery) -> Sequence[Candidate]:
        return cast(Sequence[Candidate], await self._call("search", key, query))

    async def term_weights(self, key: CollectionKey, terms: Sequence[int]) -> Sequence[float]:
        return cast(Sequence[float], await self._call("term_weights", key, terms))

    async def sample(self, key: CollectionKey, limit: int, seed: int) -> Sequence[IndexedChunk]:
        return cast(Sequence[IndexedChunk], await self._call("sample", key, limit, seed))

    async def scan(self, key: CollectionKey, after: int, limit: int) -> Sequence[IndexedChunk]:
        return cast(Sequence[IndexedChunk], await self._call("scan", key, after, limit))

    async def replace_sparse(
        self, key: CollectionKey, vectors: Sequence[tuple[int, SparseVector]]
    ) -> None:
        await self._call("replace_sparse", key, vectors)

    async def add_words(
        self, key: CollectionKey, terms: Sequence[tuple[int, FieldTerms]], *, last: bool
    ) -> None:
        await self._call("add_words", key, terms, last)

    async def set_profile(self, key: CollectionKey, generation: str, profile: str) -> None:
        await self._call("set_profile", key, generation, profile)


class InProcessStore(IndexStore):
    """An index in one thread of this process, for engines that need no process of their own."""

    def __init__(self, backend: str, open_index: Callable[[], Index]) -> None:
        """Args:
        backend: the back-end's name.
        open_index: called in the thread that does all the work.
        """
        self._backend = backend
        self._open_index = open_index
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=backend)
        self._index: Index | None = None
        self._tidying: asyncio.Task[None] | None = None

    @property
    def backend(self) -> str:
        return self._backend

    async def start(self) -> None:
        self._index = await self._run(self._open_index)
        self._tidying = asyncio.create_task(self._tidy(self._index), name="close-idle")

    async def _tidy(self, index: Index) -> None:
        """Close collections that nobody uses."""
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            await self._run(index.close_idle, IDLE_SECONDS)

    async def aclose(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        if self._index is not None:
            await self._run(self._index.close)
            self._index = None
        self._thread.shutdown()

    async def availability(self) -> AsyncIterator[bool]:
        await asyncio.Event().wait()  # it works as long as the process does
        yield True

    def discard(self, key: CollectionKey, tokens: Sequence[str]) -> None:
        if tokens and self._index is not None:
            self._thread.submit(self._index.discard, key, tokens)

    async def _call(self, method: str, *arguments: Any) -> Any:
        return await self._run(getattr(self._index, method), *arguments)

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        # Shielded: a caller that leaves must not end what others count on.
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        )
