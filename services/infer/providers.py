"""The configured engines: which there are, with their settings and limits."""

from collections.abc import Mapping

from services.infer.adapters import PLANNED, REGISTRY
from services.infer.admission import Admission
from services.infer.core import Provider
from services.infer.ports import ModelManager
from services.infer.settings import LEGACY_BACKENDS, EngineSettings, InferSettings
from services.runtime.errors import FailedPrecondition, InvalidArgument, Unimplemented
from services.runtime.registry import resolve
from services.runtime.settings import load


def build_providers(
    settings: InferSettings, registry: Mapping[str, str] = REGISTRY
) -> dict[str, Provider]:
    """The default provider, those that are named, then those that have settings of their own.

    Raises:
        InvalidArgument: UNKNOWN_NAME, for a provider that is not known.
        Unimplemented: NOT_IN_THIS_VERSION, for one that a later version brings.
        FailedPrecondition: PACKAGE_MISSING, or the engine's own, such as MODEL_NAME_REQUIRED.
    """
    names = dict.fromkeys(settings.named_providers)
    names |= dict.fromkeys(
        name for name in registry if name not in names and read(name, registry).configured
    )
    return {name: build_provider(name, settings, registry=registry) for name in names}


def build_provider(
    name: str,
    settings: InferSettings,
    own: EngineSettings | None = None,
    *,
    registry: Mapping[str, str] = REGISTRY,
) -> Provider:
    """One engine with its limits. Raises as `build_providers` does.

    Args:
        own: the provider's settings; None: from the environment.
    """
    what = "MODEL_BACKEND" if name == settings.model_backend else "model provider"
    _require_known(name, what, registry)
    own = own or read(name, registry)
    general = {"connect_timeout": settings.connect_timeout}
    if name == settings.model_backend:
        own = own.filled({**settings.of_the_default, **general})
        key = settings.of_the_default["api_key"]
        if key and "api_key" in type(own).model_fields:  # ours wins over a vendor's variable
            own = own.model_copy(update={"api_key": key})
        if own.needs_model and not own.model:
            raise FailedPrecondition(
                "MODEL_NAME_REQUIRED",
                f"MODEL_BACKEND={name} needs MODEL_NAME, one of the models that it lists.",
            )
    else:
        own = own.filled(general)
    engine = resolve(registry, name, what).from_settings(own)
    return Provider(
        name,
        engine,
        Admission(
            own.max_concurrency or settings.max_concurrency,
            settings.max_queue if own.max_queue is None else own.max_queue,
            provider=name,
            model_limits=own.model_concurrency,
            weights=settings.tenant_weights,
            manager=engine if isinstance(engine, ModelManager) else None,
        ),
        own.model,
        own.context_length or settings.context_length,
    )


def read(name: str, registry: Mapping[str, str] = REGISTRY) -> EngineSettings:
    """A provider's settings from the environment."""
    cls: type[EngineSettings] = resolve(registry, name, "model provider").Settings
    return load(cls)


def _require_known(name: str, what: str, registry: Mapping[str, str]) -> None:
    if name in PLANNED:
        raise Unimplemented(
            "NOT_IN_THIS_VERSION",
            f"{what} {name!r}: a later version brings it; this one has: "
            f"{', '.join(sorted(registry))}.",
        )
    if name not in registry:
        known = sorted({*registry, *PLANNED, *LEGACY_BACKENDS})
        raise InvalidArgument(
            "UNKNOWN_NAME", f"{what} {name!r} is not known; known are: {', '.join(known)}."
        )
