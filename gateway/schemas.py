"""Requests and answers of the native routes. What a request may hold is said here, once; each
request knows its message of the protos."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.filters import to_filter
from gateway.pipeline import MAX_ANSWER_TOP_K, MAX_QUERIES, MAX_SEARCH_TOP_K, text_message
from ragmesh.gateway.v1 import gateway_pb2
from ragmesh.infer.v1 import infer_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import chat_pb2
from services.runtime.errors import InvalidArgument

MAX_QUERY_CHARACTERS = 8000
MAX_GROUP_SIZE = 100
MAX_NEIGHBORS = 10
MAX_RERANK_DEPTH = 200
MAX_TITLE_CHARACTERS = 1000
MAX_INT32 = 2**31 - 1

Mode = Literal["hybrid", "dense", "sparse"]
Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
CollectionName = Annotated[str, Field(min_length=1, max_length=64)]
ModelName = Annotated[str, Field(max_length=256)]
SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Tokens = Annotated[int, Field(ge=1, le=MAX_INT32)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)]
Metadata = dict[str, Any]
ACCESS_ENTRY = re.compile(r"(user|group):[^\x00-\x1f\x7f]{1,256}")
AccessEntry = Annotated[str, Field(pattern=f"^{ACCESS_ENTRY.pattern}$")]

MODES: "dict[str, retrieve_pb2.SearchMode]" = {
    "hybrid": retrieve_pb2.SEARCH_MODE_HYBRID,
    "dense": retrieve_pb2.SEARCH_MODE_DENSE,
    "sparse": retrieve_pb2.SEARCH_MODE_SPARSE,
}
GROUPS: "dict[str | None, retrieve_pb2.GroupBy]" = {
    None: retrieve_pb2.GROUP_BY_UNSPECIFIED,
    "document": retrieve_pb2.GROUP_BY_DOCUMENT,
}
LENGTHS: "dict[str, infer_pb2.SummaryLength]" = {
    "short": infer_pb2.SUMMARY_LENGTH_SHORT,
    "medium": infer_pb2.SUMMARY_LENGTH_MEDIUM,
    "long": infer_pb2.SUMMARY_LENGTH_LONG,
}
INPUT_TYPES: "dict[str, retrieve_pb2.InputType]" = {
    "query": retrieve_pb2.INPUT_TYPE_QUERY,
    "passage": retrieve_pb2.INPUT_TYPE_PASSAGE,
    "document": retrieve_pb2.INPUT_TYPE_PASSAGE,
}


class Request(BaseModel):
    """A request body: a field that is not listed is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Weights(Request):
    """Weights of the arms; only their proportion counts."""

    dense: Annotated[float, Field(ge=0, le=1)]
    sparse: Annotated[float, Field(ge=0, le=1)]


class RetrievalFields(Request):
    """Where to look, and how."""

    collection: CollectionName
    mode: Mode = "hybrid"
    weights: Weights | None = Field(
        None,
        description="Weights of the arms of a hybrid search, instead of those that the query and "
        "the collection's calibration suggest.",
    )
    rerank: bool = Field(
        False,
        description="Whether a cross-encoder orders the best passages again, within a budget of "
        "time; the answer's `rerank` says what came of it. See docs/reranking.md.",
    )
    rerank_depth: Annotated[int, Field(ge=1, le=MAX_RERANK_DEPTH)] | None = Field(
        None,
        description="With `rerank`: how many candidates it reads; the server's setting when "
        "unset, and at least `top_k`.",
    )
    filter: dict[str, Any] | None = Field(None, description="See Filters in docs/api.md.")
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="How unlike each other the passages are (maximal marginal relevance): 0 is "
        "relevance alone, 1 novelty alone. The order then does not follow the scores.",
    )
    group_by: Literal["document"] | None = Field(
        None,
        description="Makes `top_k` count documents. The hits of a document stand together, those "
        "of the best document first.",
    )
    group_size: Annotated[int, Field(ge=1, le=MAX_GROUP_SIZE)] | None = Field(
        None, description="Hits of each group; 1 when unset. Needs `group_by`."
    )
    min_score: float | None = Field(None, description="Leaves out hits with a lower `score`.")
    relevant_only: bool = Field(
        False,
        description="Leaves out hits that have too little to do with the query, if need be all.",
    )

    def retrieval(self, top_k: int | None, param: str = "filter") -> gateway_pb2.Retrieval:
        chosen = to_filter(self.filter, param) if self.filter else None
        return gateway_pb2.Retrieval(
            collection=self.collection,
            mode=MODES[self.mode],
            top_k=top_k or 0,
            rerank=self.rerank,
            rerank_depth=self.rerank_depth or 0,
            filter=chosen,
            weights=retrieve_pb2.ArmWeights(**self.weights.model_dump()) if self.weights else None,
            diversity=self.diversity,
            group_by=GROUPS[self.group_by],
            group_size=self.group_size or 0,
            min_score=self.min_score,
            relevant_only=self.relevant_only,
        )


class RetrievalOptions(RetrievalFields):
    """The extension `retrieval` of a chat."""

    top_k: Annotated[int, Field(ge=1, le=MAX_ANSWER_TOP_K)] | None = None

    def to_proto(self) -> gateway_pb2.Retrieval:
        return self.retrieval(self.top_k, "retrieval.filter")


class SamplingFields(Request):
    """How to sample; unset means the engine's default."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: Tokens | None = None
    stop: str | Stop | None = None
    seed: Seed | None = None

    def sampling(self) -> infer_pb2.Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        return infer_pb2.Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=stop,
            seed=self.seed,
        )


class QueryBody(RetrievalFields, SamplingFields):
    """A question to answer from a collection."""

    query: Query
    top_k: Annotated[int, Field(ge=1, le=MAX_ANSWER_TOP_K)] | None = Field(
        None, description="How many passages; 5 when unset."
    )
    session_id: SessionId | None = Field(
        None, description="The conversation that the question belongs to; it begins when new."
    )
    model: ModelName = "default"
    stream: bool = False

    def to_proto(self) -> gateway_pb2.QueryRequest:
        return gateway_pb2.QueryRequest(
            query=self.query,
            retrieval=self.retrieval(self.top_k),
            session_id=self.session_id,
            model=self.model,
            sampling=self.sampling(),
        )


class SearchBody(RetrievalFields):
    """A search, with `query` or with `queries`."""

    query: Query | None = None
    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES)] | None = Field(
        None, description="Instead of `query`: several, whose hits are fused by rank."
    )
    top_k: Annotated[int, Field(ge=1, le=MAX_SEARCH_TOP_K)] | None = Field(
        None, description="How many hits; 10 when unset."
    )
    highlights: bool = Field(False, description="Whether hits say where they match.")
    neighbors: Annotated[int, Field(ge=0, le=MAX_NEIGHBORS)] = Field(
        0, description="Chunks of the same document to return before and after each hit."
    )
    explain: bool = Field(False, description="Whether the answer says how it came about.")

    def to_proto(self) -> gateway_pb2.SearchRequest:
        """Raises: InvalidArgument FIELD_REQUIRED, QUERIES_INVALID."""
        if self.query is None and self.queries is None:
            raise InvalidArgument("FIELD_REQUIRED", "Give a query, or queries.", field="query")
        if self.query is not None and self.queries is not None:
            raise InvalidArgument(
                "QUERIES_INVALID", "A search has either query or queries.", field="queries"
            )
        return gateway_pb2.SearchRequest(
            query=self.query,
            queries=self.queries,
            retrieval=self.retrieval(self.top_k),
            highlights=self.highlights,
            neighbors=self.neighbors,
            explain=self.explain,
        )


class GenerateBody(SamplingFields):
    """A text to work on."""

    text: Annotated[str, Field(min_length=1)]
    system: str | None = Field(None, description="Instructions before the text.")
    model: ModelName = "default"
    stream: bool = False

    def to_proto(self) -> infer_pb2.GenerateRequest:
        messages = [text_message(chat_pb2.ROLE_USER, self.text)]
        if self.system:
            messages.insert(0, text_message(chat_pb2.ROLE_SYSTEM, self.system))
        return infer_pb2.GenerateRequest(
            model=self.model,
            task=infer_pb2.TASK_CHAT,
            messages=messages,
            sampling=self.sampling(),
            stream=self.stream,
        )


class SummarizeBody(SamplingFields):
    """A text, or a document of a collection, to summarise."""

    text: Annotated[str, Field(min_length=1)] | None = None
    document_id: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    collection: CollectionName | None = None
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None = Field(
        None, description="Language of the summary, ISO 639-1; the text's when unset."
    )
    length: Literal["short", "medium", "long"] = "medium"
    model: ModelName = "default"
    stream: bool = False

    def to_proto(self, text: str) -> infer_pb2.GenerateRequest:
        return infer_pb2.GenerateRequest(
            model=self.model,
            task=infer_pb2.TASK_SUMMARIZE,
            text=text,
            language=self.language,
            summary_length=LENGTHS[self.length],
            sampling=self.sampling(),
            stream=self.stream,
        )


class EmbedBody(Request):
    """A text to embed."""

    text: Annotated[str, Field(min_length=1)]
    model: ModelName = "default-embedding"
    input_type: Literal["query", "passage", "document"] = "passage"

    def to_proto(self) -> retrieve_pb2.EmbedRequest:
        return retrieve_pb2.EmbedRequest(
            model=self.model,
            inputs=[retrieve_pb2.EmbedInput(text=self.text)],
            input_type=INPUT_TYPES[self.input_type],
        )


class CollectionBody(Request):
    """A new collection."""

    name: CollectionName
    description: Annotated[str, Field(max_length=1000)] = ""
    chunk_tokens: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        None, description="The most tokens of a chunk; the encoder's best size when unset."
    )
    chunk_overlap: Annotated[int, Field(ge=0, le=4096)] | None = None

    def to_proto(self) -> retrieve_pb2.CreateCollectionRequest:
        return retrieve_pb2.CreateCollectionRequest(
            name=self.name,
            description=self.description,
            chunk_tokens=self.chunk_tokens or 0,
            chunk_overlap=self.chunk_overlap,
        )


class DocumentBody(Request):
    """A document that comes as text, read as markdown."""

    id: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Derived from the text when unset."
    )
    title: Annotated[str, Field(max_length=1000)] = ""
    text: str
    metadata: Metadata = Field(default_factory=dict)
    access: Annotated[list[AccessEntry], Field(min_length=1, max_length=64)] | None = Field(
        None,
        description="Who may read it, `user:NAME` or `group:NAME`, each held by the token itself. "
        "Everyone in the tenant when unset.",
    )


class DocumentsBody(Request):
    """Documents that come as text."""

    documents: Annotated[list[DocumentBody], Field(min_length=1)]


# answers, for the reference: what is sent is made in `views.py`, and a test compares the two


class UsageView(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool = Field(
        False, description="Sent, as true, where neither engine nor tokenizer counted exactly."
    )


class CitationView(BaseModel):
    """A passage that the answer rests on."""

    marker: int = Field(description="The number that stands in the answer as `[n]`, from 1.")
    document_id: str
    chunk_id: str
    source: str
    title: str
    page: int | None = Field(description="From 1; null for formats without pages.")
    heading: str
    quote: str = Field(description="Words of the passage, verbatim.")
    score: float = Field(description="Support of the citing sentences by the quote, 0 to 1.")


class RerankingView(BaseModel):
    """What the reranker did for a search."""

    status: Literal["applied", "timed_out", "failed", "skipped"] = Field(
        description="Other than applied: the order is the one that the arms gave."
    )
    model: str
    reason: str | None = Field(description="Why it was not applied.")
    candidates: int = Field(description="How many it read.")
    milliseconds: float


class AnswerView(BaseModel):
    """An answer with what it rests on."""

    answer: str
    citations: list[CitationView]
    confidence: float = Field(description="0 to 1, from the support of each sentence.")
    model: str
    usage: UsageView
    timings: dict[str, float] = Field(
        description="Milliseconds by hop, with `total`; `rerank` is a part of `retrieve`."
    )
    rerank: RerankingView | None = Field(None, description="With `rerank`.")


class TextView(BaseModel):
    """A generated text."""

    text: str
    model: str
    usage: UsageView


class EmbeddingView(BaseModel):
    """One text's vector."""

    embedding: list[float]
    model: str
    usage: UsageView


class WeightsView(BaseModel):
    """Weights of the arms, from 0 to 1."""

    dense: float
    sparse: float


class LanguageCalibrationView(BaseModel):
    """What was measured in one language of a collection."""

    language: str
    weights: WeightsView = Field(description="Of a hybrid search in this language.")
    questions: int = Field(description="How many of the collection's own questions were asked.")
    dense: float = Field(description="Mean gain of the dense arm: 1 where it is always right.")
    sparse: float
    hybrid: float
    agreement: float = Field(description="Share of the first ten hits that the arms share.")
    unknown: float = Field(description="Share of tokens that the encoder does not know.")


class CalibrationView(BaseModel):
    """What was measured with questions that a collection's own chunks pose."""

    chunks: int
    measured_at: str
    seconds: float
    languages: list[LanguageCalibrationView]


class CollectionView(BaseModel):
    """A collection's facts."""

    name: str
    description: str
    encoder: str
    dimensions: int
    encoder_languages: list[str] = Field(
        description="ISO 639-1 codes that the encoder represents; empty while that is not known."
    )
    encoder_normalizes: bool | None = Field(
        description="Whether its model brings vectors to length 1 itself, as the mesh does in any "
        "case; null while that is not known."
    )
    analyzer: str
    chunk_tokens: int
    chunk_overlap: int
    documents: int
    chunks: int
    created_at: str | None
    calibration: CalibrationView | None = Field(
        description="How the arms are weighed; null while that was not measured."
    )


class CollectionsView(BaseModel):
    """A page of collections by name."""

    collections: list[CollectionView]
    next: str | None = Field(description="What to send as `after` for the next page.")


class DeletedView(BaseModel):
    """Something is gone."""

    id: str
    deleted: bool


class IngestedView(BaseModel):
    """What became of a document."""

    id: str
    chunks: int
    status: Literal["indexed", "replaced", "unchanged"]


class IngestView(BaseModel):
    """Documents that are durable and searchable, in the order of sending."""

    documents: list[IngestedView]


class DocumentView(BaseModel):
    """A document's facts."""

    id: str
    title: str
    source: str
    metadata: Metadata
    access: list[str] | None = Field(description="Who may read it; null for the whole tenant.")
    format: str
    language: str
    pages: int | None
    chunks: int
    bytes: int
    created_at: str | None
    updated_at: str | None


class MoveBody(Request):
    """What to change in a document; what is left out stays."""

    id: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARACTERS)] | None = None
    source: Annotated[str, Field(max_length=MAX_TITLE_CHARACTERS)] | None = None
    metadata: Metadata | None = Field(None, description="All of it.")
    replace: bool = Field(
        False, description="Whether a document that has the new id goes; else 409."
    )


class VersionBody(Request):
    """A document's id and content."""

    id: Annotated[str, Field(min_length=1, max_length=512)]
    content_hash: Annotated[str, Field(min_length=1, max_length=128)]


class UnchangedBody(Request):
    """Documents to look for."""

    documents: Annotated[list[VersionBody], Field(max_length=1000)]

    def to_proto(self, collection: str) -> retrieve_pb2.CheckDocumentsRequest:
        return retrieve_pb2.CheckDocumentsRequest(
            collection=collection,
            documents=[
                retrieve_pb2.DocumentVersion(id=one.id, content_hash=one.content_hash)
                for one in self.documents
            ],
        )


class ReindexBody(Request):
    """How to make a collection anew."""

    force: bool = Field(
        False, description="Embed everything again, also what the running encoder has embedded."
    )


class ImportHeader(BaseModel):
    """What opens an export."""

    format: str
    version: Annotated[int, Field(ge=1)]
    encoder: Annotated[str, Field(max_length=1024)]
    analyzer: Annotated[str, Field(max_length=1024)] = ""
    profile: str = ""


class ImportedDocument(Request):
    """A document's facts in an export."""

    id: Annotated[str, Field(min_length=1, max_length=512)]
    title: str = ""
    source: str = ""
    metadata: Metadata = Field(default_factory=dict)
    content_hash: Annotated[str, Field(min_length=1, max_length=128)]
    format: Annotated[str, Field(max_length=64)] = ""
    language: Annotated[str, Field(max_length=16)] = ""
    pages: Annotated[int, Field(ge=0, le=MAX_INT32)] = 0
    chunks: Annotated[int, Field(ge=1, le=MAX_INT32)]
    bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    created_at: str | None = None
    updated_at: str | None = None
    access: Annotated[list[AccessEntry], Field(min_length=1, max_length=64)] | None = None


class ImportedChunk(Request):
    """A chunk in an export."""

    text: str
    normalized_text: str | None = None
    heading: str = ""
    page: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    language: Annotated[str, Field(max_length=16)] = ""
    vector: str = ""


class ImportedChunks(Request):
    """Chunks of the document before them in an export."""

    first: Annotated[int, Field(ge=0, le=MAX_INT32)] = 0
    chunks: list[ImportedChunk]


class ImportView(BaseModel):
    """What became of each document."""

    documents: list[IngestedView]
    embedded_chunks: int = Field(description="Chunks whose vectors did not come with them.")


class UnchangedDocumentView(BaseModel):
    """A document that is there."""

    id: str
    chunks: int


class UnchangedView(BaseModel):
    """Those of the named documents that are there with that content."""

    unchanged: list[UnchangedDocumentView]


class ReindexView(BaseModel):
    """The `done` event of a reindexing; `progress` has the first four."""

    documents: int
    total_documents: int
    embedded_chunks: int
    full_chunks: int = Field(
        description="Embedded chunks that fill what the encoder reads; the end of some may be cut."
    )
    reindexed: bool = Field(description="False where encoder and analyser fitted already.")
    collection: CollectionView


class DocumentsView(BaseModel):
    """A page of documents by id."""

    documents: list[DocumentView]
    next: str | None


class ChunkView(BaseModel):
    """A chunk of a document."""

    chunk_id: str
    document_id: str
    text: str
    page: int | None
    heading: str
    language: str


class ChunksView(BaseModel):
    """A page of chunks in reading order."""

    chunks: list[ChunkView]
    next: str | None


class TurnView(BaseModel):
    """A question with its answer."""

    question: str
    answer: str
    created_at: str


class SessionView(BaseModel):
    """A conversation, oldest turn first."""

    id: str
    created_at: str
    updated_at: str
    turns: list[TurnView]


class ModelView(BaseModel):
    """An alias or a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    target: str | None = Field(description="For an alias, the model that it stands for.")


class ModelsView(BaseModel):
    """Models that the token may use."""

    object: Literal["list"]
    data: list[ModelView]


class UsageCountsView(BaseModel):
    """How much was taken."""

    requests: int = Field(description="Generations and embeddings; a query is one.")
    prompt_tokens: int
    completion_tokens: int
    embedding_tokens: int
    estimated: int = Field(description="Requests among them whose tokens are estimates.")
    total_tokens: int


class UsageRowView(UsageCountsView):
    """A day and a model."""

    day: str = Field(description="In UTC: `2026-11-21`.")
    model: str


class UsageReportView(BaseModel):
    """Usage by day and model."""

    from_: str = Field(alias="from")
    to: str
    usage: list[UsageRowView]
    total: UsageCountsView


class AuditEntryView(BaseModel):
    """One action."""

    number: int = Field(description="From 1, without gaps.")
    at: str
    consumer: str
    tenant: str | None
    subject: str
    token_id: str | None
    request_id: str | None
    action: str
    target: str
    outcome: str = Field(description="`ok`, or the reason why not.")
    previous: str = Field(description="Hash of the entry before.")
    hash: str = Field(description="SHA-256 over this entry and the hash before.")


class AuditView(BaseModel):
    """A page of the audit log, newest first."""

    entries: list[AuditEntryView]
    next: str | None


class TenantContentsView(BaseModel):
    """What a tenant has, counted in every store."""

    collections: int
    documents: int
    chunks: int
    folders: int = Field(description="On the disk of retrieve.")
    sessions: int
    turns: int
    usage: int = Field(description="Rows: days by models.")


class TenantView(BaseModel):
    """A tenant."""

    tenant: str
    consumer: str
    contents: TenantContentsView


class TenantDeletedView(BaseModel):
    """A tenant's end."""

    tenant: str
    consumer: str
    removed: TenantContentsView
    left: TenantContentsView = Field(description="Counted afterwards.")
    complete: bool = Field(description="Whether nothing is left.")


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorView(BaseModel):
    """The error object that OpenAI's clients know."""

    error: ErrorDetail
