"""Where AI-Q is and what it may do: variables, and the file that deployments had before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from services.infer.settings import ServerSettings, names
from services.runtime.errors import FailedPrecondition

_ADDRESSES = ("url", "base_url", "aira_url", "aira_base_url", "endpoint")
_SECTIONS = ("aira", "aiq")
_TOOLKIT_PORT = 8000
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - what the service listens on, read only


def _sources(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = tuple(name.strip() for name in value.split(",") if name.strip())
    return () if found == ("none",) else found


class AiraSettings(ServerSettings):
    """NVIDIA AI-Q, in either generation."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_AIRA_")
    activating: ClassVar[frozenset[str]] = ServerSettings.activating | {"config_path"}

    url: str = ""
    """Address of AI-Q's back-end; empty: what the file of ``AIRA_CONFIG_PATH`` says."""
    config_path: Path | None = Field(
        None, validation_alias=names("AIRA_CONFIG_PATH", "AIRA_CONFIG_PATH")
    )
    """YAML or JSON file that may hold the address, as ``url`` or ``base_url``, and ``api_key``, at
    its top or under ``aira``; of AI-Q's own configuration ``general.front_end`` is read, its host
    and port."""
    data_sources: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_sources)] = None
    """What agents of the current blueprint may search, by comma; ``none``: nothing; unset: all that
    they have. Summaries and rewritten questions never search."""
    resumes: int = Field(8, ge=0)
    """Times in a row that a job's broken stream is taken up again although nothing came."""
    collection: str = ""
    """Collection that the older service searches."""
    search_web: bool = False
    """Whether the older service searches the web too."""
    report_model: str = "nemotron"
    """The model that writes the older service's reports, by its name in AI-Q's configuration."""
    report_queries: int = Field(3, ge=1)
    """Queries that a report of the older service begins with."""
    report_reflections: int = Field(1, ge=0)
    """Times that the older service revises a report."""


def configured(settings: AiraSettings) -> AiraSettings:
    """The settings with what their file says, where they say nothing themselves.

    Raises:
        FailedPrecondition: CONFIG_UNREADABLE: the file cannot be read.
    """
    path = settings.config_path
    if path is None:
        return settings
    try:
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FailedPrecondition(
            "CONFIG_UNREADABLE", f"AIRA_CONFIG_PATH: {path} cannot be read as YAML or JSON."
        ) from error
    sections = [file, *(_section(file, name) for name in _SECTIONS)]
    said: dict[str, Any] = {}
    for section in (one for one in sections if isinstance(one, Mapping)):
        for name in _ADDRESSES:
            if str(section.get(name) or "").startswith(("http://", "https://")):
                said.setdefault("url", section[name])
        if isinstance(section.get("api_key"), str):
            said.setdefault("api_key", section["api_key"])
    front_end = _section(_section(file, "general"), "front_end")
    if front_end is not None:
        host = front_end.get("host") or ""
        host = "127.0.0.1" if host in _EVERYWHERE else host
        said.setdefault("url", f"http://{host}:{front_end.get('port') or _TOOLKIT_PORT}")
    if "api_key" in said:
        said["api_key"] = SecretStr(said["api_key"])
    own = {"url": settings.url, "api_key": settings.api_key.get_secret_value()}
    return settings.model_copy(update={k: v for k, v in said.items() if not own[k]})


def _section(file: Any, name: str) -> Mapping[str, Any] | None:
    section = file.get(name) if isinstance(file, Mapping) else None
    return section if isinstance(section, Mapping) else None
