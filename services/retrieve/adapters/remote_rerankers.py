"""Rerankers behind HTTP.

``cohere``: POST …/rerank {model, query, documents, top_n}, answered with results of index and
relevance_score. Cohere's API (v1 and v2), Jina's, LiteLLM's and Infinity's have this shape.
``vllm``: the same, and what is too long is cut. ``tei``: Hugging Face's Text Embeddings Inference,
POST /rerank {query, texts}, answered with a list of index and score. ``nim``: NVIDIA's reranking
NIM, POST /v1/ranking {model, query, passages, truncate}, answered with logits.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from services.retrieve.adapters.remote import Meaning, Meanings, RemoteModel
from services.retrieve.ports import RerankerFacts, Scores
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)

COHERE_URL = "https://api.cohere.com/v2"
_SIMULTANEOUS = 4
"""Requests of one call that are under way at once."""

REFUSED = Meaning(InvalidArgument, "RERANKER_REFUSED", "The reranker refused the request.")
UNAUTHENTICATED = Meaning(
    FailedPrecondition,
    "RERANKER_AUTHENTICATION_FAILED",
    "The reranker refused the mesh's key; the operator has to set a valid one.",
)
MISCONFIGURED = Meaning(
    FailedPrecondition,
    "RERANKER_MISCONFIGURED",
    "The reranker's address serves no such route or model; the operator has to correct it.",
)
LIMITED = Meaning(
    ResourceExhausted, "RERANKER_RATE_LIMITED", "The reranker's rate limit is reached."
)
OVERLOADED = Meaning(Unavailable, "RERANKER_OVERLOADED", "The reranker is overloaded.")
DOWN = Meaning(Unavailable, "RERANKER_UNAVAILABLE", "The reranker is not available.")
LATE = Meaning(DeadlineExceeded, "RERANKER_TIMEOUT", "The reranker did not answer in time.")
LONG = Meaning(
    InvalidArgument,
    "RERANKER_CONTEXT_LENGTH_EXCEEDED",
    "A text is longer than the reranker reads.",
)
BAD = Meaning(Internal, "RERANKER_BAD_ANSWER", "The reranker's answer could not be read.")

MEANINGS = Meanings(
    {
        301: MISCONFIGURED,
        302: MISCONFIGURED,
        307: MISCONFIGURED,
        308: MISCONFIGURED,
        400: REFUSED,
        401: UNAUTHENTICATED,
        402: LIMITED,
        403: UNAUTHENTICATED,
        404: MISCONFIGURED,
        405: MISCONFIGURED,
        408: LATE,
        413: REFUSED,
        415: MISCONFIGURED,
        422: REFUSED,
        424: DOWN,  # TEI: the inference failed
        429: LIMITED,
        498: UNAUTHENTICATED,  # Cohere: the token is blocked
        500: DOWN,
        501: MISCONFIGURED,
        502: DOWN,
        503: OVERLOADED,
        504: LATE,
        529: OVERLOADED,
    },
    refused=REFUSED,
    down=DOWN,
    late=LATE,
    bad=BAD,
    long=LONG,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kind of server is asked."""

    route: str
    body: Callable[[str, str, Sequence[str]], dict[str, Any]]
    """Of model, query and texts."""
    results: Callable[[Any], Any]
    """The list in an answer."""
    score: str
    """The field of a result that has its score, beside `index`."""
    max_texts: int = 1000
    """Texts of one request."""
    logits: bool = False
    """Whether scores are logits."""


def _cohere_body(model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"model": model, "query": query, "documents": texts, "top_n": len(texts)}


def _vllm_body(model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {**_cohere_body(model, query, texts), "truncate_prompt_tokens": -1}


def _tei_body(model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"query": query, "texts": texts, "truncate": True, "raw_scores": False}


def _nim_body(model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {
        "model": model,
        "query": {"text": query},
        "passages": [{"text": text} for text in texts],
        "truncate": "END",
    }


COHERE = Shape("rerank", _cohere_body, lambda answer: answer["results"], "relevance_score")
VLLM = Shape("rerank", _vllm_body, lambda answer: answer["results"], "relevance_score")
# Its limit is a setting of the server, --max-client-batch-size; 32 is the default.
TEI = Shape("rerank", _tei_body, lambda answer: answer, "score", max_texts=32)
NIM = Shape(
    "ranking", _nim_body, lambda answer: answer["rankings"], "logit", max_texts=512, logits=True
)


def cohere(settings: RetrieveSettings) -> "RemoteReranker":
    return _made(settings, COHERE, default_url=COHERE_URL)


def vllm(settings: RetrieveSettings) -> "RemoteReranker":
    return _made(settings, VLLM)


def tei(settings: RetrieveSettings) -> "RemoteReranker":
    return _made(settings, TEI, version="", model="tei")


def nim(settings: RetrieveSettings) -> "RemoteReranker":
    return _made(settings, NIM, api_key=settings.nim_api_key.get_secret_value())


def _made(
    settings: RetrieveSettings,
    shape: Shape,
    *,
    default_url: str = "",
    version: str = "/v1",
    model: str = "",
    api_key: str = "",
) -> "RemoteReranker":
    """A reranker of the settings.

    Args:
        settings: of retrieve.
        shape: of the server.
        default_url: where no address is set.
        version: what is added to an address without a path.
        model: the name of a server's only model.
        api_key: where none is set.

    Raises:
        FailedPrecondition: RERANKER_MISCONFIGURED.
    """
    url = settings.reranker_url or default_url
    model = settings.reranker_model or model
    for variable, value in (("RAGMESH_RERANKER_URL", url), ("RAGMESH_RERANKER_MODEL", model)):
        if not value:
            raise FailedPrecondition(
                "RERANKER_MISCONFIGURED",
                f"RERANKER_BACKEND={settings.reranker_backend} needs {variable}.",
            )
    return RemoteReranker(
        address_of(url, shape.route, version),
        shape,
        model=model,
        api_key=settings.reranker_api_key.get_secret_value() or api_key,
        languages=settings.reranker_languages,
        owned_by=settings.reranker_backend,
    )


def address_of(url: str, route: str, version: str) -> str:
    """The whole address; `url` may end in a route already, or lack the version."""
    url = url.rstrip("/")
    host, _, path = url.partition("://")[2].partition("/")
    if path.rpartition("/")[2] in ("rerank", "ranking", "reranking"):
        return url
    return f"{url}/{route}" if path or not host else f"{url}{version}/{route}"


class RemoteReranker:
    """A `Reranker` behind HTTP."""

    def __init__(
        self,
        address: str,
        shape: Shape,
        *,
        model: str,
        api_key: str = "",
        languages: tuple[str, ...] = (),
        owned_by: str = "",
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Args:
        address: whole.
        shape: of the server.
        model: its name there.
        api_key: sent as a bearer token; empty: none.
        languages: that it reads; empty: all.
        owned_by: who serves it.
        timeout: seconds of silence.
        transport: in place of the network, for tests.
        """
        self._address = address
        self._shape = shape
        self._model = RemoteModel(MEANINGS, api_key=api_key, timeout=timeout, transport=transport)
        self._facts = RerankerFacts(model, "", 0, languages, owned_by)

    @property
    def facts(self) -> RerankerFacts:
        return self._facts

    async def start(self) -> None:
        """Nothing to wait for: a server that is away fails no search."""

    async def aclose(self) -> None:
        await self._model.aclose()

    async def rerank(self, query: str, texts: Sequence[str]) -> Scores:
        limit = asyncio.Semaphore(_SIMULTANEOUS)

        async def ask(part: Sequence[str]) -> Scores:
            body = self._shape.body(self._facts.name, query, part)
            async with limit:
                answer = await self._model.post(self._address, body)
            try:
                return Scores(tuple(_values(self._shape, answer, len(part))), _tokens(answer))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BAD.error() from error

        size = self._shape.max_texts
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        if len(parts) == 1:
            return await ask(parts[0])
        tasks = [asyncio.create_task(ask(part)) for part in parts]
        try:
            made = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return Scores(
            tuple(value for one in made for value in one.values), sum(one.tokens for one in made)
        )


def _values(shape: Shape, answer: Any, count: int) -> Iterator[float]:
    """Scores in the order of the texts.

    Raises:
        ValueError: there is not exactly one number a text; also KeyError and TypeError.
    """
    found: dict[int, float] = {}
    for result in shape.results(answer):
        index, score = result["index"], float(result[shape.score])
        if type(index) is not int or not 0 <= index < count or index in found:
            raise ValueError
        if not math.isfinite(score):
            raise ValueError
        found[index] = _sigmoid(score) if shape.logits else score
    if len(found) != count:
        raise ValueError
    return (found[index] for index in range(count))


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    grown = math.exp(logit)
    return grown / (1.0 + grown)


def _tokens(answer: Any) -> int:
    """What an answer says of the tokens that were read; 0 when it does not."""
    if not isinstance(answer, Mapping):
        return 0
    meta = answer.get("meta") or {}
    for counts, name in (
        (answer.get("usage"), "total_tokens"),
        (meta.get("tokens"), "input_tokens"),
        (meta.get("billed_units"), "total_tokens"),
    ):
        value = (counts or {}).get(name)
        if isinstance(value, int | float) and 0 <= value < 2**31:
            return int(value)
    return 0
