"""Serves PostprocessService: protobuf to core and back."""

import asyncio
from typing import Any

from ragmesh.postprocess.v1 import postprocess_pb2 as pb
from ragmesh.postprocess.v1 import postprocess_pb2_grpc
from ragmesh.type.v1 import passage_pb2
from services.postprocess.core import process
from services.postprocess.ports import Answer, Citation, Draft, Format, Passage
from services.postprocess.settings import PostprocessSettings
from services.runtime.errors import InvalidArgument
from services.runtime.version import VERSION

_FORMATS = {
    pb.FORMAT_UNSPECIFIED: Format.MARKDOWN,
    pb.FORMAT_MARKDOWN: Format.MARKDOWN,
    pb.FORMAT_PLAIN: Format.PLAIN,
}
_THREAD_ABOVE = 20_000
"""Characters above which the work leaves the event loop: about 5 ms of it."""


class PostprocessServicer(postprocess_pb2_grpc.PostprocessServiceServicer):
    """A thin face on `process`."""

    def __init__(self, settings: PostprocessSettings) -> None:
        self._max_characters = settings.max_answer_characters

    async def ProcessAnswer(
        self, request: pb.ProcessAnswerRequest, context: Any
    ) -> pb.ProcessAnswerResponse:
        draft = _draft(request)
        size = len(draft.text) + sum(len(passage.text) for passage in draft.passages)
        if size > _THREAD_ABOVE:
            answer = await asyncio.to_thread(process, draft, self._max_characters)
        else:
            answer = process(draft, self._max_characters)
        return _response(answer)

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(version=VERSION, backends={"attribution": "lexical"})


def _draft(request: pb.ProcessAnswerRequest) -> Draft:
    wanted = _FORMATS.get(request.format)
    if wanted is None:
        raise InvalidArgument("FORMAT_UNKNOWN", "format is not known.", field="format")
    return Draft(
        request.text,
        tuple(
            Passage(
                p.marker,
                p.text,
                p.document_id,
                p.chunk_id,
                p.source,
                p.title,
                p.page if p.HasField("page") else None,
                p.heading,
            )
            for p in request.passages
        ),
        request.query,
        wanted,
        request.unanswered,
        tuple(tuple(row.support) for row in request.semantic_support),
    )


def _response(answer: Answer) -> pb.ProcessAnswerResponse:
    return pb.ProcessAnswerResponse(
        text=answer.text,
        citations=[_citation(citation) for citation in answer.citations],
        confidence=answer.confidence,
        sentences=[
            pb.Sentence(text=s.text, markers=s.markers, support=s.support) for s in answer.sentences
        ],
    )


def _citation(citation: Citation) -> passage_pb2.Citation:
    passage = citation.passage
    return passage_pb2.Citation(
        marker=passage.marker,
        document_id=passage.document_id,
        chunk_id=passage.chunk_id,
        source=passage.source,
        title=passage.title,
        page=passage.page,
        heading=passage.heading,
        quote=citation.quote,
        score=citation.score,
    )
