"""Bytes to text: encodings are told by mark, declaration, structure and, last, by likelihood."""

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

REPLACEMENT = "\ufffd"
# Detection by likelihood reads this much; a whole large file would cost seconds.
_SAMPLE_BYTES = 64 * 1024
_META_BYTES = 4 * 1024
_META_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""",
    re.IGNORECASE,
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# ESC sequences that only ISO-2022-JP has.
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\$\(D|\([BIJ])")
# Labels as they are used: Shift_JIS means Windows' superset of it, as browsers read it.
_LABELS = {
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "ms_kanji": "cp932",
    "windows-31j": "cp932",
    "ms932": "cp932",
    "x-euc-jp": "euc_jp",
    "euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-8859-1": "cp1252",
    "latin-1": "cp1252",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "utf8": "utf-8",
}
# Python's codecs that are charsets of documents. UTF-16 and UTF-32 are told by mark and shape: a
# declaration that can be read as ASCII is not true of them.
_CHARSETS = re.compile(
    r"utf-8|ascii|cp\d+|iso8859-\d+|iso2022_jp\w*|iso2022_kr|euc_\w+|gb\w+|big5\w*|koi8-\w|mac-\w+"
    r"|tis-620|johab|shift_jis\w*"
)
# What cp932 makes of bytes that Shift_JIS does not have.
_NOT_SHIFT_JIS = re.compile(r"[\x80\uf8f0-\uf8f3]")
_JAPANESE = ("cp932", "euc_jp")
_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa\u30fc\u3001\u3002]")
_COMMON_HAN = re.compile(r"[\u4e00-\u9fff]")
_HALF_KANA = re.compile(r"[\uff61-\uff9f]")
_ODD = re.compile(r"[\u0080-\u009f\ue000-\uf8ff]")
_MIN_JAPANESE = 0.05
_MAX_BROKEN = 0.02
_MAX_CONTROLS = 0.3
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text and how it was read."""

    text: str
    encoding: str
    """Python's name of the encoding."""
    replaced: int
    """How many unreadable places became U+FFFD."""

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.replaced:
            return ()
        places = "1 place is" if self.replaced == 1 else f"{self.replaced:,} places are"
        return (f"{places} not valid {self.encoding} and could not be read.",)

    @property
    def is_binary(self) -> bool:
        """Whether this is no text at all: too many controls and unreadable places."""
        return len(_CONTROLS.findall(self.text)) > _MAX_CONTROLS * len(self.text)


def decode(data: bytes, *, html: bool = False, declared: str = "") -> Decoded:
    """Read bytes as text. Never fails: what cannot be read becomes U+FFFD and is counted.

    The order: byte order mark; UTF-16 by its shape; ISO-2022-JP by its escapes; UTF-8 when all of
    it is valid; the declaration in the HTML or in the media type; the better of Shift_JIS and
    EUC-JP when the result reads as Japanese; else what a statistical detector says.

    Args:
        data: the bytes.
        html: look for a charset declared in the markup.
        declared: the charset parameter of the media type; may be empty or wrong.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replace(data[len(mark) :], encoding)
    shape = _utf16_by_shape(data)
    if shape:
        return _replace(data, shape)
    if _ISO_2022_JP.search(data) and data.isascii():
        return _replace(data, "iso2022_jp_ext")
    try:
        return Decoded(data.decode("utf-8"), "utf-8", 0)
    except UnicodeDecodeError:
        pass  # then it is something else, or damaged
    for label in (_meta_charset(data) if html else "", declared):
        encoding = _codec(label)
        if encoding and encoding != "utf-8":
            return _replace(data, encoding)
    return _most_likely(data)


def charset_of(content_type: str) -> str:
    """The charset parameter of a media type; empty when there is none."""
    match = re.search(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]+)", content_type, re.IGNORECASE)
    return match[1] if match else ""


def _meta_charset(data: bytes) -> str:
    # Scripts may fill the first kilobytes of a page: look in the whole head.
    head = data[: 16 * _META_BYTES]
    end = head.lower().find(b"<body")
    match = _META_CHARSET.search(head[:end] if end > 0 else head)
    return match[1].decode("ascii") if match else ""


def _codec(label: str) -> str:
    """Python's name of a charset label; empty for one that is unknown or no charset."""
    name = label.strip().lower()
    name = _LABELS.get(name, name)
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return ""
    return name if _CHARSETS.fullmatch(found) else ""


def _utf16_by_shape(data: bytes) -> str:
    """UTF-16 without a mark: NULs, or the high bytes of kana and kanji, on one side only."""
    sample = data[:_SAMPLE_BYTES]
    if len(sample) < 4 or len(data) % 2:
        return ""
    even, odd = sample[0::2], sample[1::2]
    for high, low, encoding in ((even, odd, "utf-16-be"), (odd, even, "utf-16-le")):
        spread = len(set(low))
        plain = sum(high.count(byte) for byte in (0x00, 0x30, 0xFF))
        han = sum(high.count(byte) for byte in range(0x4E, 0xA0))
        wide = plain + han
        mirrored = low.count(0) + low.count(0x30)
        if wide < 0.95 * len(high) or mirrored > 0.2 * len(low) or plain < 0.3 * len(high):
            continue
        if high.count(0x00) + high.count(0x30) < 0.2 * len(high) or spread < 4:
            continue
        try:
            text = sample.decode(encoding, errors="strict")
        except UnicodeDecodeError as error:
            if error.end < len(sample) - 2:
                continue
            text = sample[: error.start].decode(encoding)
        # ASCII digits make 0x30 a common low byte too: what reads as text decides.
        if not _CONTROLS.search(text) and (not sample.isascii() or "\x00" not in text):
            return encoding if b"\0" in sample or not _is_utf8(sample) else ""
    return ""


def _is_utf8(sample: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _most_likely(data: bytes) -> Decoded:
    sample = data[:_SAMPLE_BYTES]
    scored = sorted(((_japanese(sample, name), name) for name in _JAPANESE), reverse=True)
    score, best = scored[0]
    if score >= _MIN_JAPANESE:
        return _replace(data, best)
    utf8 = _replace(data, "utf-8")
    if utf8.replaced <= _MAX_BROKEN * len(utf8.text):
        return utf8  # a few broken bytes in good UTF-8
    match = from_bytes(sample).best()
    return _replace(data, _codec(match.encoding) or "cp1252") if match else utf8


def _japanese(sample: bytes, encoding: str) -> float:
    """How much a sample reads as Japanese in an encoding: below zero is nonsense."""
    text = sample.decode(encoding, errors="replace")
    foreign = sum(not char.isascii() for char in text)
    if not foreign:
        return 0.0
    good = len(_KANA.findall(text)) * 2 + len(_COMMON_HAN.findall(text)) * 0.5
    bad = (
        text.count(REPLACEMENT) * 4
        + len(_ODD.findall(text)) * 4
        + len(_HALF_KANA.findall(text)) * 0.75
    )
    # Without kana it may be Chinese or anything else: those are not told apart here.
    return (good - bad) / foreign if _KANA.search(text) else min(0.0, good - bad)


def _replace(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, errors="replace")
    if encoding == "cp932":
        text = _NOT_SHIFT_JIS.sub(REPLACEMENT, text)
    # A file may hold U+FFFD of its own only in Unicode; those are not ours to count.
    return Decoded(text, encoding, text.count(REPLACEMENT))
