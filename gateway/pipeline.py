"""The one conductor: which service is asked what, in which order, within which time.

A question goes preprocess (plan) → retrieve (search) → infer (answer from numbered passages) →
postprocess (citations, confidence). Each hop gets what is left of the request's budget. A failed
hop fails the request, with two exceptions: a rewrite that no model makes in time falls back to
the rules' own query, and a turn that the store cannot keep is logged. Cancelling the caller's
task, or closing a generator, cancels the RPC that is running.

The routes and RagService are two faces on this module; both speak the messages of the protos.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway import clients
from gateway.audit import AuditLog
from gateway.clients import Mesh
from gateway.exchange import Call
from gateway.ingest import Ingest, Meter, Upload
from gateway.limits.generation import (
    embed_within_limits,
    generate_within_limits,
    rerank_within_limits,
)
from gateway.limits.limiter import Limiter
from gateway.settings import MIB, SERVICES, GatewaySettings
from gateway.store.sessions import SessionStore
from gateway.usage import UsageMeter
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2
from ragmesh.postprocess.v1 import postprocess_pb2
from ragmesh.preprocess.v1 import preprocess_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import chat_pb2, passage_pb2
from services.runtime.errors import InvalidArgument, RagmeshError

log = logging.getLogger(__name__)

ANSWER_TOP_K = 5
MAX_ANSWER_TOP_K = 100
SEARCH_TOP_K = 10
MAX_SEARCH_TOP_K = 1000
MAX_QUERIES = 8
MAX_PAGE = 1000
DEFAULT_MODEL = "default"
DEFAULT_EMBEDDING = "default-embedding"
DEFAULT_RERANKER = "default-reranker"
"""What a request means that names no model."""
MAX_RERANK_BYTES = 3 * MIB
"""Of the documents of a call together: a message between services has at most 4 MiB."""

Events = AsyncGenerator[infer_pb2.GenerateResponse, None]


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """What one service says about itself."""

    available: bool
    version: str | None
    backends: dict[str, str]
    """Back-ends by role, such as `vector_backend`."""


class Pipeline:
    """Conducts the services for one request at a time; holds no state of a request."""

    def __init__(
        self,
        mesh: Mesh,
        sessions: SessionStore,
        settings: GatewaySettings,
        limiter: Limiter,
        *,
        usage: UsageMeter,
        audit: AuditLog,
    ) -> None:
        self._mesh = mesh
        self._limiter = limiter
        self._usage = usage
        self._audit = audit
        self._ingest = Ingest(mesh, parallel=settings.parallel_documents)
        self._sessions = sessions
        self._settings = settings

    # questions

    async def query(
        self, call: Call, request: gateway_pb2.QueryRequest
    ) -> gateway_pb2.QueryResponse:
        """Answer a question from a collection, in one piece."""
        answer = gateway_pb2.QueryResponse()
        async with aclosing(self.stream_query(call, request, stream=False)) as events:
            async for event in events:
                if event.HasField("done"):
                    answer = event.done
        return answer

    async def stream_query(
        self, call: Call, request: gateway_pb2.QueryRequest, *, stream: bool = True
    ) -> AsyncGenerator[gateway_pb2.StreamQueryResponse, None]:
        """Sources, deltas, done. Nothing is yielded before the engine's first piece of text, so
        that whatever fails until then fails as a whole."""
        event = gateway_pb2.StreamQueryResponse
        call.principal.require_model(request.model or DEFAULT_MODEL)
        retrieval = _checked(request.retrieval)
        history = await self._history(call, request.session_id)
        plan = await self._plan(call, request.query, history, request.model)
        found = await self._search(call, _search_request(plan, retrieval, ANSWER_TOP_K))
        passages, reranked = _numbered(found), _reranking(found)
        sources = gateway_pb2.Sources(passages=passages, rerank=reranked)
        generate = infer_pb2.GenerateRequest(
            model=request.model,
            task=infer_pb2.TASK_ANSWER,
            messages=[*history, text_message(chat_pb2.ROLE_USER, plan.query)],
            passages=passages,
            language=plan.language,
            sampling=request.sampling,
            stream=stream,
        )
        pieces: list[str] = []
        model, usage, unanswered = request.model, chat_pb2.Usage(), not passages
        async with aclosing(self._engine(call, generate)) as generated:
            announced = False
            async for response in generated:
                match response.WhichOneof("event"):
                    case "started":
                        model = response.started.model
                    case "delta":
                        if not response.delta.text:
                            continue
                        if not announced:
                            announced = True
                            yield event(sources=sources)
                        pieces.append(response.delta.text)
                        yield event(delta=response.delta.text)
                    case "finish":
                        unanswered = unanswered or response.finish.unanswered
                    case "usage":
                        usage = response.usage
                    case _:
                        pass
            if not announced:
                yield event(sources=sources)
        processed = await self._process(call, "".join(pieces), passages, plan.query, unanswered)
        await self._remember(call, request.session_id, request.query, processed.text)
        yield event(
            done=gateway_pb2.QueryResponse(
                answer=processed.text,
                citations=processed.citations,
                confidence=processed.confidence,
                model=model,
                usage=usage,
                timings=call.spent(),
                rerank=reranked,
            )
        )

    async def search(
        self, call: Call, request: gateway_pb2.SearchRequest
    ) -> retrieve_pb2.SearchResponse:
        """The hits of a query, or of several together."""
        retrieval = _checked(request.retrieval, MAX_SEARCH_TOP_K)
        asked = _queries(request)
        plans = await asyncio.gather(*(self._plan(call, one, (), "") for one in asked))
        search = _search_request(plans[0], retrieval, SEARCH_TOP_K)
        if request.queries:
            search.ClearField("query")
            search.ClearField("language")  # each query has its own
            search.queries.extend(plan.normalized_query for plan in plans)
        search.highlights = request.highlights
        search.neighbors = request.neighbors
        search.explain = request.explain
        return await self._search(call, search)

    # generation

    async def chat(
        self,
        call: Call,
        chat: gateway_pb2.ChatRequest,
    ) -> AsyncGenerator[gateway_pb2.ChatResponse, None]:
        """Continue a chat; with `retrieval` answer its last user message from a collection.

        With retrieval the citations come between the last delta and the finish.
        """
        event = gateway_pb2.ChatResponse
        call.principal.require_model(chat.generate.model or DEFAULT_MODEL)
        request = infer_pb2.GenerateRequest()
        request.CopyFrom(chat.generate)
        request.task = infer_pb2.TASK_CHAT
        request.ClearField("passages")
        past = await self._history(call, chat.session_id)
        if past:
            insert_history(request, past)
        rag = chat.HasField("retrieval")
        passages: list[passage_pb2.Passage] = []
        reranked: retrieve_pb2.Reranking | None = None
        question = ""
        if rag:
            if request.n > 1:
                raise InvalidArgument(
                    "PARAMETER_UNSUPPORTED", "A chat with retrieval has one choice.", field="n"
                )
            asked, history = split_question(request.messages)
            plan = await self._plan(call, asked, history, request.model)
            question = plan.query
            search = _search_request(plan, _checked(chat.retrieval), ANSWER_TOP_K)
            found = await self._search(call, search)
            passages, reranked = _numbered(found), _reranking(found)
            request.task = infer_pb2.TASK_ANSWER
            request.language = request.language or plan.language
            request.passages.extend(passages)
        pieces: list[str] = []
        keep = rag or bool(chat.session_id)
        async with aclosing(self.generate(call, request)) as generated:
            async for response in generated:
                match response.WhichOneof("event"):
                    case "delta" if keep and response.delta.index == 0:
                        pieces.append(response.delta.text)
                    case "finish" if (
                        rag and response.finish.reason != infer_pb2.FINISH_REASON_TOOL_CALLS
                    ):
                        unanswered = response.finish.unanswered or not passages
                        processed = await self._process(
                            call, "".join(pieces), passages, question, unanswered
                        )
                        pieces = [processed.text]
                        cited = gateway_pb2.Citations(
                            citations=processed.citations,
                            text=processed.text,
                            confidence=processed.confidence,
                            rerank=reranked,
                        )
                        yield event(citations=cited)
                    case _:
                        pass
                yield event(generated=response)
        if chat.session_id and any(pieces):
            asked, _ = split_question(chat.generate.messages)
            await self._remember(call, chat.session_id, asked, "".join(pieces))

    async def generate(self, call: Call, request: infer_pb2.GenerateRequest) -> Events:
        """The events of a generation; the first is held back until there is text, a tool call or
        an end, so that whatever fails until then fails as a whole."""
        call.principal.require_model(request.model or DEFAULT_MODEL)
        held: list[infer_pb2.GenerateResponse] | None = []
        async with aclosing(self._engine(call, request)) as generated:
            async for response in generated:
                if held is None:
                    yield response
                    continue
                held.append(response)
                if _is_substance(response):
                    for early in held:
                        yield early
                    held = None
        for early in held or ():
            yield early

    # documents

    async def ingest(
        self, call: Call, collection: str, uploads: Sequence[Upload]
    ) -> list[gateway_pb2.IngestResult]:
        """Make documents durable and searchable; results in the order of the uploads.

        Raises:
            RagmeshError: one document was refused, and is named; nothing was indexed then.
        """
        return await self._ingest.run(call, collection, uploads)

    def watch_ingest(
        self, call: Call, collection: str, uploads: Sequence[Upload]
    ) -> AsyncGenerator[Meter | list[gateway_pb2.IngestResult], None]:
        """As `ingest`, telling on the way how far it is; the results come last."""
        return self._ingest.watch(call, collection, uploads)

    async def embed(
        self, call: Call, request: retrieve_pb2.EmbedRequest
    ) -> retrieve_pb2.EmbedResponse:
        call.principal.require_model(request.model or DEFAULT_EMBEDDING)
        made = await embed_within_limits(
            self._limiter, call, request, lambda asked: clients.embed(call, self._mesh, asked)
        )
        self._usage.embedding(call, made)
        return made

    async def rerank(
        self, call: Call, request: retrieve_pb2.RerankRequest
    ) -> retrieve_pb2.RerankResponse:
        """Documents by their relevance to a query.

        Raises:
            InvalidArgument: INPUT_TOO_LONG.
        """
        call.principal.require_model(request.model or DEFAULT_RERANKER)
        if sum(len(one.encode()) for one in request.documents) > MAX_RERANK_BYTES:
            raise InvalidArgument(
                "INPUT_TOO_LONG",
                f"The documents have at most {MAX_RERANK_BYTES} bytes together.",
                field="documents",
            )
        made = await rerank_within_limits(
            self._limiter, call, request, lambda asked: clients.rerank(call, self._mesh, asked)
        )
        self._usage.reranking(call, request, made)
        return made

    async def document_text(self, call: Call, collection: str, document_id: str) -> str:
        """The text of an indexed document, its chunks joined.

        Raises:
            NotFound: COLLECTION_NOT_FOUND, DOCUMENT_NOT_FOUND.
        """
        texts: list[str] = []
        token = ""
        while True:
            page = await self.list_chunks(call, collection, document_id, MAX_PAGE, token)
            texts += [chunk.text for chunk in page.chunks]
            token = page.next_page_token
            if not token:
                return "\n\n".join(texts)

    # collections and documents: one hop each, so the services' own messages pass through

    async def create_collection(
        self, call: Call, request: retrieve_pb2.CreateCollectionRequest
    ) -> retrieve_pb2.Collection:
        async with self._audit.recording(call, "collection.create", request.name):
            return (await clients.create_collection(call, self._mesh, request)).collection

    async def get_collection(self, call: Call, name: str) -> retrieve_pb2.Collection:
        request = retrieve_pb2.GetCollectionRequest(name=name)
        return (await clients.get_collection(call, self._mesh, request)).collection

    async def list_collections(
        self, call: Call, limit: int, after: str
    ) -> retrieve_pb2.ListCollectionsResponse:
        request = retrieve_pb2.ListCollectionsRequest(page_size=limit, page_token=after)
        return await clients.list_collections(call, self._mesh, request)

    async def delete_collection(self, call: Call, name: str) -> int:
        """Returns how many documents went with it."""
        request = retrieve_pb2.DeleteCollectionRequest(name=name)
        async with self._audit.recording(call, "collection.delete", name):
            return (await clients.delete_collection(call, self._mesh, request)).documents

    async def get_document(self, call: Call, collection: str, id: str) -> retrieve_pb2.Document:
        request = retrieve_pb2.GetDocumentRequest(collection=collection, id=id)
        return (await clients.get_document(call, self._mesh, request)).document

    async def list_documents(
        self, call: Call, collection: str, limit: int, after: str
    ) -> retrieve_pb2.ListDocumentsResponse:
        request = retrieve_pb2.ListDocumentsRequest(
            collection=collection, page_size=limit, page_token=after
        )
        return await clients.list_documents(call, self._mesh, request)

    async def list_chunks(
        self, call: Call, collection: str, id: str, limit: int, after: str
    ) -> retrieve_pb2.ListChunksResponse:
        request = retrieve_pb2.ListChunksRequest(
            collection=collection, document_id=id, page_size=limit, page_token=after
        )
        return await clients.list_chunks(call, self._mesh, request)

    async def delete_document(self, call: Call, collection: str, id: str) -> int:
        """Returns how many chunks went with it."""
        request = retrieve_pb2.DeleteDocumentRequest(collection=collection, id=id)
        async with self._audit.recording(call, "document.delete", f"{collection}/{id}"):
            return (await clients.delete_document(call, self._mesh, request)).chunks

    async def move_document(
        self, call: Call, request: retrieve_pb2.MoveDocumentRequest
    ) -> retrieve_pb2.Document:
        target = f"{request.collection}/{request.id}"
        async with self._audit.recording(call, "document.update", target):
            return (await clients.move_document(call, self._mesh, request)).document

    async def check_documents(
        self, call: Call, request: retrieve_pb2.CheckDocumentsRequest
    ) -> retrieve_pb2.CheckDocumentsResponse:
        return await clients.check_documents(call, self._mesh, request)

    # collections as a whole

    async def export(
        self, call: Call, request: retrieve_pb2.ExportDocumentsRequest
    ) -> AsyncGenerator[retrieve_pb2.ExportDocumentsResponse, None]:
        """What the caller may read of a collection, as the index takes it."""
        async with (
            self._audit.recording(call, "collection.export", request.collection),
            aclosing(clients.export_documents(call, self._mesh, request)) as frames,
        ):
            async for frame in frames:
                yield frame

    async def import_documents(
        self,
        call: Call,
        collection: str,
        frames: AsyncIterator[retrieve_pb2.IndexDocumentsRequest],
    ) -> AsyncGenerator[retrieve_pb2.IndexDocumentsResponse, None]:
        """Documents that were indexed elsewhere; an acknowledgement for each."""
        async with (
            self._audit.recording(call, "collection.import", collection),
            aclosing(clients.index_documents(call, self._mesh, frames)) as acks,
        ):
            async for ack in acks:
                yield ack

    async def reindex(
        self, call: Call, name: str, *, force: bool
    ) -> AsyncGenerator[retrieve_pb2.ReindexCollectionResponse, None]:
        """How far making a collection anew is."""
        request = retrieve_pb2.ReindexCollectionRequest(name=name, force=force)
        async with (
            self._audit.recording(call, "collection.reindex", name),
            aclosing(clients.reindex_collection(call, self._mesh, request)) as progress,
        ):
            async for one in progress:
                yield one

    # the mesh itself

    async def models(self, call: Call) -> list[gateway_pb2.Model]:
        """Aliases and models, of the engines, encoders and rerankers, that the caller may use."""
        engines, encoders = await asyncio.gather(
            clients.list_engine_models(call, self._mesh), clients.list_encoders(call, self._mesh)
        )
        models = [
            gateway_pb2.Model(id=model.id, target=model.target, owned_by=model.owned_by)
            for model in engines.models
        ]
        for encoder in encoders.models:
            models.append(gateway_pb2.Model(id=encoder.id, owned_by=encoder.owned_by))
            models += [
                gateway_pb2.Model(id=alias, target=encoder.id, owned_by=encoder.owned_by)
                for alias in encoder.aliases
            ]
        return [model for model in models if call.principal.may_use(model.id)]

    async def health(self) -> dict[str, ServiceHealth]:
        """What each service says about itself; all are asked at once."""
        found = await asyncio.gather(*(self._health_of(service) for service in SERVICES))
        return dict(zip(SERVICES, found, strict=True))

    async def _health_of(self, service: str) -> ServiceHealth:
        seconds = self._settings.health_budget
        serving, info = await asyncio.gather(
            clients.is_serving(self._mesh, service, seconds),
            clients.server_info(self._mesh, service, seconds),
        )
        if info is None:
            return ServiceHealth(False, None, {})
        engine_answers = bool(getattr(info, "available", True))
        return ServiceHealth(serving and engine_answers, info.version, dict(info.backends))

    # steps

    def _engine(
        self, call: Call, request: infer_pb2.GenerateRequest, *, at_most: float | None = None
    ) -> Events:
        events = generate_within_limits(
            self._limiter,
            call,
            request,
            lambda bounded: clients.generate(call, self._mesh, bounded, at_most=at_most),
        )
        return self._usage.generation(call, request, events)

    async def _plan(
        self, call: Call, query: str, history: Sequence[chat_pb2.ChatMessage], model: str
    ) -> preprocess_pb2.StandaloneQuery:
        request = preprocess_pb2.PlanQueryRequest(query=query, history=history)
        plan = await clients.plan_query(call, self._mesh, request)
        if plan.HasField("standalone"):
            return plan.standalone
        rewritten = await self._rewrite(call, plan.rewrite, model)
        if not rewritten:
            return plan.rewrite.fallback
        # Once more through the rules, without history: the model's words need cleaning too.
        again = await clients.plan_query(
            call, self._mesh, preprocess_pb2.PlanQueryRequest(query=rewritten)
        )
        return again.standalone if again.HasField("standalone") else plan.rewrite.fallback

    async def _rewrite(self, call: Call, rewrite: preprocess_pb2.RewriteRequest, model: str) -> str:
        """The question in a model's words, or an empty text when none came in time."""
        request = infer_pb2.GenerateRequest(
            model=model,
            task=infer_pb2.TASK_REWRITE,
            messages=[*rewrite.history, text_message(chat_pb2.ROLE_USER, rewrite.query)],
            language=rewrite.language,
        )
        at_most = self._settings.rewrite_budget
        try:
            generated = self._engine(call, request, at_most=at_most)
            async with aclosing(generated) as events:
                pieces = [event.delta.text async for event in events if event.HasField("delta")]
        except RagmeshError as error:
            log.info("rewrite failed; the rules' query is used", extra={"reason": error.reason})
            return ""
        return "".join(pieces).strip()

    async def _search(
        self, call: Call, request: retrieve_pb2.SearchRequest
    ) -> retrieve_pb2.SearchResponse:
        """A search; its reranker's time gets an entry of its own."""
        found = await clients.search(call, self._mesh, request)
        if found.HasField("rerank"):
            call.spend("rerank", found.rerank.seconds)
        return found

    async def _process(
        self,
        call: Call,
        text: str,
        passages: Sequence[passage_pb2.Passage],
        query: str,
        unanswered: bool,
    ) -> postprocess_pb2.ProcessAnswerResponse:
        request = postprocess_pb2.ProcessAnswerRequest(
            text=text, passages=passages, query=query, unanswered=unanswered
        )
        return await clients.process_answer(call, self._mesh, request)

    async def _history(self, call: Call, session_id: str) -> list[chat_pb2.ChatMessage]:
        if not session_id:
            return []
        with call.hop("store"):
            turns = await self._sessions.history(
                call.tenant, session_id, call.principal.subject, self._settings.history_turns
            )
        messages: list[chat_pb2.ChatMessage] = []
        for turn in turns:
            messages.append(text_message(chat_pb2.ROLE_USER, turn.question))
            messages.append(text_message(chat_pb2.ROLE_ASSISTANT, turn.answer))
        return messages

    async def _remember(self, call: Call, session_id: str, question: str, answer: str) -> None:
        if not session_id:
            return
        started = time.perf_counter()
        await self._sessions.append(
            call.tenant, session_id, call.principal.subject, question, answer
        )
        call.add("store", started)


def text_message(role: chat_pb2.Role, text: str) -> chat_pb2.ChatMessage:
    """A message of one text part."""
    return chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)])


def insert_history(
    request: infer_pb2.GenerateRequest, past: Sequence[chat_pb2.ChatMessage]
) -> None:
    """Put a session's turns after the instructions and before the new messages."""
    instructions = {chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER}
    messages = list(request.messages)
    first = next(
        (index for index, message in enumerate(messages) if message.role not in instructions),
        len(messages),
    )
    request.ClearField("messages")
    request.messages.extend([*messages[:first], *past, *messages[first:]])


def split_question(
    messages: Sequence[chat_pb2.ChatMessage],
) -> tuple[str, list[chat_pb2.ChatMessage]]:
    """The last user message's text, and the turns before it.

    Raises:
        InvalidArgument: QUERY_EMPTY, when no user message has text.
    """
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role != chat_pb2.ROLE_USER:
            continue
        text = "\n".join(part.text for part in message.content if part.HasField("text"))
        if text.strip():
            spoken = {chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT}
            return text, [turn for turn in messages[:index] if turn.role in spoken]
        break
    raise InvalidArgument(
        "QUERY_EMPTY", "A chat with retrieval needs a user message with text.", field="messages"
    )


def _checked(
    retrieval: gateway_pb2.Retrieval, most: int = MAX_ANSWER_TOP_K
) -> gateway_pb2.Retrieval:
    """Both faces' last check, so that their limits are the same.

    Raises:
        InvalidArgument: COLLECTION_REQUIRED, TOP_K_OUT_OF_RANGE.
    """
    if not retrieval.collection:
        raise InvalidArgument(
            "COLLECTION_REQUIRED", "Name the collection to look in.", field="collection"
        )
    if not 0 <= retrieval.top_k <= most:
        raise InvalidArgument(
            "TOP_K_OUT_OF_RANGE", f"top_k must be from 1 to {most}.", field="top_k"
        )
    return retrieval


def _search_request(
    plan: preprocess_pb2.StandaloneQuery, retrieval: gateway_pb2.Retrieval, default_top_k: int
) -> retrieve_pb2.SearchRequest:
    return retrieve_pb2.SearchRequest(
        collection=retrieval.collection,
        query=plan.normalized_query,
        language=plan.language,
        mode=retrieval.mode,
        top_k=retrieval.top_k or default_top_k,
        filter=retrieval.filter if retrieval.HasField("filter") else None,
        rerank=retrieval.rerank,
        rerank_depth=retrieval.rerank_depth,
        weights=retrieval.weights if retrieval.HasField("weights") else None,
        diversity=retrieval.diversity,
        group_by=retrieval.group_by,
        group_size=retrieval.group_size,
        min_score=retrieval.min_score if retrieval.HasField("min_score") else None,
        relevant_only=retrieval.relevant_only,
    )


def _numbered(found: retrieve_pb2.SearchResponse) -> list[passage_pb2.Passage]:
    """What was found, numbered from 1."""
    passages = [hit.passage for hit in found.hits]
    for marker, passage in enumerate(passages, start=1):
        passage.marker = marker
    return passages


def _reranking(found: retrieve_pb2.SearchResponse) -> retrieve_pb2.Reranking | None:
    return found.rerank if found.HasField("rerank") else None


def _queries(request: gateway_pb2.SearchRequest) -> Sequence[str]:
    """What a search asks: at least one query.

    Raises:
        InvalidArgument: QUERIES_INVALID.
    """
    if not request.queries:
        return [request.query]
    if request.query or len(request.queries) > MAX_QUERIES:
        raise InvalidArgument(
            "QUERIES_INVALID",
            f"A search has either a query, or queries, at most {MAX_QUERIES}.",
            field="queries",
        )
    return request.queries


def _is_substance(response: infer_pb2.GenerateResponse) -> bool:
    """Whether an event shows that the engine works: text, a tool call, or an end."""
    if response.HasField("delta"):
        return bool(response.delta.text or response.delta.tool_calls or response.delta.reasoning)
    return response.HasField("finish")
