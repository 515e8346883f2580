"""Calls of engines and encoders within the tenant's tokens and streams, for both faces."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing

from gateway.exchange import Call
from gateway.limits.limiter import Limiter
from gateway.limits.tokens import MESSAGE_TOKENS, TokensExceeded, estimate_tokens
from ragmesh.infer.v1 import infer_pb2
from ragmesh.retrieve.v1 import retrieve_pb2

Events = AsyncGenerator[infer_pb2.GenerateResponse, None]

IMAGE_TOKENS = 1000
"""What engines take for an image, about."""


def prompt_tokens(request: infer_pb2.GenerateRequest) -> int:
    """Tokens of what an engine will read, about."""
    pieces = sum(1 for message in request.messages for _ in message.content)
    images = sum(
        part.HasField("image_url") for message in request.messages for part in message.content
    )
    overhead = MESSAGE_TOKENS * (1 + pieces + len(request.passages)) + IMAGE_TOKENS * images
    return overhead + sum(estimate_tokens(text) for text in _texts(request))


async def generate_within_limits(
    limiter: Limiter,
    call: Call,
    request: infer_pb2.GenerateRequest,
    run: Callable[[infer_pb2.GenerateRequest], Events],
) -> Events:
    """The events of a generation, whose tokens are reserved before and settled after.

    Args:
        run: starts the engine; gets the request with the most tokens that the answer may have.

    Raises:
        ResourceExhausted: TOKEN_LIMIT_EXCEEDED, STREAM_LIMIT_EXCEEDED.
        InvalidArgument: TOKEN_LIMIT_TOO_SMALL.
    """
    choices = max(1, request.n)
    asked = request.sampling.HasField("max_tokens")
    try:
        work = await limiter.begin(
            call.tenant,
            prompt=prompt_tokens(request) if limiter.counts_tokens else 0,
            max_output=request.sampling.max_tokens * choices if asked else None,
            stream=request.stream,
        )
    except TokensExceeded as error:
        call.exchange.headers.update(error.headers)
        raise
    with work:
        call.exchange.headers.update(work.headers)
        if work.max_output is not None and not asked:
            bounded = infer_pb2.GenerateRequest()
            bounded.CopyFrom(request)
            bounded.sampling.max_tokens = max(1, work.max_output // choices)
            request = bounded
        async with aclosing(run(request)) as events:
            async for event in events:
                match event.WhichOneof("event"):
                    case "delta":
                        work.tokens.saw(estimate_tokens(event.delta.text + event.delta.reasoning))
                    case "usage":
                        usage = event.usage
                        work.tokens.settle(usage.prompt_tokens + usage.completion_tokens)
                        call.exchange.headers.update(work.headers)
                    case _:
                        pass
                yield event


async def embed_within_limits(
    limiter: Limiter,
    call: Call,
    request: retrieve_pb2.EmbedRequest,
    run: Callable[[retrieve_pb2.EmbedRequest], Awaitable[retrieve_pb2.EmbedResponse]],
) -> retrieve_pb2.EmbedResponse:
    """Embeddings, whose tokens are reserved before and settled after.

    Raises:
        ResourceExhausted: TOKEN_LIMIT_EXCEEDED.
        InvalidArgument: TOKEN_LIMIT_TOO_SMALL.
    """
    if not limiter.counts_tokens:
        return await run(request)
    prompt = sum(
        len(each.tokens.ids) if each.HasField("tokens") else estimate_tokens(each.text)
        for each in request.inputs
    )
    try:
        work = await limiter.begin(call.tenant, prompt=prompt, max_output=0, stream=False)
    except TokensExceeded as error:
        call.exchange.headers.update(error.headers)
        raise
    with work:
        made = await run(request)
        work.tokens.report(made.tokens)
    call.exchange.headers.update(work.headers)
    return made


async def rerank_within_limits(
    limiter: Limiter,
    call: Call,
    request: retrieve_pb2.RerankRequest,
    run: Callable[[retrieve_pb2.RerankRequest], Awaitable[retrieve_pb2.RerankResponse]],
) -> retrieve_pb2.RerankResponse:
    """An order, whose tokens are reserved before and settled after.

    Raises:
        ResourceExhausted: TOKEN_LIMIT_EXCEEDED.
        InvalidArgument: TOKEN_LIMIT_TOO_SMALL.
    """
    if not limiter.counts_tokens:
        return await run(request)
    prompt = reranked_tokens(request)
    try:
        work = await limiter.begin(call.tenant, prompt=prompt, max_output=0, stream=False)
    except TokensExceeded as error:
        call.exchange.headers.update(error.headers)
        raise
    with work:
        made = await run(request)
        work.tokens.report(made.tokens or prompt)
    call.exchange.headers.update(work.headers)
    return made


def reranked_tokens(request: retrieve_pb2.RerankRequest) -> int:
    """Tokens of what a reranker will read, about: the query once a document."""
    query = estimate_tokens(request.query)
    return sum(query + estimate_tokens(one) for one in request.documents)


def _texts(request: infer_pb2.GenerateRequest) -> Iterator[str]:
    yield request.text
    for message in request.messages:
        for part in message.content:
            yield part.text
        for made in message.tool_calls:
            yield made.arguments
    for passage in request.passages:
        yield passage.text
        yield passage.title
        yield passage.heading
    for tool in request.tools:
        yield tool.description
        yield tool.parameters_json
