"""Token counts by the encoder's own tokenizer (Hugging Face `tokenizers`)."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from tokenizers import Tokenizer

from services.runtime.errors import InvalidArgument

_BATCH = 1024


class HuggingFaceTokens:
    """A tokenizer from the bytes of its `tokenizer.json`."""

    def __init__(self, file: bytes) -> None:
        """Raises:
        InvalidArgument: TOKENIZER_INVALID, when the bytes are no tokenizer.
        """
        try:
            self._tokenizer = Tokenizer.from_str(file.decode("utf-8"))
        # The library raises bare Exception for every kind of malformed file.
        except Exception as error:
            raise InvalidArgument(
                "TOKENIZER_INVALID", "The tokenizer's file cannot be read.", field="tokenizer"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        for first in range(0, len(texts), _BATCH):
            batch = list(texts[first : first + _BATCH])
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            counts.extend(len(encoding) for encoding in encodings)
        return counts


class TokenizerCache:
    """The last few tokenizers by id, so that each is built once per worker."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._built: OrderedDict[str, HuggingFaceTokens] = OrderedDict()

    def get(self, tokenizer_id: str, file: bytes) -> HuggingFaceTokens:
        """The tokenizer of a file whose hash was verified.

        Raises:
            InvalidArgument: TOKENIZER_INVALID.
        """
        built = self._built.get(tokenizer_id)
        if built is None:
            built = HuggingFaceTokens(file)
            self._built[tokenizer_id] = built
            if len(self._built) > self._size:
                self._built.popitem(last=False)
        self._built.move_to_end(tokenizer_id)
        return built


def tokenizer_id(file: bytes) -> str:
    """The id of a tokenizer: the SHA-256 hex of its file."""
    return hashlib.sha256(file).hexdigest()
