"""Protobuf to dataclasses and back; decides nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import grpc

from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from services.retrieve import messages, ports
from services.retrieve.core import DEFAULT_ENCODER_ALIAS, Retrieval, visible
from services.retrieve.exporting import export
from services.retrieve.indexing import Indexing, Staged
from services.retrieve.moving import move
from services.retrieve.reindexing import Reindexing
from services.retrieve.reranking import DEFAULT_RERANKER_ALIAS
from services.runtime.context import current_caller
from services.runtime.deadlines import time_remaining
from services.runtime.errors import InvalidArgument, RagmeshError
from services.runtime.limits import UPLOAD_FRAME_BYTES
from services.runtime.version import VERSION

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RetrieveService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]

_QUIET_SECONDS = 0.2
"""A caller that sends nothing for so long waits for an answer."""
_DRAIN_SECONDS = 10.0


def register(servicer: "RetrieveServicer", server: grpc.aio.Server) -> None:
    pb_grpc.add_RetrieveServiceServicer_to_server(servicer, server)


class RetrieveServicer(pb_grpc.RetrieveServiceServicer):
    """ragmesh.retrieve.v1.RetrieveService."""

    def __init__(self, retrieval: Retrieval, backends: Mapping[str, str]) -> None:
        self._retrieval = retrieval
        self._store = retrieval.store
        self._backends = backends

    @property
    def _running(self) -> ports.EncoderFacts:
        """The encoder's facts."""
        return self._retrieval.encoder.facts

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        caller = current_caller()
        found = await self._retrieval.search(
            caller.tenant,
            messages.search(request, caller.attributes),
            time_remaining(context),
        )
        return messages.search_response(found)

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        inputs = [
            list(one.tokens.ids) if one.WhichOneof("input") == "tokens" else one.text
            for one in request.inputs
        ]
        embedded = await self._retrieval.embed(
            inputs,
            model=request.model,
            query=request.input_type == pb.INPUT_TYPE_QUERY,
            dimensions=request.dimensions,
            tenant=current_caller().tenant,
        )
        return pb.EmbedResponse(
            embeddings=[pb.Embedding(values=row.tolist()) for row in embedded.vectors],
            model=embedded.model,
            tokens=embedded.tokens,
        )

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        ranked = await self._retrieval.rerank(
            request.query, request.documents, model=request.model, top_n=request.top_n
        )
        return pb.RerankResponse(
            results=[
                pb.RerankResult(index=index, relevance_score=score)
                for index, score in ranked.places
            ],
            model=ranked.model,
            tokens=ranked.tokens,
        )

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        matrix = await self._retrieval.score(request.sentences, request.passages)
        return pb.ScoreResponse(
            rows=[pb.ScoreRow(scores=row.tolist()) for row in matrix],
            model=self._retrieval.encoder.facts.name,
        )

    async def IndexDocuments(
        self, request_iterator: AsyncIterator[pb.IndexDocumentsRequest], context: Context
    ) -> AsyncIterator[pb.IndexDocumentsResponse]:
        frames = aiter(request_iterator)
        opening = await anext(frames, None)
        if opening is None or opening.WhichOneof("frame") != "header":
            raise InvalidArgument(
                "DOCUMENT_INVALID", "The stream opens with a header.", field="header"
            )
        caller, header = current_caller(), opening.header
        indexing = Indexing(
            self._retrieval,
            caller.tenant,
            _key(header.collection).name,
            caller.attributes,
            messages.origin(header.origin) if header.HasField("origin") else None,
            hold=header.hold,
        )
        try:
            async for outcome in indexing.run(messages.frames(frames)):
                if isinstance(outcome, Staged):
                    if header.progress:
                        progress = pb.IndexProgress(chunks=outcome.chunks)
                        yield pb.IndexDocumentsResponse(progress=progress)
                    continue
                yield pb.IndexDocumentsResponse(
                    id=outcome.id,
                    chunks=outcome.chunks,
                    status=messages.STATUSES[outcome.status],
                    embedded_chunks=indexing.embedded_chunks,
                )
        except RagmeshError:
            await _drain(frames)
            raise

    async def ExportDocuments(
        self, request: pb.ExportDocumentsRequest, context: Context
    ) -> AsyncIterator[pb.ExportDocumentsResponse]:
        caller = current_caller()
        exported = export(
            self._retrieval,
            caller.tenant,
            request.collection,
            after=request.after,
            generation=request.generation,
            attributes=caller.attributes,
        )
        async for frame in exported:
            yield messages.export_response(frame, self._running)

    async def CheckDocuments(
        self, request: pb.CheckDocumentsRequest, context: Context
    ) -> pb.CheckDocumentsResponse:
        versions = [(one.id, one.content_hash) for one in request.documents]
        found = await self._retrieval.check_documents(
            current_caller().tenant, request.collection, versions, current_caller().attributes
        )
        return pb.CheckDocumentsResponse(
            unchanged=[pb.UnchangedDocument(id=id_, chunks=chunks) for id_, chunks in found]
        )

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Context
    ) -> pb.GetDocumentResponse:
        document = await self._store.get_document(
            _key(request.collection), request.id, current_caller().attributes
        )
        return pb.GetDocumentResponse(document=messages.document(document))

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        documents, token = await self._retrieval.list_documents(
            current_caller().tenant,
            request.collection,
            request.page_size,
            request.page_token,
            current_caller().attributes,
        )
        return pb.ListDocumentsResponse(
            documents=[messages.document(one) for one in documents], next_page_token=token
        )

    async def ListChunks(
        self, request: pb.ListChunksRequest, context: Context
    ) -> pb.ListChunksResponse:
        chunks, token = await self._retrieval.list_chunks(
            current_caller().tenant,
            request.collection,
            request.document_id,
            request.page_size,
            request.page_token,
            attributes=current_caller().attributes,
        )
        return pb.ListChunksResponse(
            chunks=[messages.passage(one, 0.0) for one in chunks], next_page_token=token
        )

    async def MoveDocument(
        self, request: pb.MoveDocumentRequest, context: Context
    ) -> pb.MoveDocumentResponse:
        attributes = current_caller().attributes
        key = _key(request.collection)
        document = await move(self._retrieval, key, messages.move(request), attributes)
        return pb.MoveDocumentResponse(document=messages.document(document))

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        caller = current_caller()
        chunks = await self._retrieval.delete_document(
            caller.tenant, request.collection, request.id, caller.attributes
        )
        return pb.DeleteDocumentResponse(chunks=chunks)

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        overlap = request.chunk_overlap if request.HasField("chunk_overlap") else None
        collection = await self._retrieval.create_collection(
            current_caller().tenant,
            request.name,
            description=request.description,
            chunk_tokens=request.chunk_tokens,
            chunk_overlap=overlap,
        )
        return pb.CreateCollectionResponse(
            collection=messages.collection(collection, self._running)
        )

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: Context
    ) -> pb.GetCollectionResponse:
        collection = await self._store.get_collection(
            _key(request.name), current_caller().attributes
        )
        return pb.GetCollectionResponse(collection=messages.collection(collection, self._running))

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: Context
    ) -> pb.ListCollectionsResponse:
        collections, token = await self._retrieval.list_collections(
            current_caller().tenant,
            request.page_size,
            request.page_token,
            current_caller().attributes,
        )
        return pb.ListCollectionsResponse(
            collections=[messages.collection(one, self._running) for one in collections],
            next_page_token=token,
        )

    async def ReindexCollection(
        self, request: pb.ReindexCollectionRequest, context: Context
    ) -> AsyncIterator[pb.ReindexCollectionResponse]:
        caller = current_caller()
        reindexing = Reindexing(
            self._retrieval,
            caller.tenant,
            request.name,
            force=request.force,
            attributes=caller.attributes,
        )
        async for progress in reindexing.run():
            yield messages.progress(progress, self._running)

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        caller = current_caller()
        documents = await self._retrieval.delete_collection(
            caller.tenant, request.name, caller.attributes
        )
        return pb.DeleteCollectionResponse(documents=documents)

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: Context
    ) -> pb.DeleteTenantResponse:
        tenant = current_caller().tenant
        removed = await self._store.delete_tenant(tenant)
        # Asked for anew: the answer is what is there, not what the deletion believes.
        left = await self._store.tenant_contents(tenant)
        return pb.DeleteTenantResponse(
            removed=messages.contents(removed), left=messages.contents(left)
        )

    async def GetTenantContents(
        self, request: pb.GetTenantContentsRequest, context: Context
    ) -> pb.GetTenantContentsResponse:
        contents = await self._store.tenant_contents(current_caller().tenant)
        return pb.GetTenantContentsResponse(contents=messages.contents(contents))

    async def GetTokenizer(
        self, request: pb.GetTokenizerRequest, context: Context
    ) -> AsyncIterator[pb.GetTokenizerResponse]:
        data = await self._retrieval.tokenizer(request.tokenizer_id)
        for start in range(0, len(data), UPLOAD_FRAME_BYTES):
            yield pb.GetTokenizerResponse(data=data[start : start + UPLOAD_FRAME_BYTES])

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        facts = self._retrieval.encoder.facts
        model = pb.Model(
            id=facts.name,
            aliases=[DEFAULT_ENCODER_ALIAS, facts.id],
            kind=pb.MODEL_KIND_ENCODER,
            dimensions=facts.dimensions,
            max_tokens=facts.max_tokens,
            languages=facts.languages,
            owned_by=facts.owned_by,
        )
        if self._retrieval.reranking is None:
            return pb.ListModelsResponse(models=[model])
        reranker = self._retrieval.reranking.reranker.facts
        also = pb.Model(
            id=reranker.name,
            aliases=[
                DEFAULT_RERANKER_ALIAS,
                *([reranker.id] if reranker.id != reranker.name else []),
            ],
            kind=pb.MODEL_KIND_RERANKER,
            max_tokens=reranker.max_tokens,
            languages=reranker.languages,
            owned_by=reranker.owned_by,
        )
        return pb.ListModelsResponse(models=[model, also])

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        backends = dict(self._backends)
        if chosen := self._retrieval.encoder.backend:
            backends["embedding_backend"] = chosen
        return pb.GetServerInfoResponse(version=VERSION, backends=backends)


def _key(collection: str) -> ports.CollectionKey:
    return visible(current_caller().tenant, collection)


async def _drain(requests: AsyncIterator[pb.IndexDocumentsRequest]) -> None:
    """Read what a caller is still sending, before its stream is refused.

    A grpc.aio client whose write meets a call that has ended reports INTERNAL instead of the
    status that ended it.
    """
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while True:
                await asyncio.wait_for(anext(requests), _QUIET_SECONDS)
