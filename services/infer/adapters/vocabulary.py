"""The bytes behind a token's number, as Hugging Face's tokenizers write them."""

import re
from typing import Any

PLAIN_CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""The chat template of a model that brings none."""

_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")
"""How SentencePiece writes a byte that is in no token."""
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + place): byte
    for place, byte in enumerate(byte for byte in range(0x100) if byte not in set(_PRINTED))
}
"""How a byte-level vocabulary (Radford et al., "Language Models are Unsupervised Multitask
Learners", 2019) writes bytes: printable ones as themselves, the rest from U+0100 on."""


class Vocabulary:
    """A tokenizer's vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        """Args:
        tokenizer: of transformers.
        """
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._special = frozenset(tokenizer.all_special_ids)
        self._by_bytes = backend is not None and '"ByteLevel"' in backend.to_str()

    def is_special(self, token: int) -> bool:
        """Whether it marks something instead of spelling text."""
        return token in self._special

    def bytes_of(self, token: int) -> bytes:
        """A token's bytes, which may be a part of a character."""
        written = str(self._tokenizer.convert_ids_to_tokens(token))
        if self._by_bytes and all(one in _BYTES for one in written):
            return bytes(_BYTES[one] for one in written)
        if _FALLBACK.fullmatch(written):
            return bytes([int(written[3:5], 16)])
        return str(self._tokenizer.decode([token])).encode()

    def prompt(self, messages: list[dict[str, Any]], *, continue_final: bool) -> list[int]:
        """The tokens of a chat; arguments as `render`."""
        text = self.render(messages, continue_final=continue_final)
        # A template writes the special tokens itself.
        return self.tokens(text, add_special_tokens=False)

    def render(self, messages: list[dict[str, Any]], *, continue_final: bool) -> str:
        """A chat by the model's own template.

        Args:
            messages: of OpenAI's protocol.
            continue_final: go on with the last message instead of beginning a new one.
        """
        text: str = self._tokenizer.apply_chat_template(
            [{**one, "content": one["content"] or ""} for one in messages],
            chat_template=None if self._tokenizer.chat_template else PLAIN_CHAT,
            tokenize=False,
            add_generation_prompt=not continue_final,
            continue_final_message=continue_final,
        )
        return text

    def tokens(self, text: str, **options: bool) -> list[int]:
        """The tokens of a text, with those that the model wants around it."""
        ids: list[int] = self._tokenizer(text, verbose=False, **options)["input_ids"]
        return ids


def plain_chat(messages: list[dict[str, Any]], *, continue_final: bool) -> str:
    """`PLAIN_CHAT` where no template engine is at hand; arguments as `Vocabulary.render`."""
    lines = [f"{one['role']}: {one['content'] or ''}" for one in messages]
    return "\n".join(lines) if continue_final else "\n".join([*lines, "assistant:"])
