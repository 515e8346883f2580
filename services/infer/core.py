"""Routes a generation to its engine and watches over it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from services.infer.admission import Admission
from services.infer.extensions import read_extensions
from services.infer.ports import (
    Capabilities,
    Delta,
    Engine,
    Event,
    GenerateRequest,
    ModelInfo,
    Started,
    Usage,
)
from services.infer.validation import validate, validate_support
from services.infer.watch import Deadline, timeout, within
from services.infer.work import Work
from services.runtime.errors import Internal, NotFound, RagmeshError, Unavailable

DEFAULT_ALIAS = "default"
STANDING_ALIASES = (DEFAULT_ALIAS, "fast", "smart")
LISTING_TIMEOUT = 5.0
"""Seconds that an engine may take to list its models before it is listed without them."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A configured engine; `model` is its default one, empty when the engine is to be asked."""

    name: str
    engine: Engine
    admission: Admission
    model: str = ""
    context_length: int = 0
    """Tokens, where the engine does not say; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes."""

    provider: Provider
    model: str
    """The engine's own name."""
    alias: str = ""
    context_length: int = 0

    @property
    def capabilities(self) -> Capabilities:
        return self.provider.engine.capabilities(self.model)

    @property
    def provider_model(self) -> str:
        return f"{self.provider.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """An alias or a model as a client may name it."""

    id: str
    owned_by: str
    capabilities: Capabilities
    target: str = ""
    context_length: int = 0


@dataclass(slots=True)
class Inference:
    """The model table of one process."""

    providers: Mapping[str, Provider]
    """By name; the first is the default one."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Alias -> ``provider/model``, beside the standing ones."""
    engine_timeout: float = 600.0
    """Seconds for callers without a deadline."""

    @property
    def default(self) -> Provider:
        return next(iter(self.providers.values()))

    async def route(self, name: str) -> Route:
        """Find what ``name``, an alias or ``provider/model``, stands for.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            Unavailable: ENGINE_UNAVAILABLE, when only the engine could say and does not answer.
        """
        name = name or DEFAULT_ALIAS
        if name in self.aliases or name in STANDING_ALIASES:
            target = self.aliases.get(name) or f"{self.default.name}/{self.default.model}"
            alias = name
        else:
            target, alias = name, ""
        provider_name, _, model = target.partition("/")
        provider = self.providers.get(provider_name)
        if provider is None or (not model and not alias):
            provider = self._by_model(target)
            model = target
        if provider is None:
            raise _unknown(name)
        known = {info.name: info for info in await self._models(provider)}
        if not model:
            model = next(iter(known), "")
        if not model:
            raise Unavailable(
                "ENGINE_UNAVAILABLE", "The model's engine does not answer.", retry_after=1.0
            )
        info = known.get(model)
        if info is None and known and provider.engine.capabilities(model).lists_all:
            raise _unknown(name)
        length = (info.context_length if info else 0) or provider.context_length
        return Route(provider, model, alias, length)

    async def generate(self, route: Route, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Generate: `Started`, then the engine's events.

        Raises:
            RagmeshError: as InferService.Generate lists.
        """
        request = read_extensions(request)
        validate(request)
        validate_support(request, route.capabilities)
        loop = asyncio.get_running_loop()
        budget = self.engine_timeout if request.timeout is None else request.timeout
        end = loop.time() + budget
        request = replace(request, model=route.model, timeout=budget)
        admission = route.provider.admission
        async with admission.slot(end, tenant=request.tenant, model=route.model):
            yield Started(route.provider_model, route.alias)
            can = route.capabilities
            work = Work(
                route.provider.engine,
                can,
                route.context_length,
                lambda: admission.slot(end, tenant=request.tenant, model=route.model),
            )
            said: list[str] = []
            finished: set[int] = set()
            usage: Usage | None = None
            async with within(end):
                engine_events = await work.begin(request)
            async with aclosing(engine_events) as events:
                with Deadline(end) as deadline:
                    while True:
                        deadline.begin()
                        try:
                            event = await anext(events)
                        except StopAsyncIteration:
                            break
                        except asyncio.CancelledError:
                            if deadline.struck():
                                raise timeout() from None
                            raise
                        deadline.finish()
                        if isinstance(event, Delta):
                            if can.counts_tokens:
                                said.append(event.text)
                        elif isinstance(event, Usage):
                            usage = event
                            continue
                        else:
                            finished.add(event.index)
                        yield event
            if len(finished) < request.n:
                raise Internal("ENGINE_BAD_ANSWER", "The engine's answer broke off.")
            yield await work.settle(usage, "".join(said))

    async def list_models(self) -> list[ListedModel]:
        """Aliases, then every provider's models. An engine that does not answer in time is
        listed by its configured model alone."""
        lists = await asyncio.gather(*(self._models(p) for p in self.providers.values()))
        by_provider = dict(zip(self.providers, lists, strict=True))
        listed: list[ListedModel] = []
        for alias in dict.fromkeys((*STANDING_ALIASES, *self.aliases)):
            target = self.aliases.get(alias) or f"{self.default.name}/{self.default.model}"
            provider_name, _, model = target.partition("/")
            provider = self.providers[provider_name]
            infos = by_provider[provider_name]
            model = model or (infos[0].name if infos else "")
            length = next((i.context_length for i in infos if i.name == model), 0)
            listed.append(
                ListedModel(
                    alias,
                    "ragmesh",
                    provider.engine.capabilities(model),
                    f"{provider_name}/{model}",
                    length or provider.context_length,
                )
            )
        for provider in self.providers.values():
            listed.extend(
                ListedModel(
                    f"{provider.name}/{info.name}",
                    info.owned_by or provider.name,
                    provider.engine.capabilities(info.name),
                    context_length=info.context_length or provider.context_length,
                )
                for info in by_provider[provider.name]
            )
        return listed

    async def available(self) -> bool:
        """Whether the default provider's engine answers."""
        try:
            async with asyncio.timeout(LISTING_TIMEOUT):
                await self.default.engine.ready()
        except (RagmeshError, TimeoutError):
            return False
        return True

    async def aclose(self) -> None:
        for provider in self.providers.values():
            await provider.engine.aclose()

    def _by_model(self, model: str) -> Provider | None:
        """A provider by its configured model's own name, as OpenAI clients send it."""
        return next((p for p in self.providers.values() if p.model and p.model == model), None)

    async def _models(self, provider: Provider) -> Sequence[ModelInfo]:
        infos: Sequence[ModelInfo] = ()
        with suppress(RagmeshError, TimeoutError):
            async with asyncio.timeout(LISTING_TIMEOUT):
                infos = await provider.engine.models()
        if not provider.model:
            return infos
        # The configured model is the default one, whether or not the server lists it.
        own = [info for info in infos if info.name == provider.model]
        others = [info for info in infos if info.name != provider.model]
        return [*(own or [ModelInfo(provider.model)]), *others]


def _unknown(name: str) -> NotFound:
    return NotFound("MODEL_NOT_FOUND", f"The model {name[:200]!r} does not exist.", field="model")
