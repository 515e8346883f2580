import pytest

from tests.contract.retrieve.stores import ARMS, collection, make_store


@pytest.fixture(params=ARMS)
def open_store(request, tmp_path):
    """A function that makes a store over the same data each time."""
    return lambda **options: make_store(request.param, tmp_path, **options)


@pytest.fixture
async def store(open_store):
    store = open_store()
    await store.start()
    await store.create_collection(collection(), 10)
    yield store
    await store.aclose()
