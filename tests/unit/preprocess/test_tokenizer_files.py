"""Tokenizers' files are kept by hash, within a bound."""

import hashlib

import pytest

from services.preprocess.core import TokenizerFiles
from services.runtime.errors import InvalidArgument


def name_of(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


def test_the_least_recently_used_goes_first() -> None:
    files = TokenizerFiles(max_bytes=25)
    first, second, third = b"a" * 10, b"b" * 10, b"c" * 10
    files.put(name_of(first), first)
    files.put(name_of(second), second)
    assert files.get(name_of(first)) == first
    files.put(name_of(third), third)
    assert files.get(name_of(second)) is None
    assert files.get(name_of(first)) == first
    assert files.get(name_of(third)) == third


def test_one_that_fills_the_bound_alone_is_kept() -> None:
    files = TokenizerFiles(max_bytes=1)
    files.put(name_of(b"large"), b"large")
    assert files.get(name_of(b"large")) == b"large"


def test_a_wrong_hash_is_refused() -> None:
    files = TokenizerFiles(max_bytes=100)
    with pytest.raises(InvalidArgument) as caught:
        files.put("0" * 64, b"file")
    assert caught.value.reason == "TOKENIZER_INVALID"
    assert files.get("0" * 64) is None
