"""Encoders behind HTTP: what they share, and any server of OpenAI's ``POST /v1/embeddings``.

vLLM, Text Embeddings Inference, LiteLLM, Ollama and OpenAI have that route. Vectors are asked for
in base64 and read as floats where a server ignores that.
"""

import asyncio
import base64
import binascii
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tokenizers import Tokenizer

from services.retrieve.adapters.estimated_tokenizer import estimated_tokenizer
from services.retrieve.adapters.local import normalized
from services.retrieve.adapters.remote import Meaning, Meanings, RemoteModel
from services.retrieve.ports import (
    EncoderFacts,
    EncoderInput,
    EncoderText,
    Forward,
    Matrix,
)
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
_MAX_TOKENS = 512
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two tries to reach a server at the start; doubled each time."""

REFUSED = Meaning(
    InvalidArgument,
    "INPUT_REFUSED",
    "The embedding server refused an input; it may be longer than the model reads.",
)
UNAUTHENTICATED = Meaning(
    FailedPrecondition,
    "ENCODER_AUTHENTICATION_FAILED",
    "The embedding server refused the mesh's key; the operator has to set a valid one.",
)
MISCONFIGURED = Meaning(
    FailedPrecondition,
    "ENCODER_MISCONFIGURED",
    "The embedding server's address serves no such route or model; the operator has to correct it.",
)
LIMITED = Meaning(
    ResourceExhausted, "ENCODER_RATE_LIMITED", "The embedding server's rate limit is reached."
)
OVERLOADED = Meaning(Unavailable, "ENCODER_OVERLOADED", "The embedding server is overloaded.")
DOWN = Meaning(Unavailable, "ENCODER_UNAVAILABLE", "The embedding server is not available.")
LATE = Meaning(DeadlineExceeded, "ENCODER_TIMEOUT", "The embedding server did not answer in time.")
LONG = Meaning(
    InvalidArgument,
    "CONTEXT_LENGTH_EXCEEDED",
    "An input is longer than the embedding model reads.",
)
BAD = Meaning(Internal, "ENCODER_BAD_ANSWER", "The embedding server's answer could not be read.")

MEANINGS = Meanings(
    {
        **dict.fromkeys((301, 302, 307, 308, 404, 405, 415, 501), MISCONFIGURED),
        **dict.fromkeys((400, 413, 422), REFUSED),
        **dict.fromkeys((401, 403), UNAUTHENTICATED),
        **dict.fromkeys((402, 429), LIMITED),
        **dict.fromkeys((408, 504), LATE),
        **dict.fromkeys((424, 500, 502), DOWN),  # 424: TEI's inference failed
        **dict.fromkeys((503, 529), OVERLOADED),
    },
    refused=REFUSED,
    down=DOWN,
    late=LATE,
    bad=BAD,
    long=LONG,
)


class RemoteEncoder:
    """An `EncoderModel` behind a server that tokenises for itself."""

    backend = "openai"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = "",
        settings: RetrieveSettings,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Args:
        url: where ``/embeddings`` lies, such as ``http://host:8000/v1``.
        model: its name there.
        api_key: sent as a bearer token; empty: none.
        settings: prompts, limits and what else there is.
        transport: in place of the network, for tests.
        """
        if not model:
            raise FailedPrecondition(
                "ENCODER_MISCONFIGURED",
                "Set EMBEDDING_MODEL to the model's name at the embedding server.",
            )
        self._base = url.rstrip("/")
        self._url = self._base + "/embeddings"
        self._model = model
        self._settings = settings
        self._server = RemoteModel(
            MEANINGS, api_key=api_key, timeout=settings.embedding_timeout, transport=transport
        )
        self._tokenizer_json = _tokenizer_file(settings.embedding_tokenizer)
        self._tokenizer = Tokenizer.from_str(self._tokenizer_json.decode())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._dimensions = 0
        """Of every vector, once there is one."""

    @classmethod
    def from_settings(cls, settings: RetrieveSettings) -> "RemoteEncoder":
        key = settings.embedding_api_key.get_secret_value()
        if not settings.embedding_url:
            key = key or settings.openai_api_key.get_secret_value()
        url = settings.embedding_url or OPENAI_URL
        return cls(url, settings.embedding_model, api_key=key, settings=settings)

    async def start(self) -> EncoderFacts:
        probe = await self._probe()
        settings = self._settings
        dimensions = self._dimensions = probe.shape[1]
        version = hashlib.sha256(
            "\0".join(
                [self._model, str(dimensions), settings.embedding_passage_prompt or "",
                 settings.embedding_revision]
            ).encode()
        ).hexdigest()[:12]  # fmt: skip
        return EncoderFacts(
            name=self._model,
            version=version,
            dimensions=dimensions,
            max_tokens=settings.embedding_max_tokens or _MAX_TOKENS,
            special_tokens=2,
            vocabulary=0,
            languages=settings.embedding_languages,
            tokenizer=self._tokenizer_json,
            tokenizer_id=hashlib.sha256(self._tokenizer_json).hexdigest(),
            owned_by=self._model.partition("/")[0] if "/" in self._model else "remote",
            backend=self.backend,
            revision=f"remote {settings.embedding_query_prompt or ''}",
            parallel=settings.embedding_parallel,
        )

    async def aclose(self) -> None:
        await self._server.aclose()

    async def prepare(
        self, inputs: Sequence[EncoderText], *, query: bool, truncate: bool
    ) -> Sequence[EncoderInput]:
        prompt = (
            self._settings.embedding_query_prompt
            if query
            else self._settings.embedding_passage_prompt
        )
        texts = [f"{prompt or ''}{one}" for one in inputs if isinstance(one, str)]
        most = (self._settings.embedding_max_tokens or _MAX_TOKENS) - 2
        return await asyncio.to_thread(self._counted, texts, most if truncate else None)

    async def encode(self, batch: Sequence[EncoderInput], *, query: bool) -> Forward:
        size = self._settings.embedding_batch
        vectors: list[Matrix] = []
        tokens = 0
        for start in range(0, len(batch), size):
            texts = [str(one.content) for one in batch[start : start + size]]
            answer = await self._server.post(self._url, self.body(texts, query=query))
            vectors.append(_vectors(answer, len(texts)))
            if vectors[-1].shape[1] != (self._dimensions or vectors[0].shape[1]):
                raise BAD.error()
            tokens += _counted_tokens(answer)
        made = normalized(np.concatenate(vectors))
        return Forward(made, tokens or None)

    def body(self, texts: Sequence[str], *, query: bool) -> dict[str, Any]:
        """A request."""
        body: dict[str, Any] = {
            "model": self._model,
            "input": list(texts),
            "encoding_format": "base64",
        }
        if self._settings.embedding_dimensions:
            body["dimensions"] = self._settings.embedding_dimensions
        return body

    async def check_ready(self) -> None:
        """Raises: Unavailable, where the server can say that it is not ready yet."""

    async def _probe(self) -> Matrix:
        """A vector, once the server makes any."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self.check_ready()
                return (await self.encode([EncoderInput("ragmesh", 3)], query=True)).vectors
            except (Unavailable, ResourceExhausted, DeadlineExceeded) as error:
                log.warning(
                    "the embedding server is not ready",
                    extra={"reason": error.reason, "retry_in": pause},
                )
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            except (InvalidArgument, Internal) as error:
                raise FailedPrecondition("ENCODER_MISCONFIGURED", error.message) from error

    def _counted(self, texts: Sequence[str], most: int | None) -> list[EncoderInput]:
        made: list[EncoderInput] = []
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            count = len(encoding)
            cut = text
            if most is not None and count > most:
                cut, count = text[: encoding.offsets[most - 1][1]], most
            made.append(EncoderInput(cut, count + 2))
        return made


def _tokenizer_file(path: Path | None) -> bytes:
    if path is None:
        return estimated_tokenizer()
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
        Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises a bare one for a malformed file
        raise FailedPrecondition(
            "ENCODER_MISCONFIGURED", "RAGMESH_EMBEDDING_TOKENIZER is no tokenizer.json."
        ) from error
    return data


def _vectors(answer: Any, count: int) -> Matrix:
    """Vectors in the order of the inputs, of one length, finite and not zero."""
    try:
        rows: list[Any] = [None] * count
        for place, one in enumerate(answer["data"]):
            rows[int(one.get("index", place))] = _vector(one["embedding"])
        made = np.stack(rows)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BAD.error() from error
    if made.ndim != 2 or not np.isfinite(made).all() or not made.any(axis=1).all():
        raise BAD.error()
    return made


def _vector(value: Any) -> Matrix:
    if isinstance(value, str):
        try:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        except binascii.Error as error:
            raise BAD.error() from error
    return np.asarray(value, np.float32)


def _counted_tokens(answer: Mapping[str, Any]) -> int:
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else 0
