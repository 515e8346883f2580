"""An encoder whose model is a table: as quick as looking words up, for benches of all the rest.

Its vectors mean what `bench.corpus` says. ``EMBEDDING_MODEL`` is the corpus' ``SEED,CHUNKS``, and
the dimensions where they are not 384.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bench.corpus import Corpus, vectors
from services.retrieve.inprocess import InProcessModel, Tokens
from services.retrieve.ports import EncoderFacts, Matrix
from services.retrieve.settings import RetrieveSettings

NAME = "word-vectors"
WORD_VECTORS = "bench.word_vectors:WordVectors"
DIMENSIONS = 384
MAX_TOKENS = 256
UNKNOWN = "[UNK]"


class WordVectors(InProcessModel):
    """The encoder."""

    holds_gil = True

    @classmethod
    def from_settings(cls, settings: RetrieveSettings) -> "WordVectors":
        return cls(settings.embedding_model)

    def __init__(self, model: str = "") -> None:
        """Args:
        model: see the module's docstring; empty for seed 1 and 100,000 chunks.
        """
        super().__init__()
        numbers = [int(part) for part in (model or "1,100000").split(",")]
        seed, chunks, self._dimensions = (*numbers, DIMENSIONS)[:3]
        self._corpus = Corpus(seed, chunks=chunks)
        self._version = f"{seed}-{chunks}-{self._dimensions}"

    def load(self) -> EncoderFacts:
        corpus = self._corpus
        self._turn = corpus.turned(self._dimensions)
        table = np.zeros((1, corpus.directions.shape[1]), np.float32)
        self._table = np.concatenate([corpus.directions, table])  # the last one is not known
        self._unknown = len(corpus.words)
        vocabulary = {word: number for number, word in enumerate(corpus.words)}
        vocabulary[UNKNOWN] = self._unknown
        self._tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
        self._tokenizer.normalizer = normalizers.Lowercase()
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("removed")]
        )
        written = self._tokenizer.to_str().encode()
        return EncoderFacts(
            name=NAME, version=self._version, dimensions=self._dimensions, max_tokens=MAX_TOKENS,
            special_tokens=0, vocabulary=len(vocabulary), languages=("en",), tokenizer=written,
            tokenizer_id=hashlib.sha256(written).hexdigest(), owned_by="bench",
        )  # fmt: skip

    def tokenize(self, texts: Sequence[str], *, query: bool, truncate: bool) -> list[Tokens]:
        found = []
        for one in self._tokenizer.encode_batch_fast(list(texts)):
            ids = one.ids[:MAX_TOKENS] if truncate else one.ids
            unknown = ids.count(self._unknown) / len(ids) if ids else 0.0
            found.append(Tokens(tuple(ids), unknown))
        return found

    def wrap(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(ids)

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        ids = [np.asarray(one or [self._unknown], np.int32) for one in batch]
        return vectors(self._table, ids, self._turn)
