"""Models in folders and on the hub: where they are, what they say of themselves."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

_CPU_FLAGS = Path("/proc/cpuinfo")
_HASHED = ("*.safetensors", "*.bin", "*.onnx", "*.onnx_data", "*.onnx.data", "*.json")


def located(model: str) -> tuple[Path | None, str, str]:
    """A model's folder (None for a hub id), its name, and who made it."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder, folder.resolve().name, "local"
    return None, model, model.partition("/")[0]


def folder_digest(folder: Path) -> str:
    """Twelve hex digits over everything in a folder that decides what its model says."""
    digest = hashlib.sha256()
    for file in sorted({found for glob in _HASHED for found in folder.rglob(glob)}):
        digest.update(f"{file.relative_to(folder)}\0".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def card_languages(folder: Path | None) -> tuple[str, ...]:
    """The languages of a model card's front matter; empty when it does not say, or says all."""
    card = folder / "README.md" if folder else None
    if card is None or not card.is_file():
        return ()
    text = card.read_text(encoding="utf-8", errors="replace")
    head = text.removeprefix("---").partition("\n---")[0] if text.startswith("---") else ""
    found = re.search(
        r"^languages?:[ \t]*(?P<one>.*)\n(?P<many>(?:[ \t]*- .+\n)*)", head + "\n", re.M
    )
    if found is None:
        return ()
    named: Sequence[str] = [
        *re.findall(r"[\w-]+", found["one"]), *re.findall(r"- *['\"]?([\w-]+)", found["many"])
    ]  # fmt: skip
    languages = [one.lower() for one in named]
    if "multilingual" in languages:
        return ()
    return tuple(one for one in languages if one.isalpha())


def computes_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; elsewhere it is emulated, and slow."""
    if not _CPU_FLAGS.is_file():
        return False
    return re.search(r"\b(amx_bf16|avx512_bf16)\b", _CPU_FLAGS.read_text()) is not None


class Cutter:
    """Cuts texts to so many tokens before they are made into pairs.

    Truncation in `tokenizers` keeps what it cuts off, in all combinations of the parts of the query
    and of the text: a long query with long texts would take gigabytes.
    """

    def __init__(self, tokenizer: Tokenizer | None, longest: int) -> None:
        """Args:
        tokenizer: its own from here on; None where a model's cannot tell where tokens end.
        longest: tokens of a pair.
        """
        if tokenizer is not None:
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._longest = longest

    def query(self, text: str) -> str:
        return self._cut(text, 1)

    def text(self, text: str) -> str:
        return self._cut(text, 4)

    def _cut(self, text: str, parts: int) -> str:
        """The beginning of a text, or the whole when it has so few bytes that it makes at most so
        many parts: a token has at least one."""
        if len(text) * 4 <= parts * self._longest:
            return text
        if len(text.encode("utf-8", "replace")) <= parts * self._longest:
            return text
        if self._tokenizer is None:
            return text[: 8 * self._longest]
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text[: offsets[self._longest - 1][1]] if len(offsets) > self._longest else text
