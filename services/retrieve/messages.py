"""The service's messages as the dataclasses of `ports` and `searches`, and back."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ragmesh.retrieve.v1 import filter_pb2
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.type.v1 import passage_pb2
from services.retrieve import ports, searches
from services.retrieve.exporting import Exported
from services.retrieve.indexing import DocumentFrame, End, Frame, Origin, VectoredChunk
from services.retrieve.moving import Move
from services.retrieve.profiles import Profile, parse
from services.retrieve.reindexing import Progress
from services.runtime.errors import InvalidArgument

_MODES = {
    pb.SEARCH_MODE_UNSPECIFIED: "hybrid",
    pb.SEARCH_MODE_HYBRID: "hybrid",
    pb.SEARCH_MODE_DENSE: "dense",
    pb.SEARCH_MODE_SPARSE: "sparse",
}
STATUSES = {
    ports.PublishStatus.INDEXED.value: pb.INDEX_STATUS_INDEXED,
    ports.PublishStatus.REPLACED.value: pb.INDEX_STATUS_REPLACED,
    ports.PublishStatus.UNCHANGED.value: pb.INDEX_STATUS_UNCHANGED,
}
_RERANK_STATUSES = {
    searches.RerankStatus.APPLIED: pb.RERANK_STATUS_APPLIED,
    searches.RerankStatus.TIMED_OUT: pb.RERANK_STATUS_TIMED_OUT,
    searches.RerankStatus.FAILED: pb.RERANK_STATUS_FAILED,
    searches.RerankStatus.SKIPPED: pb.RERANK_STATUS_SKIPPED,
}


def search(request: pb.SearchRequest, attributes: ports.Attributes) -> searches.Search:
    return searches.Search(
        collection=request.collection,
        query=request.query,
        language=request.language,
        mode=_MODES.get(request.mode, "hybrid"),
        top_k=request.top_k,
        filter=_filter(request.filter) if request.HasField("filter") else None,
        rerank=request.rerank,
        rerank_depth=request.rerank_depth,
        weights=(
            ports.ArmWeights(request.weights.dense, request.weights.sparse)
            if request.HasField("weights")
            else None
        ),
        attributes=attributes,
        queries=request.queries,
        diversity=request.diversity,
        by_document=request.group_by == pb.GROUP_BY_DOCUMENT,
        group_size=request.group_size,
        min_score=request.min_score if request.HasField("min_score") else None,
        relevant_only=request.relevant_only,
        highlights=request.highlights,
        neighbors=request.neighbors,
        explain=request.explain,
    )


def collection(collection: ports.Collection, running: ports.EncoderFacts) -> pb.Collection:
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
        encoder_languages=running.as_in(collection).languages,
        encoder_normalizes=collection.encoder_normalizes,
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


async def frames(requests: AsyncIterator[pb.IndexDocumentsRequest]) -> AsyncIterator[Frame]:
    async for request in requests:
        kind = request.WhichOneof("frame")
        if kind == "end":
            yield End()
        elif kind == "document":
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
                created_at=_seconds(one.created_at),
                updated_at=_seconds(one.updated_at),
            )
        elif kind == "chunks":
            yield [
                VectoredChunk(
                    ports.Chunk(
                        index=chunk.index,
                        text=chunk.text,
                        normalized_text=chunk.normalized_text,
                        heading=chunk.heading,
                        page=chunk.page if chunk.HasField("page") else None,
                        language=chunk.language,
                    ),
                    chunk.vector,
                )
                for chunk in request.chunks.chunks
            ]
        else:
            raise InvalidArgument(
                "DOCUMENT_INVALID", "After the header come documents and chunks.", field="frame"
            )


def origin(message: pb.IndexOrigin) -> Origin:
    return Origin(message.encoder, message.analyzer, message.profile)


def move(request: pb.MoveDocumentRequest) -> Move:
    return Move(
        id=request.id,
        new_id=request.new_id or None,
        title=request.title if request.HasField("title") else None,
        source=request.source if request.HasField("source") else None,
        metadata_json=_struct_to_json(request.metadata) if request.HasField("metadata") else None,
        replace=request.replace,
    )


def export_response(
    frame: Exported | DocumentFrame, running: ports.EncoderFacts
) -> pb.ExportDocumentsResponse:
    if isinstance(frame, Exported):
        header = pb.ExportHeader(
            collection=collection(frame.collection, running),
            generation=frame.collection.generation,
            profile=frame.collection.profile,
            everything=frame.everything,
        )
        return pb.ExportDocumentsResponse(header=header)
    if isinstance(frame, ports.Document):
        facts = pb.IndexDocument(
            id=frame.id,
            title=frame.title,
            source=frame.source,
            metadata=_json_to_struct(frame.metadata_json),
            content_hash=frame.content_hash,
            format=frame.format,
            language=frame.language,
            pages=frame.pages,
            chunk_count=frame.chunks,
            bytes=frame.bytes,
            access=frame.access,
            created_at=_timestamp(frame.created_at),
            updated_at=_timestamp(frame.updated_at),
        )
        return pb.ExportDocumentsResponse(document=facts)
    response = pb.ExportDocumentsResponse()
    response.chunks.SetInParent()
    for one in frame:
        chunk, dense = (one, b"") if isinstance(one, ports.Chunk) else (one.chunk, one.dense)
        response.chunks.chunks.add(
            index=chunk.index,
            text=chunk.text,
            normalized_text=chunk.normalized_text,
            heading=chunk.heading,
            page=chunk.page,
            language=chunk.language,
            vector=dense,
        )
    return response


def progress(progress: Progress, running: ports.EncoderFacts) -> pb.ReindexCollectionResponse:
    made = progress.collection
    return pb.ReindexCollectionResponse(
        documents=progress.documents,
        total_documents=progress.total,
        embedded_chunks=progress.embedded,
        full_chunks=progress.full,
        collection=collection(made, running) if made else None,
        reindexed=progress.reindexed,
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


def search_response(found: searches.Found) -> pb.SearchResponse:
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
    if found.rerank is not None:
        response.rerank.status = _RERANK_STATUSES[found.rerank.status]
        response.rerank.model = found.rerank.model
        response.rerank.reason = found.rerank.reason
        response.rerank.candidates = found.rerank.candidates
        response.rerank.seconds = found.rerank.seconds
    return response


def _weights(weights: ports.ArmWeights) -> pb.ArmWeights:
    return pb.ArmWeights(dense=weights.dense, sparse=weights.sparse)


def _hit(hit: searches.Hit) -> pb.Hit:
    candidate = hit.candidate
    made = pb.Hit(
        passage=passage(candidate.chunk, candidate.score),
        dense_rank=candidate.dense_rank,
        sparse_rank=candidate.sparse_rank,
        dense_score=candidate.dense_score,
        sparse_score=candidate.sparse_score,
        rerank_score=hit.rerank_score,
        before=[passage(one, 0.0) for one in hit.before],
        after=[passage(one, 0.0) for one in hit.after],
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


def passage(chunk: ports.StoredChunk, score: float) -> passage_pb2.Passage:
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


def document(document: ports.Document) -> pb.Document:
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


def contents(contents: ports.TenantContents) -> pb.TenantContents:
    return pb.TenantContents(
        collections=contents.collections,
        documents=contents.documents,
        chunks=contents.chunks,
        folders=contents.folders,
    )


def _seconds(timestamp: Timestamp) -> float:
    """0 for one that is not set."""
    return timestamp.seconds + timestamp.nanos / 1e9


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
