"""A server that speaks Qdrant's public gRPC API and computes with qdrant-client's local mode.

No Qdrant runs here. What a store sends goes over a real socket in Qdrant's own messages, is read
back with the client's own conversions and carried out by its local mode, one request after
another, as a shard's leader does. So this tests our requests and what they rely on, not Qdrant.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as q
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

VERSION = "1.20.1"


Hook = Callable[[str, Any], Awaitable[None]]


async def _nothing(method: str, request: Any) -> None:
    """Interferes with nothing."""


class Api:
    """The three services, and what a test wants to know and to spoil."""

    def __init__(self, version: str = VERSION, api_key: str = "") -> None:
        self.client = AsyncQdrantClient(":memory:")
        self.version = version
        self.api_key = api_key
        self.requests: list[tuple[str, Any]] = []
        self.before: Hook = _nothing
        """Awaited before a request is carried out; may raise a `Refusal`."""
        self.after: Hook = _nothing
        """The same, after it was carried out and before it is answered."""
        self.server = grpc.aio.server()
        q.add_QdrantServicer_to_server(self._face(_QDRANT), self.server)
        q.add_CollectionsServicer_to_server(self._face(_COLLECTIONS), self.server)
        q.add_PointsServicer_to_server(self._face(_POINTS), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def sent(self, method: str) -> list[Any]:
        """Requests of one method, in order."""
        return [request for name, request in self.requests if name == method]

    def _face(self, methods: dict[str, Callable[..., Any]]) -> Any:
        """A servicer with these methods; the others are missing, as in an older server."""
        return type("Face", (), {"__getattr__": lambda _, name: self._method(name, methods)})()

    def _method(self, name: str, methods: dict[str, Callable[..., Any]]) -> Any:
        async def call(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            self.requests.append((name, request))
            try:
                if self.api_key and metadata.get("api-key") != self.api_key:
                    raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
                if name not in methods:
                    raise Refusal(grpc.StatusCode.UNIMPLEMENTED, name)
                await self.before(name, request)
                answer = await methods[name](self, request)
                await self.after(name, request)
                return answer
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.text)
            except KeyError as error:
                text = f"Not found: No point with id {error} found"
                await context.abort(grpc.StatusCode.NOT_FOUND, text)
            except ValueError as error:
                found = "already exists" in str(error)
                code = "ALREADY_EXISTS" if found else "INVALID_ARGUMENT"
                await context.abort(grpc.StatusCode[code], str(error))
            raise AssertionError("aborted")

        return call


class Refusal(Exception):
    """A status that the server answers with."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


async def _health(api: Api, request: Any) -> Any:
    return q.HealthCheckReply(title="qdrant - vector search engine", version=api.version)


async def _exists(api: Api, request: Any) -> Any:
    found = await api.client.collection_exists(request.collection_name)
    return q.CollectionExistsResponse(result=q.CollectionExists(exists=found))


async def _list(api: Api, request: Any) -> Any:
    found = (await api.client.get_collections()).collections
    return q.ListCollectionsResponse(
        collections=[q.CollectionDescription(name=one.name) for one in found]
    )


async def _create(api: Api, request: Any) -> Any:
    sparse = request.sparse_vectors_config
    await api.client.create_collection(
        request.collection_name,
        vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
        sparse_vectors_config=GrpcToRest.convert_sparse_vector_config(sparse)
        if request.HasField("sparse_vectors_config")
        else None,
    )
    return q.CollectionOperationResponse(result=True)


async def _index(api: Api, request: Any) -> Any:
    return _done()  # local mode has no indexes


async def _upsert(api: Api, request: Any) -> Any:
    modes = {
        q.UpdateMode.InsertOnly: models.UpdateMode.INSERT_ONLY,
        q.UpdateMode.UpdateOnly: models.UpdateMode.UPDATE_ONLY,
    }
    await api.client.upsert(
        request.collection_name,
        [GrpcToRest.convert_point_struct(one) for one in request.points],
        update_filter=_filter(request, "update_filter"),
        update_mode=modes.get(request.update_mode) if request.HasField("update_mode") else None,
    )
    return _done()


async def _delete(api: Api, request: Any) -> Any:
    selector = GrpcToRest.convert_points_selector(request.points)
    await api.client.delete(request.collection_name, selector)
    return _done()


async def _set_payload(api: Api, request: Any) -> Any:
    await api.client.set_payload(
        request.collection_name,
        GrpcToRest.convert_payload(request.payload),
        GrpcToRest.convert_points_selector(request.points_selector),
    )
    return _done()


async def _update_vectors(api: Api, request: Any) -> Any:
    vectors = [GrpcToRest.convert_point_vectors(one) for one in request.points]
    await api.client.update_vectors(request.collection_name, vectors)
    return _done()


async def _get(api: Api, request: Any) -> Any:
    records = await api.client.retrieve(
        request.collection_name,
        [GrpcToRest.convert_point_id(one) for one in request.ids],
        with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
        with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
    )
    return q.GetResponse(result=[RestToGrpc.convert_record(one) for one in records])


async def _scroll(api: Api, request: Any) -> Any:
    offset = request.offset if request.HasField("offset") else None
    records, following = await api.client.scroll(
        request.collection_name,
        _filter(request, "filter"),
        limit=request.limit,
        offset=None if offset is None else GrpcToRest.convert_point_id(offset),
        with_payload=GrpcToRest.convert_with_payload_interface(request.with_payload),
    )
    answer = q.ScrollResponse(result=[RestToGrpc.convert_record(one) for one in records])
    if following is not None:
        answer.next_page_offset.CopyFrom(RestToGrpc.convert_extended_point_id(str(following)))
    return answer


async def _count(api: Api, request: Any) -> Any:
    found = await api.client.count(request.collection_name, _filter(request, "filter"))
    return q.CountResponse(result=q.CountResult(count=found.count))


async def _facet(api: Api, request: Any) -> Any:
    found = await api.client.facet(
        request.collection_name, request.key, _filter(request, "filter"), request.limit
    )
    return q.FacetResponse(hits=[RestToGrpc.convert_facet_value_hit(one) for one in found.hits])


async def _query_batch(api: Api, request: Any) -> Any:
    requests = [GrpcToRest.convert_query_points(one) for one in request.query_points]
    for one in requests:  # local mode searches exactly, and warns where it is asked to hurry
        if one.params is not None:
            one.params = models.SearchParams(idf=one.params.idf) if one.params.idf else None
    answers = await api.client.query_batch_points(request.collection_name, requests)
    return q.QueryBatchResponse(
        result=[
            q.BatchResult(result=[RestToGrpc.convert_scored_point(hit) for hit in one.points])
            for one in answers
        ]
    )


def _filter(request: Any, name: str) -> models.Filter | None:
    if not request.HasField(name):
        return None
    return GrpcToRest.convert_filter(getattr(request, name))


def _done() -> Any:
    result = q.UpdateResult(operation_id=0, status=q.UpdateStatus.Completed)
    return q.PointsOperationResponse(result=result)


_QDRANT = {"HealthCheck": _health}
_COLLECTIONS = {"CollectionExists": _exists, "List": _list, "Create": _create}
_POINTS = {
    "CreateFieldIndex": _index, "Upsert": _upsert, "Delete": _delete, "Get": _get,
    "SetPayload": _set_payload, "UpdateVectors": _update_vectors, "Scroll": _scroll,
    "Count": _count, "Facet": _facet, "QueryBatch": _query_batch,
}  # fmt: skip
