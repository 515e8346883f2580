import pytest

from services.retrieve.pages import DEFAULT_PAGE_SIZE, make_token, page_size, read_token
from services.runtime.errors import InvalidArgument


@pytest.mark.parametrize("last", ["", "a", "文書\n1", "x" * 512])
def test_a_token_gives_the_key_back(last):
    assert read_token("documents x", make_token("documents x", last)) == last


@pytest.mark.parametrize("token", ["!", "AAAA", make_token("documents y", "a"), "日本"])
def test_other_tokens_are_refused(token):
    with pytest.raises(InvalidArgument) as caught:
        read_token("documents x", token)
    assert caught.value.reason == "PAGE_TOKEN_INVALID"


def test_sizes():
    assert page_size(0) == DEFAULT_PAGE_SIZE
    assert page_size(1000) == 1000
    for wrong in (-1, 1001):
        with pytest.raises(InvalidArgument, match="1000"):
            page_size(wrong)
