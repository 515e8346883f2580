"""Fake services that hold state: what the gateway is tested against, over real gRPC."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ragmesh.infer.v1 import infer_pb2, infer_pb2_grpc
from ragmesh.postprocess.v1 import postprocess_pb2, postprocess_pb2_grpc
from ragmesh.preprocess.v1 import preprocess_pb2, preprocess_pb2_grpc
from ragmesh.retrieve.v1 import retrieve_pb2, retrieve_pb2_grpc
from ragmesh.type.v1 import chat_pb2, passage_pb2
from services.runtime.context import current_caller
from services.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    RagmeshError,
)

TOKENIZER = b'{"model": "fake"}' * 10_000
TOKENIZER_ID = "ab" * 32


def started(model: str = "fake/echo") -> infer_pb2.GenerateResponse:
    return infer_pb2.GenerateResponse(started=infer_pb2.Started(model=model))


def delta(text: str, index: int = 0, **more) -> infer_pb2.GenerateResponse:
    return infer_pb2.GenerateResponse(delta=infer_pb2.Delta(index=index, text=text, **more))


def finish(
    index: int = 0, reason=infer_pb2.FINISH_REASON_STOP, unanswered: bool = False
) -> infer_pb2.GenerateResponse:
    return infer_pb2.GenerateResponse(
        finish=infer_pb2.Finish(index=index, reason=reason, unanswered=unanswered)
    )


def usage(prompt: int = 7, completion: int = 3) -> infer_pb2.GenerateResponse:
    return infer_pb2.GenerateResponse(
        usage=chat_pb2.Usage(prompt_tokens=prompt, completion_tokens=completion)
    )


def answer(*texts: str) -> list[infer_pb2.GenerateResponse]:
    """A whole generation."""
    return [started(), *(delta(text) for text in texts), finish(), usage()]


def passage(document_id: str, text: str, *, page: int | None = None, **metadata):
    struct = Struct()
    struct.update(metadata)
    return passage_pb2.Passage(
        document_id=document_id,
        chunk_id=f"{document_id}-0",
        text=text,
        source=f"{document_id}.pdf",
        title=document_id.title(),
        page=page,
        heading="Top > Sub",
        metadata=struct,
        language="en",
        score=0.5,
    )


@dataclass
class FakeInfer(infer_pb2_grpc.InferServiceServicer):
    """Plays its script; an error in the script is raised, an Event is waited for."""

    script: list = field(default_factory=lambda: answer("Tea is ", "hot [1]."))
    rewritten: str | RagmeshError = "standalone question"
    requests: list[infer_pb2.GenerateRequest] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    available: bool = True

    async def Generate(self, request, context):
        self.requests.append(request)
        script = self.script
        if request.task == infer_pb2.TASK_REWRITE:
            if isinstance(self.rewritten, RagmeshError):
                raise self.rewritten
            script = answer(self.rewritten)
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.running.set()
                    await step.wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def ListModels(self, request, context):
        return infer_pb2.ListModelsResponse(
            models=[
                infer_pb2.Model(id="default", target="fake/echo", owned_by="fake"),
                infer_pb2.Model(id="fake/echo", owned_by="fake"),
            ]
        )

    async def GetServerInfo(self, request, context):
        return infer_pb2.GetServerInfoResponse(
            version="1", backends={"model_backend": "fake"}, available=self.available
        )


@dataclass
class FakePreprocess(preprocess_pb2_grpc.PreprocessServiceServicer):
    """Splits documents at blank lines; a follow-up is a query that begins with `and`."""

    plans: list[preprocess_pb2.PlanQueryRequest] = field(default_factory=list)
    headers: list[preprocess_pb2.DocumentHeader] = field(default_factory=list)
    tokenizer: bytes = b""
    after_first: asyncio.Event | None = None
    """What the refusal of a locked document waits for."""

    async def PlanQuery(self, request, context):
        self.plans.append(request)
        if not request.query.strip():
            raise InvalidArgument("QUERY_EMPTY", "The query is empty.", field="query")
        standalone = preprocess_pb2.StandaloneQuery(
            query=request.query, normalized_query=request.query.lower(), language="en"
        )
        if request.history and request.query.startswith("and"):
            return preprocess_pb2.PlanQueryResponse(
                rewrite=preprocess_pb2.RewriteRequest(
                    query=request.query,
                    history=request.history,
                    language="en",
                    fallback=preprocess_pb2.StandaloneQuery(
                        query="fallback", normalized_query="fallback", language="en"
                    ),
                )
            )
        return preprocess_pb2.PlanQueryResponse(standalone=standalone)

    async def ProcessDocument(self, request_iterator, context):
        frame = preprocess_pb2.ProcessDocumentResponse
        data = b""
        header = preprocess_pb2.DocumentHeader()
        async for request in request_iterator:
            match request.WhichOneof("frame"):
                case "header":
                    header = request.header
                    self.headers.append(header)
                    needed = not self.tokenizer
                    yield frame(ready=preprocess_pb2.Ready(tokenizer_needed=needed))
                case "tokenizer":
                    self.tokenizer += request.tokenizer
                case "data":
                    assert len(request.data) <= 64 * 1024
                    data += request.data
        if data.startswith(b"LOCKED"):
            if self.after_first is not None:
                await self.after_first.wait()
            raise InvalidArgument("ENCRYPTED_DOCUMENT", "The document is encrypted.")
        texts = [text for text in data.decode().split("\n\n") if text.strip()]
        if not texts:
            raise InvalidArgument("EMPTY_DOCUMENT", "The document is empty.")
        yield frame(
            document=preprocess_pb2.DocumentInfo(
                format="md", title=header.title or header.filename, language="en"
            )
        )
        chunks = [
            preprocess_pb2.Chunk(index=index, text=text, normalized_text=text.lower())
            for index, text in enumerate(texts)
        ]
        yield frame(chunks=preprocess_pb2.ChunkBatch(chunks=chunks))

    async def GetServerInfo(self, request, context):
        return preprocess_pb2.GetServerInfoResponse(version="1", backends={"parser": "fake"})


@dataclass
class FakeRetrieve(retrieve_pb2_grpc.RetrieveServiceServicer):
    """Collections by tenant; finds every chunk of `found`."""

    found: list[passage_pb2.Passage] = field(
        default_factory=lambda: [
            passage("tea", "Tea is hot.", page=2, year=2024, ratio=0.5, tags=["a", "b"]),
            passage("ice", "Ice is cold."),
        ]
    )
    searches: list[retrieve_pb2.SearchRequest] = field(default_factory=list)
    answer: retrieve_pb2.SearchResponse | None = None
    """Of every search; None for `found` with ranks."""
    embeds: list[retrieve_pb2.EmbedRequest] = field(default_factory=list)
    reranks: list[retrieve_pb2.RerankRequest] = field(default_factory=list)
    reranker: bool = False
    reranked: retrieve_pb2.Reranking | None = None
    """What searches that ask for it say of the reranker; their hits are turned round then."""
    rerank_tokens: int = 12
    collections: dict[tuple[str, str], dict] = field(default_factory=dict)
    callers: list = field(default_factory=list)
    headers: list[retrieve_pb2.IndexHeader] = field(default_factory=list)
    exports: list[retrieve_pb2.ExportDocumentsRequest] = field(default_factory=list)
    torn: str = ""
    """A document that changes while it is exported."""
    reindexed: list[retrieve_pb2.ReindexCollectionRequest] = field(default_factory=list)
    moves: list[retrieve_pb2.MoveDocumentRequest] = field(default_factory=list)
    tokenizers_sent: int = 0
    gate: asyncio.Event | None = None
    index_gate: asyncio.Event | None = None
    """Holds indexing up after the first chunks; searches are held by `gate`."""
    running: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def documents(self, name: str) -> dict:
        self.callers.append(current_caller())
        try:
            return self.collections[current_caller().tenant, name]
        except KeyError:
            raise NotFound(
                "COLLECTION_NOT_FOUND", f"collection '{name}' does not exist", field="collection"
            ) from None

    def document(self, collection: str, id: str) -> retrieve_pb2.Document:
        try:
            return self.documents(collection)[id][0]
        except KeyError:
            raise NotFound("DOCUMENT_NOT_FOUND", f"document '{id}' does not exist") from None

    async def Search(self, request, context):
        self.searches.append(request)
        self.documents(request.collection)
        if self.gate:
            self.running.set()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.answer is not None:
            return self.answer
        hits = [
            retrieve_pb2.Hit(passage=each, dense_rank=rank)
            for rank, each in enumerate(self.found, start=1)
        ]
        if request.rerank and self.reranked is not None:
            for place, hit in enumerate(hits):
                hit.rerank_score = (place + 1) / 10
            return retrieve_pb2.SearchResponse(hits=hits[::-1], rerank=self.reranked)
        return retrieve_pb2.SearchResponse(hits=hits)

    async def Embed(self, request, context):
        self.embeds.append(request)
        values = [retrieve_pb2.Embedding(values=[0.5, -0.25]) for _ in request.inputs]
        return retrieve_pb2.EmbedResponse(embeddings=values, model="fake-encoder", tokens=4)

    async def Rerank(self, request, context):
        self.reranks.append(request)
        if not self.reranker:
            raise FailedPrecondition(
                "RERANKER_NOT_CONFIGURED", "No reranker is configured.", field="model"
            )
        lengths = sorted(enumerate(map(len, request.documents)), key=lambda one: -one[1])
        results = [
            retrieve_pb2.RerankResult(index=index, relevance_score=length / 100)
            for index, length in lengths[: request.top_n or None]
        ]
        return retrieve_pb2.RerankResponse(
            results=results, model="fake-reranker", tokens=self.rerank_tokens
        )

    async def CheckDocuments(self, request, context):
        known = self.documents(request.collection)
        return retrieve_pb2.CheckDocumentsResponse(
            unchanged=[
                retrieve_pb2.UnchangedDocument(id=version.id, chunks=known[version.id][0].chunks)
                for version in request.documents
                if version.id in known and known[version.id][0].content_hash == version.content_hash
            ]
        )

    async def IndexDocuments(self, request_iterator, context):
        known: dict = {}
        held: list = []
        hold = progress = False
        written = 0
        document, chunks = None, list[retrieve_pb2.IndexChunk]()
        async for request in request_iterator:
            match request.WhichOneof("frame"):
                case "header":
                    known = self.documents(request.header.collection)
                    self.headers.append(request.header)
                    hold = request.header.hold
                    progress = request.header.progress
                case "document":
                    document, chunks = request.document, []
                case "end":
                    hold = False
                case "chunks":
                    chunks.extend(request.chunks.chunks)
                    written += len(request.chunks.chunks)
                    if progress:
                        told = retrieve_pb2.IndexProgress(chunks=written)
                        yield retrieve_pb2.IndexDocumentsResponse(progress=told)
                    if self.index_gate is not None:
                        self.running.set()
                        try:
                            await self.index_gate.wait()
                        finally:
                            self.cancelled.set()
            if document is not None and len(chunks) == document.chunk_count:
                replaced = document.id in known
                stored = retrieve_pb2.Document(
                    id=document.id,
                    title=document.title,
                    source=document.source,
                    metadata=document.metadata,
                    content_hash=document.content_hash,
                    chunks=len(chunks),
                    bytes=document.bytes,
                    access=document.access,
                )
                held.append((document.id, stored, chunks))
                if not hold:
                    known.update((id, (one, its)) for id, one, its in held)
                status = (
                    retrieve_pb2.INDEX_STATUS_REPLACED
                    if replaced
                    else retrieve_pb2.INDEX_STATUS_INDEXED
                )
                yield retrieve_pb2.IndexDocumentsResponse(
                    id=document.id,
                    chunks=len(chunks),
                    status=status,
                    embedded_chunks=sum(not chunk.vector for chunk in chunks),
                )
                document = None
        if not hold:
            known.update((id, (one, its)) for id, one, its in held)

    async def ExportDocuments(self, request, context):
        self.exports.append(request)
        frame = retrieve_pb2.ExportDocumentsResponse
        header = retrieve_pb2.ExportHeader(
            collection=self.collection(request.collection), generation="g-1", profile="{}"
        )
        yield frame(header=header)
        for id, (document, chunks) in sorted(self.documents(request.collection).items()):
            if id > request.after:
                if id == self.torn:
                    raise Aborted("DOCUMENT_CHANGED", "It was changed meanwhile.", field="id")
                facts = retrieve_pb2.IndexDocument(
                    id=id,
                    title=document.title,
                    source=document.source,
                    metadata=document.metadata,
                    content_hash=document.content_hash,
                    chunk_count=document.chunks,
                    bytes=document.bytes,
                    access=document.access,
                )
                yield frame(document=facts)
                yield frame(chunks=retrieve_pb2.IndexChunks(chunks=chunks))

    async def ReindexCollection(self, request, context):
        total = len(self.documents(request.name))
        self.reindexed.append(request)
        for number in range(total):
            yield retrieve_pb2.ReindexCollectionResponse(documents=number, total_documents=total)
        yield retrieve_pb2.ReindexCollectionResponse(
            documents=total,
            total_documents=total,
            embedded_chunks=5,
            collection=self.collection(request.name),
            reindexed=True,
        )

    async def MoveDocument(self, request, context):
        self.moves.append(request)
        document = self.document(request.collection, request.id)
        known = self.documents(request.collection)
        _, chunks = known.pop(request.id)
        document.id = request.new_id or request.id
        if request.HasField("title"):
            document.title = request.title
        if request.HasField("metadata"):
            document.metadata.CopyFrom(request.metadata)
        known[document.id] = (document, chunks)
        return retrieve_pb2.MoveDocumentResponse(document=document)

    async def GetDocument(self, request, context):
        document = self.document(request.collection, request.id)
        return retrieve_pb2.GetDocumentResponse(document=document)

    async def ListDocuments(self, request, context):
        known = sorted(self.documents(request.collection).items())
        start = int(request.page_token or 0)
        end = start + request.page_size
        return retrieve_pb2.ListDocumentsResponse(
            documents=[document for _, (document, _) in known[start:end]],
            next_page_token=str(end) if end < len(known) else "",
        )

    async def ListChunks(self, request, context):
        self.document(request.collection, request.document_id)
        _, chunks = self.documents(request.collection)[request.document_id]
        return retrieve_pb2.ListChunksResponse(
            chunks=[
                passage_pb2.Passage(
                    document_id=request.document_id,
                    chunk_id=f"{request.document_id}-{chunk.index}",
                    text=chunk.text,
                )
                for chunk in chunks
            ]
        )

    async def DeleteDocument(self, request, context):
        document = self.document(request.collection, request.id)
        del self.documents(request.collection)[request.id]
        return retrieve_pb2.DeleteDocumentResponse(chunks=document.chunks)

    def collection(self, name: str) -> retrieve_pb2.Collection:
        return retrieve_pb2.Collection(
            name=name,
            encoder="fake-encoder",
            tokenizer_id=TOKENIZER_ID,
            chunk_tokens=200,
            chunk_overlap=20,
            documents=len(self.documents(name)),
        )

    async def CreateCollection(self, request, context):
        key = current_caller().tenant, request.name
        if key in self.collections:
            raise AlreadyExists("COLLECTION_EXISTS", "It is there already.", field="name")
        self.collections[key] = {}
        return retrieve_pb2.CreateCollectionResponse(collection=self.collection(request.name))

    async def GetCollection(self, request, context):
        return retrieve_pb2.GetCollectionResponse(collection=self.collection(request.name))

    async def ListCollections(self, request, context):
        tenant = current_caller().tenant
        names = sorted(name for owner, name in self.collections if owner == tenant)
        return retrieve_pb2.ListCollectionsResponse(
            collections=[self.collection(name) for name in names]
        )

    async def DeleteCollection(self, request, context):
        documents = len(self.documents(request.name))
        del self.collections[current_caller().tenant, request.name]
        return retrieve_pb2.DeleteCollectionResponse(documents=documents)

    def contents(self) -> retrieve_pb2.TenantContents:
        tenant = current_caller().tenant
        held = [known for (owner, _), known in self.collections.items() if owner == tenant]
        return retrieve_pb2.TenantContents(
            collections=len(held),
            documents=sum(map(len, held)),
            chunks=sum(len(chunks) for known in held for _, chunks in known.values()),
            folders=bool(held) + len(held),
        )

    async def GetTenantContents(self, request, context):
        return retrieve_pb2.GetTenantContentsResponse(contents=self.contents())

    async def DeleteTenant(self, request, context):
        removed = self.contents()
        tenant = current_caller().tenant
        for key in [key for key in self.collections if key[0] == tenant]:
            del self.collections[key]
        return retrieve_pb2.DeleteTenantResponse(removed=removed, left=self.contents())

    async def GetTokenizer(self, request, context):
        assert request.tokenizer_id == TOKENIZER_ID
        self.tokenizers_sent += 1
        for start in range(0, len(TOKENIZER), 64 * 1024):
            yield retrieve_pb2.GetTokenizerResponse(data=TOKENIZER[start : start + 64 * 1024])

    async def ListModels(self, request, context):
        model = retrieve_pb2.Model(
            id="fake-encoder", aliases=["default-embedding"], owned_by="fake"
        )
        reranker = retrieve_pb2.Model(
            id="fake-reranker",
            aliases=["default-reranker"],
            owned_by="fake",
            kind=retrieve_pb2.MODEL_KIND_RERANKER,
        )
        models = [model, reranker] if self.reranker else [model]
        return retrieve_pb2.ListModelsResponse(models=models)

    async def GetServerInfo(self, request, context):
        return retrieve_pb2.GetServerInfoResponse(
            version="1", backends={"vector_backend": "fake", "embedding_backend": "fake"}
        )


@dataclass
class FakePostprocess(postprocess_pb2_grpc.PostprocessServiceServicer):
    """Cites the passages whose marker stands in the text; drops `[9]`."""

    requests: list[postprocess_pb2.ProcessAnswerRequest] = field(default_factory=list)
    failure: RagmeshError | None = None

    async def ProcessAnswer(self, request, context):
        self.requests.append(request)
        if self.failure:
            raise self.failure
        cited = [each for each in request.passages if f"[{each.marker}]" in request.text]
        if request.unanswered:
            cited = []
        return postprocess_pb2.ProcessAnswerResponse(
            text=request.text.replace(" [9]", ""),
            citations=[_citation(each) for each in cited],
            confidence=0.75 if cited else 0.0,
        )

    async def GetServerInfo(self, request, context):
        return postprocess_pb2.GetServerInfoResponse(version="1", backends={})


@dataclass
class FakeHealth(health_pb2_grpc.HealthServicer):
    """Says that the services serve."""

    status: int = health_pb2.HealthCheckResponse.SERVING

    async def Check(self, request, context):
        return health_pb2.HealthCheckResponse(status=self.status)


@dataclass
class FakeMesh:
    """The four services in one server."""

    preprocess: FakePreprocess = field(default_factory=FakePreprocess)
    retrieve: FakeRetrieve = field(default_factory=FakeRetrieve)
    infer: FakeInfer = field(default_factory=FakeInfer)
    postprocess: FakePostprocess = field(default_factory=FakePostprocess)
    health: FakeHealth = field(default_factory=FakeHealth)

    def registrations(self) -> list[tuple[Any, object]]:
        return [
            (preprocess_pb2_grpc.add_PreprocessServiceServicer_to_server, self.preprocess),
            (retrieve_pb2_grpc.add_RetrieveServiceServicer_to_server, self.retrieve),
            (infer_pb2_grpc.add_InferServiceServicer_to_server, self.infer),
            (postprocess_pb2_grpc.add_PostprocessServiceServicer_to_server, self.postprocess),
            (health_pb2_grpc.add_HealthServicer_to_server, self.health),
        ]


def _citation(each: passage_pb2.Passage) -> passage_pb2.Citation:
    return passage_pb2.Citation(
        marker=each.marker,
        document_id=each.document_id,
        chunk_id=each.chunk_id,
        source=each.source,
        title=each.title,
        page=each.page if each.HasField("page") else None,
        heading=each.heading,
        quote=each.text,
        score=1.0,
    )
