"""What retrieve's core needs of the world, and the values that cross these borders.

Five ports: an `EncoderModel` makes vectors, a `VectorCache` keeps those of questions, a `Store`
keeps and finds chunks, an `Analyzer` makes sparse vectors, a `Reranker` orders again (with a
`PairModel` where it runs in this process). Values are frozen; times are Unix seconds.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
"""Shape (texts, dimensions)."""

Scalar = str | float | bool

Attributes = tuple[str, ...]
"""What a caller is, for access lists; see `services.retrieve.access`."""

MAX_CHUNKS = 1 << 20
"""Chunks of one document, at most."""


@dataclass(frozen=True, slots=True)
class CollectionKey:
    """A collection's name within its tenant."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True)
class NewCollection:
    """What a collection is made with; encoder and analyser never change afterwards."""

    key: CollectionKey
    description: str
    encoder: str
    dimensions: int
    analyzer: str
    tokenizer_id: str
    chunk_tokens: int
    chunk_overlap: int
    encoder_languages: tuple[str, ...] = ()
    """What the encoder represented when the collection was made; empty when not known."""
    encoder_normalizes: bool | None = None
    """Whether its model brings vectors to length 1 itself; None when not known. All that are
    stored have it."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as stored."""

    name: str
    description: str
    encoder: str
    dimensions: int
    analyzer: str
    tokenizer_id: str
    chunk_tokens: int
    chunk_overlap: int
    documents: int
    chunks: int
    created_at: float
    languages: Mapping[str, int]
    """Chunks by language."""
    generation: str
    """Differs when a collection of the same name is deleted and made again."""
    all_chunks: int = 0
    """Chunks whoever may read them; `documents` and the rest count what the caller may."""
    profile: str = ""
    """What was learned from its chunks, as `services.retrieve.profiles` writes it."""
    lacks_words: bool = False
    """Whether the arm that reads words lacks chunks that were indexed without it; until it has
    them the store's own sparse arm answers."""
    encoder_languages: tuple[str, ...] = ()
    """What the encoder represented when the collection was made; empty when not known."""
    encoder_normalizes: bool | None = None
    """Whether its model brings vectors to length 1 itself; None when not known. All that are
    stored have it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's facts. A time that is 0 in one on its way in is the store's to set; another,
    as a copy of a document brings it, is kept."""

    id: str
    title: str
    source: str
    metadata_json: str
    """A JSON object; as text, because nothing here needs to look inside but the filters."""
    content_hash: str
    format: str
    language: str
    pages: int
    chunks: int
    bytes: int
    created_at: float = 0.0
    updated_at: float = 0.0
    access: tuple[str, ...] = ()
    """Who may read it; empty for everyone in the tenant."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk on its way in."""

    index: int
    text: str
    normalized_text: str
    heading: str
    page: int | None
    language: str


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term ids (32 bits, unique) with their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FieldTerms:
    """A chunk's terms by field, in order and repeated, for a sparse arm that reads words."""

    title: tuple[str, ...]
    heading: tuple[str, ...]
    body: tuple[str, ...]
    bigrams: tuple[str, ...]
    """The character bigrams that an analyser keeps beside its words, of all fields."""


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk with its vectors, bound to the document that was announced under `token`."""

    token: str
    chunk: Chunk
    dense: bytes
    """Little-endian float32."""
    sparse: SparseVector
    terms: FieldTerms | None = None
    """None where no sparse arm reads words."""


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A current chunk as it was indexed, for learning from it."""

    position: int
    """Where the store keeps it: grows from document to document, and is never used again."""
    title: str
    chunk: Chunk
    dense: bytes
    """Little-endian float32."""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is found."""

    chunk_id: str
    document_id: str
    text: str
    source: str
    title: str
    page: int | None
    heading: str
    metadata_json: str
    language: str


class PublishStatus(Enum):
    """What publishing a document did."""

    INDEXED = "indexed"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Published:
    """A document that is durable and searchable."""

    id: str
    chunks: int
    status: str
    """The value of a `PublishStatus`."""


@dataclass(frozen=True, slots=True)
class TenantContents:
    """What a tenant has, counted."""

    collections: int
    documents: int
    chunks: int
    folders: int
    """On disk, the tenant's own included."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a number."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """Bounds of a time, RFC 3339."""

    gt: str | None = None
    gte: str | None = None
    lt: str | None = None
    lte: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of one field; exactly one of the tests is set."""

    field: str
    equals: Scalar | None = None
    any_of: tuple[Scalar, ...] | None = None
    range: Bounds | None = None
    datetime_range: TimeBounds | None = None
    group: "Filter | None" = None


@dataclass(frozen=True, slots=True)
class Filter:
    """All of `must`, none of `must_not`, at least one of `should` when it is not empty."""

    must: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmWeights:
    """Weights of the arms in a fusion, from 0 to 1."""

    dense: float
    sparse: float


@dataclass(frozen=True, slots=True)
class Clause:
    """What a chunk must have: a phrase, or terms in a field."""

    field: str
    """title, heading or body; empty for any."""
    words: tuple[str, ...]
    bigrams: tuple[str, ...]
    """Of which the same holds, as an alternative: a dictionary may cut the words differently."""
    phrase: bool
    """Whether they follow each other, in this order."""


@dataclass(frozen=True, slots=True)
class WordQuery:
    """A query of analysed words."""

    words: tuple[tuple[str, float], ...]
    """With weights; a chunk needs none of them."""
    bigrams: tuple[tuple[str, float], ...] = ()
    clauses: tuple[Clause, ...] = ()
    """All of which hold."""


@dataclass(frozen=True, slots=True)
class StoreQuery:
    """A search, with vectors instead of words."""

    top_k: int
    depth: int
    """Candidates of each arm."""
    weights: ArmWeights
    dense: bytes | None = None
    """Little-endian float32; None leaves the dense arm out."""
    sparse: SparseVector | None = None
    """None leaves the sparse arm out."""
    filter: Filter | None = None
    dense_languages: tuple[str, ...] | None = None
    """Languages that the dense arm may find; None for all."""
    attributes: Attributes = ()
    """The caller's: only chunks of documents that it may read are candidates."""
    vectors: bool = False
    """Whether candidates come with their dense vectors."""
    terms: bool = False
    """Whether candidates come with their terms."""
    words: WordQuery | None = None
    """What `sparse` says, for an arm that reads words."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hit with its place in each arm; ranks count from 1."""

    chunk: StoredChunk
    score: float
    dense_rank: int | None = None
    sparse_rank: int | None = None
    dense_score: float | None = None
    sparse_score: float | None = None
    vector: bytes | None = None
    """Little-endian float32, of length 1; None where it was not asked for."""
    terms: tuple[int, ...] | None = None
    """The ids of the terms that it is indexed under; None where it was not asked for."""


class Store(Protocol):
    """Keeps collections. What it acknowledges survives ``kill -9``.

    A document goes in by `stage` (any number of times) and `publish`; before that nobody sees it,
    after it everybody who may read it sees it whole. A document that a caller's attributes do not
    open does not exist for that caller: it is not found, listed or counted. Any method may raise
    Unavailable ENGINE_UNAVAILABLE.
    """

    @property
    def backend(self) -> str:
        """The back-end's name, such as ``qdrant-edge``."""

    async def start(self) -> None:
        """Return when the store can work."""

    async def aclose(self) -> None:
        """Let go of everything."""

    def availability(self) -> AsyncIterator[bool]:
        """Whether the store works, each time that changes; short restarts are left out."""

    async def create_collection(self, collection: NewCollection, limit: int) -> Collection:
        """Raises: AlreadyExists COLLECTION_EXISTS; ResourceExhausted TOO_MANY_COLLECTIONS."""

    async def get_collection(self, key: CollectionKey, attributes: Attributes = ()) -> Collection:
        """Raises: NotFound COLLECTION_NOT_FOUND, as every method below that takes a key."""

    async def list_collections(
        self, tenant: str, after: str, limit: int, attributes: Attributes = ()
    ) -> Sequence[Collection]:
        """Collections with a name greater than `after`, by name."""

    async def replace_collection(
        self, key: CollectionKey, by: CollectionKey, attributes: Attributes = ()
    ) -> None:
        """Put another collection of the tenant in the place of `key`, in one commit.

        From then on the name of `key` is that of the collection `by`, which keeps its contents
        and its generation and takes over the description and the time of creation; what `key` was
        is deleted, and the name of `by` is free.

        Raises:
            Aborted: COLLECTION_CHANGED, unless both hold the same documents: ids and content
                hashes.
            PermissionDenied: COLLECTION_RESTRICTED, for documents that the caller may not read.
        """

    async def delete_collection(self, key: CollectionKey, attributes: Attributes = ()) -> int:
        """Delete it and return how many documents went with it.

        Raises:
            PermissionDenied: COLLECTION_RESTRICTED, for documents that the caller may not read.
        """

    async def tenant_contents(self, tenant: str) -> TenantContents:
        """What a tenant has, whatever the access lists."""

    async def delete_tenant(self, tenant: str) -> TenantContents:
        """Delete all that a tenant has, whatever the access lists; returns what that was."""

    async def check_documents(
        self,
        key: CollectionKey,
        versions: Sequence[tuple[str, str]],
        attributes: Attributes = (),
    ) -> Sequence[tuple[str, int]]:
        """Of pairs (id, content hash), those that are stored just so: pairs (id, chunks).

        Raises:
            AlreadyExists: DOCUMENT_ID_TAKEN, by a document that the caller may not read.
        """

    async def get_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes = ()
    ) -> Document:
        """Raises: NotFound DOCUMENT_NOT_FOUND."""

    async def list_documents(
        self, key: CollectionKey, after: str, limit: int, attributes: Attributes = ()
    ) -> Sequence[Document]:
        """Documents with an id greater than `after`, by id."""

    async def list_chunks(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes = (),
    ) -> Sequence[StoredChunk]:
        """Chunks from index `start` on. Raises: NotFound DOCUMENT_NOT_FOUND."""

    async def read_document(
        self,
        key: CollectionKey,
        document_id: str,
        start: int,
        limit: int,
        attributes: Attributes = (),
    ) -> tuple[Document, Sequence[IndexedChunk]]:
        """Facts, and chunks from index `start` on as they were indexed, of one moment.

        Raises:
            NotFound: DOCUMENT_NOT_FOUND.
        """

    async def delete_document(
        self, key: CollectionKey, document_id: str, attributes: Attributes = ()
    ) -> int:
        """Delete it and return its number of chunks. Raises: NotFound DOCUMENT_NOT_FOUND."""

    async def stage(
        self,
        key: CollectionKey,
        documents: Sequence[tuple[str, Document]],
        chunks: Sequence[EncodedChunk],
        attributes: Attributes = (),
    ) -> None:
        """Announce documents under tokens of the caller's choice and write chunks of them."""

    async def publish(
        self,
        key: CollectionKey,
        tokens: Sequence[str],
        removing: Sequence[tuple[str, str]] = (),
    ) -> Sequence[Published]:
        """Make complete documents durable and visible, in this order, in one commit.

        Args:
            removing: documents, as pairs (id, content hash), that go first in the same commit.

        Raises:
            AlreadyExists: DOCUMENT_ID_TAKEN, by a document that who staged it may not read.
            Aborted: DOCUMENT_CHANGED, when one of `removing` is no longer so; nothing happens.
        """

    def discard(self, key: CollectionKey, tokens: Sequence[str]) -> None:
        """Forget staged documents; returns at once."""

    async def search(self, key: CollectionKey, query: StoreQuery) -> Sequence[Candidate]:
        """Candidates of the arms, fused, best first."""

    async def term_weights(self, key: CollectionKey, terms: Sequence[int]) -> Sequence[float]:
        """The IDF of each term in the collection, as `search` uses it; 0 for an unknown term."""

    # Learning from a collection's chunks, whoever may read them

    async def sample(self, key: CollectionKey, limit: int, seed: int) -> Sequence[IndexedChunk]:
        """Chunks drawn at random; the same ones for the same seed and content."""

    async def scan(self, key: CollectionKey, after: int, limit: int) -> Sequence[IndexedChunk]:
        """Chunks at positions greater than `after`, in order."""

    async def replace_sparse(
        self, key: CollectionKey, vectors: Sequence[tuple[int, SparseVector]]
    ) -> None:
        """Give chunks, named by position, other sparse vectors; those that are gone stay gone."""

    async def add_words(
        self, key: CollectionKey, terms: Sequence[tuple[int, FieldTerms]], *, last: bool
    ) -> None:
        """Give the arm that reads words chunks that it lacks, named by position.

        Args:
            last: whether it then lacks none.
        """

    async def set_profile(self, key: CollectionKey, generation: str, profile: str) -> None:
        """Keep a profile; nothing happens when another generation has the name."""


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What an encoder is."""

    name: str
    version: str
    """Changes when new vectors no longer compare with old ones; see ADR 19."""
    dimensions: int
    """Components of a vector; every vector has length 1."""
    max_tokens: int
    """Tokens of an input, special tokens included."""
    special_tokens: int
    """How many of them the tokenizer adds itself."""
    vocabulary: int
    """Token ids that inputs may have; 0: it takes texts only."""
    languages: tuple[str, ...]
    """ISO 639-1 codes that it represents; empty when not known."""
    tokenizer: bytes = field(repr=False)
    """The ``tokenizer.json`` that texts for it are cut with."""
    tokenizer_id: str
    """SHA-256 hex of that file."""
    owned_by: str
    backend: str = ""
    """What runs it, as settings name it."""
    precision: str = ""
    """What it computes in, such as ``bfloat16``; empty when not known."""
    revision: str = ""
    """Changes when any vector does, by a prompt or a precision too: caches are keyed by it."""
    parallel: int = 1
    """Forward passes of passages that are worth having at a time."""
    normalizes: bool | None = None
    """Whether the model brings vectors to length 1 itself; None when not known."""

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    def as_in(self, collection: Collection) -> "EncoderFacts":
        """These facts with what the collection's encoder represents, as it was known when the
        collection was made: where these do not say, or are of another encoder."""
        if collection.encoder == self.id and (self.languages or not collection.encoder_languages):
            return self
        return replace(self, languages=collection.encoder_languages)

    def covers(self, language: str) -> bool:
        """Whether its vectors mean something in a language; undetermined text gets the benefit."""
        return not self.languages or language in self.languages or language in ("", "und")


EncoderText = str | Sequence[int]
"""A text, or the ids of its tokens."""


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """An input, ready for a forward pass."""

    content: EncoderText
    """Token ids, special ones included; the text, prompt included, where a server tokenises it."""
    tokens: int
    """How many tokens it has, special ones included; an estimate for a text."""
    unknown: float = 0.0
    """Share of the tokens that the vocabulary does not know, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What a forward pass made."""

    vectors: Matrix
    tokens: int | None = None
    """As a server counted them; None where the inputs' own counts hold."""


class EncoderModel(Protocol):
    """A model that makes vectors of texts, in this process or behind a server.

    `services.retrieve.inprocess` has a base for those that block a thread.
    """

    async def start(self) -> EncoderFacts:
        """Return when it can encode.

        Raises:
            FailedPrecondition: ENCODER_UNREADABLE, and what else only an operator can mend.
        """

    async def aclose(self) -> None:
        """Let go of everything."""

    async def prepare(
        self, inputs: Sequence[EncoderText], *, query: bool, truncate: bool
    ) -> Sequence[EncoderInput]:
        """Put the prompt for questions or passages before texts, and special tokens around ids.

        Args:
            truncate: cut texts to `EncoderFacts.max_tokens`.
        """

    async def encode(self, batch: Sequence[EncoderInput], *, query: bool) -> Forward:
        """Vectors of length 1 for a batch. May be called again before it has returned.

        Args:
            query: whether somebody waits for it: it then overtakes passes that are under way,
                where the model can.
        """


class VectorCache(Protocol):
    """Keeps query vectors for all processes. Losing what it keeps costs time only."""

    async def get(self, key: str) -> bytes | None:
        """What was put under a key; None also when it cannot say so in good time."""

    def put(self, key: str, value: bytes) -> None:
        """Keep a value soon; returns at once and never fails."""

    async def aclose(self) -> None:
        """Let go of everything."""


class Analyzer(Protocol):
    """Makes sparse vectors for BM25; the store multiplies them by the terms' IDF."""

    @property
    def id(self) -> str:
        """Name and version; stored with a collection."""

    def start(self) -> None:
        """Load what it needs; blocks. Every method below may be called from any thread."""

    def lengths(self, text: str) -> tuple[float, ...]:
        """How many terms each of its fields has: what averages are made of."""

    def document(
        self, text: str, language: str, averages: Mapping[str, Sequence[float]]
    ) -> SparseVector:
        """Terms with saturated, length-normalised frequencies.

        Args:
            text: normalised.
            language: ISO 639-1 or ``und``.
            averages: by language, the average `lengths` of a collection's chunks.
        """

    def query(self, text: str, language: str) -> SparseVector:
        """Terms with the weights of their fields; empty when the text has none."""

    def fields(self, text: str) -> tuple[Sequence[str], Sequence[str]]:
        """Words, and character bigrams kept apart from them, in order; `term_id` of them are the
        ids in the vectors."""


@dataclass(frozen=True, slots=True)
class RerankerFacts:
    """What a reranker is."""

    name: str
    version: str
    """Changes whenever its scores do; empty where a remote one does not say."""
    max_tokens: int
    """Tokens that it reads of a query and a text together; 0 when not known."""
    languages: tuple[str, ...]
    """ISO 639-1 codes that it reads; empty when not known."""
    owned_by: str

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name

    def covers(self, language: str) -> bool:
        """Whether it reads a language; undetermined text gets the benefit."""
        return not self.languages or language in self.languages or language in ("", "und")


@dataclass(frozen=True, slots=True)
class Scores:
    """How relevant texts are to a query."""

    values: tuple[float, ...]
    """One a text, finite; higher is better; from 0 to 1 where the model's scores are."""
    tokens: int
    """Tokens that were read, the query's once a text; 0 where a remote one does not say."""


class Reranker(Protocol):
    """Reads a query and a text together, and says how well they fit: a cross-encoder."""

    @property
    def facts(self) -> RerankerFacts:
        """Raises: Unavailable RERANKER_LOADING, before `start` has returned."""

    async def start(self) -> None:
        """Return when it can work; a remote one need not be there yet.

        Raises:
            FailedPrecondition: RERANKER_UNREADABLE, for a model of this process.
        """

    async def aclose(self) -> None:
        """Let go of everything."""

    async def rerank(self, query: str, texts: Sequence[str]) -> Scores:
        """Scores in the order of the texts; what is too long is cut. Cancelling it ends the work.

        Raises:
            RagmeshError: with a reason that begins with ``RERANKER_``.
        """


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with a text, ready for a cross-encoder of this process."""

    data: object
    """What the model's `forward` wants."""
    tokens: int
    """Special tokens included, after cutting."""


class PairModel(Protocol):
    """A cross-encoder of this process. Every method blocks; none is called from the loop."""

    def load(self) -> RerankerFacts:
        """Read the model. Raises: FailedPrecondition RERANKER_UNREADABLE."""

    def pairs(self, query: str, texts: Sequence[str]) -> Sequence[Pair]:
        """A pair a text, cut to what the model reads."""

    def forward(self, batch: Sequence[Pair]) -> Sequence[float]:
        """A score a pair."""
