"""Protobuf to dataclasses and back; decides nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ragmesh.retrieve.v1 import filter_pb2
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from ragmesh.type.v1 import passage_pb2
from services.retrieve import ports, searches
from services.retrieve.core import (
    DEFAULT_ENCODER_ALIAS,
    Retrieval,
    reranker_not_configured,
)
from services.retrieve.indexing import Frame, Indexing
from services.retrieve.profiles import Profile, parse
from services.runtime.context import current_caller
from services.runtime.errors import InvalidArgument, RagmeshError
from services.runtime.limits import UPLOAD_FRAME_BYTES
from services.runtime.version import VERSION

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RetrieveService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]

_QUIET_SECONDS = 0.2
"""A caller that sends nothing for so long waits for an answer."""
_DRAIN_SECONDS = 10.0

_MODES = {
    pb.SEARCH_MODE_UNSPECIFIED: "hybrid",
    pb.SEARCH_MODE_HYBRID: "hybrid",
    pb.SEARCH_MODE_DENSE: "dense",
    pb.SEARCH_MODE_SPARSE: "sparse",
}
_STATUSES = {
    ports.PublishStatus.INDEXED.value: pb.INDEX_STATUS_INDEXED,
    ports.PublishStatus.REPLACED.value: pb.INDEX_STATUS_REPLACED,
    ports.PublishStatus.UNCHANGED.value: pb.INDEX_STATUS_UNCHANGED,
}


def register(servicer: "RetrieveServicer", server: grpc.aio.Server) -> None:
    pb_grpc.add_RetrieveServiceServicer_to_server(servicer, server)


class RetrieveServicer(pb_grpc.RetrieveServiceServicer):
    """ragmesh.retrieve.v1.RetrieveService."""

    def __init__(self, retrieval: Retrieval, backends: Mapping[str, str]) -> None:
        self._retrieval = retrieval
        self._store = retrieval.store
        self._backends = backends

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        caller = current_caller()
        found = await self._retrieval.search(
            caller.tenant,
            searches.Search(
                collection=request.collection,
                query=request.query,
                language=request.language,
                mode=_MODES.get(request.mode, "hybrid"),
                top_k=request.top_k,
                filter=_filter(request.filter) if request.HasField("filter") else None,
                rerank=request.rerank,
                weights=(
                    ports.ArmWeights(request.weights.dense, request.weights.sparse)
                    if request.HasField("weights")
                    else None
                ),
                attributes=caller.attributes,
                queries=request.queries,
                diversity=request.diversity,
                by_document=request.group_by == pb.GROUP_BY_DOCUMENT,
                group_size=request.group_size,
                min_score=request.min_score if request.HasField("min_score") else None,
                relevant_only=request.relevant_only,
                highlights=request.highlights,
                neighbors=request.neighbors,
                explain=request.explain,
            ),
        )
        return _search_response(found)

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
        )
        return pb.EmbedResponse(
            embeddings=[pb.Embedding(values=row.tolist()) for row in embedded.vectors],
            model=embedded.model,
            tokens=embedded.tokens,
        )

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        raise reranker_not_configured("model")

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
        caller = current_caller()
        indexing = Indexing(
            self._retrieval, caller.tenant, opening.header.collection, caller.attributes
        )
        try:
            async for outcome in indexing.run(_frames(frames)):
                yield pb.IndexDocumentsResponse(
                    id=outcome.id, chunks=outcome.chunks, status=_STATUSES[outcome.status]
                )
        except RagmeshError:
            await _drain(frames)
            raise

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
        return pb.GetDocumentResponse(document=_document(document))

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
            documents=[_document(one) for one in documents], next_page_token=token
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
            chunks=[_passage(one, 0.0) for one in chunks], next_page_token=token
        )

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        chunks = await self._store.delete_document(
            _key(request.collection), request.id, current_caller().attributes
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
        return pb.CreateCollectionResponse(collection=self._collection(collection))

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: Context
    ) -> pb.GetCollectionResponse:
        collection = await self._store.get_collection(
            _key(request.name), current_caller().attributes
        )
        return pb.GetCollectionResponse(collection=self._collection(collection))

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
            collections=[self._collection(one) for one in collections], next_page_token=token
        )

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        documents = await self._store.delete_collection(
            _key(request.name), current_caller().attributes
        )
        return pb.DeleteCollectionResponse(documents=documents)

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: Context
    ) -> pb.DeleteTenantResponse:
        tenant = current_caller().tenant
        removed = await self._store.delete_tenant(tenant)
        # Asked for anew: the answer is what is there, not what the deletion believes.
        left = await self._store.tenant_contents(tenant)
        return pb.DeleteTenantResponse(removed=_contents(removed), left=_contents(left))

    async def GetTenantContents(
        self, request: pb.GetTenantContentsRequest, context: Context
    ) -> pb.GetTenantContentsResponse:
        contents = await self._store.tenant_contents(current_caller().tenant)
        return pb.GetTenantContentsResponse(contents=_contents(contents))

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
        return pb.ListModelsResponse(models=[model])

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(version=VERSION, backends=dict(self._backends))

    def _collection(self, collection: ports.Collection) -> pb.Collection:
        return pb.Collection(
            name=collection.name,
            description=collection.description,
            encoder=collection.encoder,
            dimensions=collection.dimensions,
            analyzer=collection.analyzer,
            tokenizer_id=collection.tokenizer_id,
            chunk_tokens=collection.chunk_tokens,
            chunk_overlap=collection.chunk_overlap,
            documents=collection.documents,
            chunks=collection.chunks,
            created_at=_timestamp(collection.created_at),
            encoder_languages=self._retrieval.encoder.facts.languages,
            calibration=_calibration(parse(collection.profile)),
        )


def _calibration(profile: Profile) -> pb.Calibration | None:
    if not profile.chunks:
        return None
    return pb.Calibration(
        chunks=profile.chunks,
        measured_at=_timestamp(profile.at),
        seconds=profile.seconds,
        languages=[
            pb.LanguageCalibration(
                language=language,
                weights=_weights(one.weights),
                questions=one.questions,
                dense=one.dense,
                sparse=one.sparse,
                hybrid=one.hybrid,
                agreement=one.agreement,
                unknown=one.unknown,
            )
            for language, one in sorted(profile.languages.items())
        ],
    )


def _key(collection: str) -> ports.CollectionKey:
    return ports.CollectionKey(current_caller().tenant, collection)


async def _drain(requests: AsyncIterator[pb.IndexDocumentsRequest]) -> None:
    """Read what a caller is still sending, before its stream is refused.

    A grpc.aio client whose write meets a call that has ended reports INTERNAL instead of the
    status that ended it.
    """
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while True:
                await asyncio.wait_for(anext(requests), _QUIET_SECONDS)


async def _frames(requests: AsyncIterator[pb.IndexDocumentsRequest]) -> AsyncIterator[Frame]:
    async for request in requests:
        kind = request.WhichOneof("frame")
        if kind == "document":
            one = request.document
            yield ports.Document(
                id=one.id,
                title=one.title,
                source=one.source,
                metadata_json=_struct_to_json(one.metadata),
                content_hash=one.content_hash,
                format=one.format,
                language=one.language,
                pages=one.pages,
                chunks=one.chunk_count,
                bytes=one.bytes,
                # Sorted: lists that say the same are the same.
                access=tuple(sorted(set(one.access))),
            )
        elif kind == "chunks":
            yield [
                ports.Chunk(
                    index=chunk.index,
                    text=chunk.text,
                    normalized_text=chunk.normalized_text,
                    heading=chunk.heading,
                    page=chunk.page if chunk.HasField("page") else None,
                    language=chunk.language,
                )
                for chunk in request.chunks.chunks
            ]
        else:
            raise InvalidArgument(
                "DOCUMENT_INVALID", "After the header come documents and chunks.", field="frame"
            )


def _struct_to_json(struct: struct_pb2.Struct) -> str:
    return json_format.MessageToJson(struct, indent=None, ensure_ascii=False)


def _json_to_struct(text: str) -> struct_pb2.Struct | None:
    """None, that is an unset field, for no metadata: parsing it a thousand times adds up."""
    return None if text in ("", "{}") else json_format.Parse(text, struct_pb2.Struct())


def _filter(message: filter_pb2.Filter) -> ports.Filter:
    return ports.Filter(
        must=tuple(_condition(one) for one in message.must),
        must_not=tuple(_condition(one) for one in message.must_not),
        should=tuple(_condition(one) for one in message.should),
    )


def _condition(message: filter_pb2.Condition) -> ports.Condition:
    kind = message.WhichOneof("test")
    if kind == "equals":
        return ports.Condition(message.field, equals=_scalar(message.equals, message.field))
    if kind == "any_of":
        values = tuple(_scalar(one, message.field) for one in message.any_of.values)
        return ports.Condition(message.field, any_of=values)
    if kind == "range":
        return ports.Condition(message.field, range=ports.Bounds(**_bounds(message.range)))
    if kind == "datetime_range":
        times = ports.TimeBounds(**_bounds(message.datetime_range))
        return ports.Condition(message.field, datetime_range=times)
    if kind == "group":
        return ports.Condition(message.field, group=_filter(message.group))
    return ports.Condition(message.field)


def _bounds(message: filter_pb2.NumberRange | filter_pb2.DatetimeRange) -> dict[str, Any]:
    return {
        name: getattr(message, name)
        for name in ("gt", "gte", "lt", "lte")
        if message.HasField(name)
    }


def _scalar(value: struct_pb2.Value, field: str) -> ports.Scalar:
    kind = value.WhichOneof("kind")
    if kind in ("string_value", "number_value", "bool_value"):
        scalar: ports.Scalar = getattr(value, kind)
        return scalar
    raise InvalidArgument(
        "FILTER_INVALID",
        f"The field {field[:100]!r} is compared with strings, numbers and booleans.",
        field="filter",
    )


def _search_response(found: searches.Found) -> pb.SearchResponse:
    response = pb.SearchResponse(
        hits=[_hit(one) for one in found.hits], weights=_weights(found.weights)
    )
    if found.reasons:
        response.explanation.candidates = found.candidates
        response.explanation.queries.extend(
            pb.QueryExplanation(
                query=one.query,
                language=one.language,
                weights=_weights(one.weights),
                dense_left_out=one.dense_left_out,
                sparse_left_out=one.sparse_left_out,
            )
            for one in found.reasons
        )
    return response


def _weights(weights: ports.ArmWeights) -> pb.ArmWeights:
    return pb.ArmWeights(dense=weights.dense, sparse=weights.sparse)


def _hit(hit: searches.Hit) -> pb.Hit:
    candidate = hit.candidate
    made = pb.Hit(
        passage=_passage(candidate.chunk, candidate.score),
        dense_rank=candidate.dense_rank,
        sparse_rank=candidate.sparse_rank,
        dense_score=candidate.dense_score,
        sparse_score=candidate.sparse_score,
        before=[_passage(one, 0.0) for one in hit.before],
        after=[_passage(one, 0.0) for one in hit.after],
    )
    if hit.highlights is not None:
        made.highlights.SetInParent()
        made.highlights.terms.extend(_spans(hit.highlights.terms))
        made.highlights.sentences.extend(_spans(hit.highlights.sentences))
    if hit.reasons is not None:
        made.explanation.matched_terms.extend(hit.reasons.matched_terms)
        made.explanation.coverage = hit.reasons.coverage
        made.explanation.query_ranks.extend(
            pb.QueryRank(rank=rank) for rank in hit.reasons.query_ranks
        )
    return made


def _spans(spans: Iterable[searches.Span]) -> list[pb.TextSpan]:
    return [pb.TextSpan(start=one.start, end=one.end) for one in spans]


def _passage(chunk: ports.StoredChunk, score: float) -> passage_pb2.Passage:
    return passage_pb2.Passage(
        document_id=chunk.document_id,
        chunk_id=chunk.chunk_id,
        text=chunk.text,
        source=chunk.source,
        title=chunk.title,
        page=chunk.page,
        heading=chunk.heading,
        metadata=_json_to_struct(chunk.metadata_json),
        language=chunk.language,
        score=score,
    )


def _document(document: ports.Document) -> pb.Document:
    return pb.Document(
        id=document.id,
        title=document.title,
        source=document.source,
        metadata=_json_to_struct(document.metadata_json),
        content_hash=document.content_hash,
        format=document.format,
        language=document.language,
        pages=document.pages,
        chunks=document.chunks,
        bytes=document.bytes,
        created_at=_timestamp(document.created_at),
        updated_at=_timestamp(document.updated_at),
        access=document.access,
    )


def _contents(contents: ports.TenantContents) -> pb.TenantContents:
    return pb.TenantContents(
        collections=contents.collections,
        documents=contents.documents,
        chunks=contents.chunks,
        folders=contents.folders,
    )


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
