"""Every store of the registry, opened the way it is opened in production."""

import pytest

from services.retrieve.adapters import STORES
from services.retrieve.adapters.qdrant.options import QdrantOptions
from services.retrieve.adapters.redis.options import RedisOptions
from services.retrieve.adapters.redis.store import RedisStore
from services.runtime.registry import resolve
from tests.contract.retrieve.qdrant_rest import serving_rest
from tests.contract.retrieve.qdrant_server import Api
from tests.contract.retrieve.redis_eight import durable_server
from tests.contract.retrieve.stores import PLACES, collection, make_store


@pytest.fixture(params=PLACES)
async def open_store(request, tmp_path):
    """A function that makes a store over the same data each time."""
    if request.param == "redis":
        server = durable_server(tmp_path / "server")
        server.start()
        try:
            yield lambda **_: RedisStore(server.url, tmp_path, RedisOptions())
        finally:
            server.kill()
        return
    if request.param not in ("grpc", "http"):
        yield lambda **options: make_store(request.param, tmp_path, **options)
        return
    maker = resolve(STORES, request.param, "store")
    api = Api()
    if request.param == "http":
        async with serving_rest(api.client) as url:
            yield lambda **_: maker(url, QdrantOptions())
        return
    await api.server.start()
    yield lambda **_: maker(api.url, QdrantOptions())
    await api.server.stop(None)


@pytest.fixture
async def store(open_store):
    store = open_store()
    await store.start()
    await store.create_collection(collection(), 10)
    yield store
    await store.aclose()
