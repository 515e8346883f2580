"""The use cases of retrieve, in dataclasses: what a request means, checked and carried out."""

import logging
import math
import re
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from prometheus_client import Histogram

from services.retrieve.access import EVERYTHING
from services.retrieve.analysis import Analysis
from services.retrieve.encoding import Encoder
from services.retrieve.filters import check_filter
from services.retrieve.learning import Learning
from services.retrieve.pages import make_token, page_size, read_token
from services.retrieve.planning import Planner
from services.retrieve.ports import (
    Attributes,
    Chunk,
    Collection,
    CollectionKey,
    Document,
    EncoderFacts,
    FieldTerms,
    Matrix,
    NewCollection,
    Reranker,
    Store,
    StoredChunk,
)
from services.retrieve.relevance import Scale, measure
from services.retrieve.reranking import (
    DEFAULT_RERANKER_ALIAS,
    Reranking,
    reranker_not_configured,
)
from services.retrieve.results import Results
from services.retrieve.searches import Found, Search, check_search, query_text
from services.retrieve.tasks import together
from services.retrieve.turns import Turns
from services.runtime.deadlines import Budget
from services.runtime.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from services.text.language import detect_language
from services.text.normalize import normalize

log = logging.getLogger(__name__)

SEARCH_SECONDS = Histogram(
    "ragmesh_retrieve_search_seconds",
    "Time of a search without its encoding and reranking.",
    ["mode"],
)

DEFAULT_ENCODER_ALIAS = "default-embedding"
MAX_EMBED_INPUTS = 2048
MAX_SCORE_TEXTS = 256
MAX_RERANK_TEXTS = 1000
MAX_RERANK_CHARACTERS = 100_000
MAX_CHECKED_DOCUMENTS = 1000
MAX_DESCRIPTION = 1000
MIN_CHUNK_TOKENS = 16
HIDDEN = "."
"""How the names of collections begin that are being made; no name that is given does."""
AFTER_HIDDEN = "/"
"""Greater than every hidden name and smaller than every other."""
_NAME = re.compile(r"[^\W_][\w.\-]{0,63}")


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, and how many tokens they took."""

    vectors: Matrix
    model: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """Documents by relevance."""

    places: Sequence[tuple[int, float]]
    """Positions with their scores, the best first."""
    model: str
    tokens: int


@dataclass(frozen=True, slots=True)
class CollectionOptions:
    """Defaults and limits of new collections."""

    chunk_tokens: int
    chunk_overlap: int
    max_collections: int


class Retrieval:
    """Searching, embedding and keeping house. Indexing is `services.retrieve.indexing`."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        analysis: Analysis,
        options: CollectionOptions,
        reranking: Reranking | None = None,
        *,
        reads_words: bool = False,
    ) -> None:
        """Args:
        store: keeps the collections.
        encoder: makes dense vectors.
        analysis: makes sparse ones.
        options: of new collections.
        reranking: the reranker; None where there is none.
        reads_words: whether the store's sparse arm reads words beside vectors.
        """
        self.store = store
        self.encoder = encoder
        self.analysis = analysis
        self.analyzer = analysis.analyzer
        self.reads_words = reads_words
        self.reranking = reranking
        self.learning = Learning(store, encoder, analysis)
        self.turns = Turns()
        self._options = options
        self._measured: Scale | None = None
        self._held: set[CollectionKey] = set()
        self._reindexing: set[CollectionKey] = set()

    @contextmanager
    def hold(self, key: CollectionKey) -> Iterator[None]:
        """Refuse writes to a collection for as long as this lasts."""
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)

    @contextmanager
    def reindexing(self, key: CollectionKey) -> Iterator[None]:
        """Be the one call of this process that makes a collection anew.

        Raises:
            Aborted: REINDEX_RUNNING.
        """
        if key in self._reindexing:
            raise Aborted("REINDEX_RUNNING", "The collection is being made anew already.")
        self._reindexing.add(key)
        try:
            yield
        finally:
            self._reindexing.discard(key)

    def check_free(self, key: CollectionKey) -> None:
        """Raises: Unavailable COLLECTION_BUSY, while writes to the collection are held."""
        if key in self._held:
            raise Unavailable(
                "COLLECTION_BUSY",
                "The collection that was made anew is being put in place; try again.",
                retry_after=1.0,
            )

    async def start(self) -> None:
        """Return when everything can work; store and models start side by side."""
        await together(self.store.start(), self._start_models(), self.analysis.start())
        self.learning.start()

    async def _start_models(self) -> None:
        """One after the other: they import the same libraries, which two threads must not."""
        await self.encoder.start()
        if self.reranking is not None:
            await self.reranking.reranker.start()

    async def aclose(self) -> None:
        await self.learning.aclose()
        await self.analysis.aclose()
        if self.reranking is not None:
            await self.reranking.reranker.aclose()
        await self.encoder.aclose()
        await self.store.aclose()

    # Search

    async def search(self, tenant: str, request: Search, time_left: float | None = None) -> Found:
        """The hits of a search.

        Args:
            tenant: whose collection it is.
            request: what is asked.
            time_left: seconds until the caller's deadline.
        """
        if request.rerank and self.reranking is None:
            raise reranker_not_configured("rerank")
        deadline = None if time_left is None else Budget(time_left)
        queries = check_search(request)
        self.turns.searched()
        if request.filter is not None:
            check_filter(request.filter)
        key = visible(tenant, request.collection)
        collection = await self.store.get_collection(key, request.attributes)
        self.check_match(collection, dense=request.mode != "sparse")
        measured = self.learning.notice(key, collection).weights
        planner = Planner(
            store=self.store,
            encoder=self.encoder,
            analyzer=self.analyzer,
            key=key,
            collection=collection,
            measured=measured,
            reads_words=self.reads_words,
        )
        plans = [await planner.plan(request, query) for query in queries]
        results = Results(
            store=self.store,
            analyzer=self.analyzer,
            covers=self.encoder.facts.as_in(collection).covers,
            scale=await self._scale() if request.relevant_only else Scale(0.0),
            key=key,
            collection=collection,
            search=request,
            plans=plans,
            reranking=self.reranking if request.rerank else None,
            deadline=deadline,
        )
        started = time.perf_counter()
        found = await results.find()
        spent = time.perf_counter() - started - (found.rerank.seconds if found.rerank else 0.0)
        SEARCH_SECONDS.labels(request.mode).observe(spent)
        return found

    async def _scale(self) -> Scale:
        """How the encoder's cosines are to be read; measured when it is first needed."""
        if self._measured is None:
            self._measured = await measure(self.encoder)
        return self._measured

    def check_match(self, collection: Collection, *, dense: bool = True) -> None:
        """Refuse a collection whose vectors another encoder or analyser made.

        Raises:
            FailedPrecondition: ENCODER_MISMATCH or ANALYZER_MISMATCH.
        """
        if dense and collection.encoder != self.encoder.facts.id:
            raise FailedPrecondition(
                "ENCODER_MISMATCH",
                f"The collection was made with the encoder {collection.encoder}, and "
                f"{self.encoder.facts.id} is running: `ragmesh collections reindex` makes it anew, "
                "or set EMBEDDING_MODEL to the former. Sparse search still works.",
                field="collection",
            )
        if collection.analyzer != self.analyzer.id:
            raise FailedPrecondition(
                "ANALYZER_MISMATCH",
                f"The collection was made with the analyser {collection.analyzer}, and "
                f"{self.analyzer.id} is running: `ragmesh collections reindex` makes it anew, or "
                f"set RAGMESH_ANALYZER={collection.analyzer.partition('@')[0]} where that is the "
                "same version.",
                field="collection",
            )

    # Models

    def check_model(self, model: str) -> EncoderFacts:
        """The encoder of a name.

        Raises:
            NotFound: MODEL_NOT_FOUND.
        """
        facts = self.encoder.facts
        if model not in ("", facts.name, facts.id, DEFAULT_ENCODER_ALIAS):
            raise NotFound(
                "MODEL_NOT_FOUND",
                f"The encoder {model[:100]!r} does not exist; there is {facts.name!r}.",
                field="model",
            )
        return facts

    async def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        *,
        model: str = "",
        query: bool = False,
        dimensions: int = 0,
        tenant: str = "",
    ) -> Embedded:
        """Vectors of texts or token lists; nothing is cut to the model's limit."""
        facts = self.check_model(model)
        if dimensions not in (0, facts.dimensions):
            raise InvalidArgument(
                "DIMENSIONS_UNSUPPORTED",
                f"{facts.name} makes vectors of {facts.dimensions} dimensions only.",
                field="dimensions",
            )
        _check_count(inputs, MAX_EMBED_INPUTS, "inputs")
        for index, one in enumerate(inputs):
            if not (one.strip() if isinstance(one, str) else one):
                raise InvalidArgument("INPUT_EMPTY", "An input is empty.", field=f"inputs[{index}]")
        for index, one in enumerate(inputs):
            if not isinstance(one, str):
                self._check_tokens(one, index)
        texts = [normalize(one) if isinstance(one, str) else one for one in inputs]
        prepared = await self.encoder.prepare(texts, query=query, truncate=False)
        for index, ready in enumerate(prepared):
            # A text's tokens are an estimate; its server refuses it by the exact count.
            if ready.tokens > facts.max_tokens and not isinstance(ready.content, str):
                raise InvalidArgument(
                    "INPUT_TOO_LONG",
                    f"An input has {ready.tokens} tokens; {facts.name} reads {facts.max_tokens}.",
                    field=f"inputs[{index}]",
                )
        encoded = await self.encoder.encode(prepared, query=query, stream=tenant)
        return Embedded(encoded.vectors, facts.name, encoded.tokens)

    def _check_tokens(self, ids: Sequence[int], index: int) -> None:
        """Raises: InvalidArgument INPUT_INVALID, for ids that the encoder does not have."""
        facts = self.encoder.facts
        if not facts.vocabulary:
            raise InvalidArgument(
                "INPUT_INVALID",
                f"{facts.name} takes texts, no token ids.",
                field=f"inputs[{index}]",
            )
        if max(ids) >= facts.vocabulary:
            raise InvalidArgument(
                "INPUT_INVALID",
                f"A token id is not one of the {facts.vocabulary} of the encoder.",
                field=f"inputs[{index}]",
            )

    async def rerank(
        self, query: str, documents: Sequence[str], *, model: str = "", top_n: int = 0
    ) -> Ranked:
        """Documents by their relevance to a query, whatever their language."""
        reranker = self._reranker(model)
        text = query_text(query, "query")
        _check_count(documents, MAX_RERANK_TEXTS, "documents")
        if top_n < 0:
            raise InvalidArgument("TOP_N_OUT_OF_RANGE", "top_n is at least 1.", field="top_n")
        for index, one in enumerate(documents):
            if not one.strip():
                raise InvalidArgument(
                    "INPUT_EMPTY", "A document is empty.", field=f"documents[{index}]"
                )
            if len(one) > MAX_RERANK_CHARACTERS:
                raise InvalidArgument(
                    "INPUT_TOO_LONG",
                    f"A document has at most {MAX_RERANK_CHARACTERS} characters.",
                    field=f"documents[{index}]",
                )
        made = await reranker.rerank(text, [normalize(one) for one in documents])
        places = sorted(enumerate(made.values), key=lambda one: (-one[1], one[0]))
        return Ranked(places[: top_n or None], reranker.facts.name, made.tokens)

    def _reranker(self, model: str) -> Reranker:
        """The reranker of a name.

        Raises:
            FailedPrecondition: RERANKER_NOT_CONFIGURED.
            NotFound: MODEL_NOT_FOUND.
        """
        if self.reranking is None:
            raise reranker_not_configured("model")
        reranker = self.reranking.reranker
        facts = reranker.facts
        if model not in ("", facts.name, facts.id, DEFAULT_RERANKER_ALIAS):
            raise NotFound(
                "MODEL_NOT_FOUND",
                f"The reranker {model[:100]!r} does not exist; there is {facts.name!r}.",
                field="model",
            )
        return reranker

    async def score(self, sentences: Sequence[str], passages: Sequence[str]) -> Matrix:
        """Cosines of shape (sentences, passages); NaN where the encoder does not cover a text."""
        _check_count(sentences, MAX_SCORE_TEXTS, "sentences")
        _check_count(passages, MAX_SCORE_TEXTS, "passages")
        texts = [normalize(text) for text in (*sentences, *passages)]
        covered = np.array([self.encoder.facts.covers(detect_language(one)) for one in texts])
        matrix = np.full((len(sentences), len(passages)), math.nan, dtype=np.float32)
        rows, columns = covered[: len(sentences)], covered[len(sentences) :]
        if not rows.any() or not columns.any():
            return matrix
        wanted = [text for text, known in zip(texts, covered, strict=True) if known]
        prepared = await self.encoder.prepare(wanted)
        vectors = (await self.encoder.encode(prepared, query=True)).vectors
        split = int(rows.sum())
        matrix[np.ix_(rows, columns)] = vectors[:split] @ vectors[split:].T
        return np.clip(matrix, -1.0, 1.0)

    async def tokenizer(self, tokenizer_id: str) -> bytes:
        """The file of a tokenizer.

        Raises:
            NotFound: TOKENIZER_NOT_FOUND.
        """
        facts = self.encoder.facts
        if tokenizer_id != facts.tokenizer_id:
            raise NotFound(
                "TOKENIZER_NOT_FOUND",
                "No running encoder has this tokenizer.",
                field="tokenizer_id",
            )
        return facts.tokenizer

    # Collections

    async def field_terms(self, chunks: Sequence[tuple[str, Chunk]]) -> Sequence[FieldTerms | None]:
        """Terms of chunks, given with their documents' titles, where the sparse arm reads them."""
        if not self.reads_words:
            return [None] * len(chunks)
        return await self.analysis.field_terms(chunks)

    async def create_collection(
        self,
        tenant: str,
        name: str,
        *,
        description: str = "",
        chunk_tokens: int = 0,
        chunk_overlap: int | None = None,
    ) -> Collection:
        check_name(name)
        if len(description) > MAX_DESCRIPTION:
            raise InvalidArgument(
                "DESCRIPTION_TOO_LONG",
                f"A description has at most {MAX_DESCRIPTION} characters.",
                field="description",
            )
        facts = self.encoder.facts
        most = facts.max_tokens - facts.special_tokens
        tokens = chunk_tokens or min(self._options.chunk_tokens, most)
        overlap = min(self._options.chunk_overlap, tokens // 4)
        if chunk_overlap is not None:
            overlap = chunk_overlap
        if not MIN_CHUNK_TOKENS <= tokens <= most:
            raise InvalidArgument(
                "CHUNK_TOKENS_OUT_OF_RANGE",
                f"chunk_tokens lies from {MIN_CHUNK_TOKENS} to {most}.",
                field="chunk_tokens",
            )
        if not 0 <= overlap <= tokens // 2:
            raise InvalidArgument(
                "CHUNK_OVERLAP_OUT_OF_RANGE",
                "chunk_overlap lies from 0 to half of chunk_tokens.",
                field="chunk_overlap",
            )
        new = NewCollection(
            CollectionKey(tenant, name), description, facts.id, facts.dimensions,
            self.analyzer.id, facts.tokenizer_id, tokens, overlap, facts.languages,
            facts.normalizes,
        )  # fmt: skip
        return await self.store.create_collection(new, self._options.max_collections)

    async def list_collections(
        self, tenant: str, size: int, token: str, attributes: Attributes = ()
    ) -> tuple[Sequence[Collection], str]:
        size, listing = page_size(size), f"collections {tenant}"
        after = read_token(listing, token) or AFTER_HIDDEN
        found = await self.store.list_collections(tenant, after, size + 1, attributes)
        more = len(found) > size
        return found[:size], make_token(listing, found[size - 1].name) if more else ""

    async def delete_collection(self, tenant: str, name: str, attributes: Attributes = ()) -> int:
        """Delete it, with what was begun to take its place; returns its number of documents."""
        documents = await self.store.delete_collection(visible(tenant, name), attributes)
        with suppress(NotFound):
            await self.store.delete_collection(hidden(tenant, name), (EVERYTHING,))
        return documents

    # Documents

    async def delete_document(
        self, tenant: str, collection: str, document_id: str, attributes: Attributes = ()
    ) -> int:
        """Delete it and return its number of chunks."""
        key = visible(tenant, collection)
        self.check_free(key)
        return await self.store.delete_document(key, document_id, attributes)

    async def check_documents(
        self,
        tenant: str,
        collection: str,
        versions: Sequence[tuple[str, str]],
        attributes: Attributes = (),
    ) -> Sequence[tuple[str, int]]:
        if len(versions) > MAX_CHECKED_DOCUMENTS:
            raise InvalidArgument(
                "TOO_MANY_INPUTS",
                f"At most {MAX_CHECKED_DOCUMENTS} documents are checked at once.",
                field="documents",
            )
        key = visible(tenant, collection)
        return await self.store.check_documents(key, versions, attributes)

    async def list_documents(
        self, tenant: str, name: str, size: int, token: str, attributes: Attributes = ()
    ) -> tuple[Sequence[Document], str]:
        key, size = visible(tenant, name), page_size(size)
        collection = await self.store.get_collection(key)
        listing = f"documents {collection.generation}"
        after = read_token(listing, token)
        found = await self.store.list_documents(key, after, size + 1, attributes)
        more = len(found) > size
        return found[:size], make_token(listing, found[size - 1].id) if more else ""

    async def list_chunks(
        self,
        tenant: str,
        name: str,
        document_id: str,
        size: int,
        token: str,
        *,
        attributes: Attributes = (),
    ) -> tuple[Sequence[StoredChunk], str]:
        key, size = visible(tenant, name), page_size(size)
        document = await self.store.get_document(key, document_id, attributes)
        # A token ends with the content: the chunks of another content are counted differently.
        listing = f"chunks {tenant} {name} {document_id} {document.content_hash}"
        start = int(read_token(listing, token) or 0)
        found = await self.store.list_chunks(key, document_id, start, size, attributes)
        end = start + size
        return found, make_token(listing, str(end)) if end < document.chunks else ""


def visible(tenant: str, name: str) -> CollectionKey:
    """The key of a collection that a caller names.

    Raises:
        NotFound: COLLECTION_NOT_FOUND, for the name of one that is being made.
    """
    if name.startswith(HIDDEN):
        raise NotFound(
            "COLLECTION_NOT_FOUND",
            f"The collection {name[:100]!r} does not exist.",
            field="collection",
        )
    return CollectionKey(tenant, name)


def hidden(tenant: str, name: str) -> CollectionKey:
    """The key of what is being made to take a collection's place."""
    return CollectionKey(tenant, f"{HIDDEN}{name}")


def check_name(name: str) -> None:
    """Raises: InvalidArgument COLLECTION_NAME_INVALID."""
    if not _NAME.fullmatch(name) or unicodedata.normalize("NFC", name) != name:
        raise InvalidArgument(
            "COLLECTION_NAME_INVALID",
            "A collection's name has 1 to 64 letters, digits, '_', '-' and '.', begins with a "
            "letter or digit and is in Unicode's NFC form.",
            field="name",
        )


def _check_count(inputs: Sequence[object], most: int, field: str) -> None:
    if not inputs:
        raise InvalidArgument("INPUT_EMPTY", "There is no input.", field=field)
    if len(inputs) > most:
        raise InvalidArgument(
            "TOO_MANY_INPUTS", f"At most {most} inputs are read at once.", field=field
        )
