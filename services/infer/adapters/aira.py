"""NVIDIA AI-Q by its REST service, in either of its two generations; `ready` finds out which."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from services.infer.adapters.aira_jobs import JobService
from services.infer.adapters.aira_service import ERRORS, AiraService
from services.infer.adapters.aira_settings import AiraSettings, configured
from services.infer.adapters.failures import WRONG_ADDRESS, failure
from services.infer.adapters.http import OK, Answer, HttpServer, bearer
from services.infer.ports import Capabilities, EngineEvent, GenerateRequest, ModelInfo
from services.runtime.errors import RagmeshError

log = logging.getLogger(__name__)

_ASKING_TIMEOUT = 5.0
_ELSEWHERE = frozenset({404, 405})
"""Statuses of a server that has no such route."""


class AiraEngine:
    """AI-Q."""

    Settings = AiraSettings

    def __init__(self, settings: AiraSettings) -> None:
        """Raises:
        FailedPrecondition: SETTING_REQUIRED, CONFIG_UNREADABLE, URL_INVALID, CA_FILE_UNREADABLE.
        """
        settings = configured(settings)
        url = settings.require("url", "http://aiq-backend:8000")
        self._settings = settings
        self._server = HttpServer.from_settings(url, settings, bearer(settings))
        self._service = AiraService(self._server, settings)
        self._jobs = JobService(self._server, settings)
        self._found: AiraService | JobService | None = None

    @classmethod
    def from_settings(cls, settings: AiraSettings) -> "AiraEngine":
        return cls(settings)

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(max_stops=0, reads_tasks=True)

    async def models(self) -> Sequence[ModelInfo]:
        try:
            found = self._found or await self._detect()
        except RagmeshError:
            return ()
        length = self._settings.context_length
        return [ModelInfo(name, length, found.owned_by) for name in found.models]

    async def ready(self) -> None:
        await self._detect()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        found = self._found or await self._detect()
        async with aclosing(found.generate(request)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        await self._jobs.aclose()
        await self._server.aclose()

    async def _detect(self) -> AiraService | JobService:
        """Find out which generation answers now.

        Raises:
            RagmeshError: none does; or ENGINE_AUTHENTICATION_FAILED.
        """
        agents = _agents(await self._ask("/v1/jobs/async/agents"))
        found: AiraService | JobService = self._service
        if agents is not None:
            self._jobs.know(agents)
            found = self._jobs
        elif (await self._ask("/aiqhealth")).status != OK:
            raise failure(WRONG_ADDRESS)
        if found is not self._found:
            log.info("AI-Q is %s, with %s", found.owned_by, ", ".join(found.models))
            self._found = found
        return found

    async def _ask(self, path: str) -> Answer:
        answer = await self._server.request("GET", path, timeout=_ASKING_TIMEOUT)
        if answer.status != OK and answer.status not in _ELSEWHERE:
            raise ERRORS.error(answer.status, answer.body, answer.headers)
        return answer


def _agents(answer: Answer) -> list[str] | None:
    """The names of a list of agents; None where the answer is none, such as a web page's."""
    try:
        listed = answer.json()["agents"] if answer.status == OK else None
        return None if listed is None else [str(one["agent_type"]) for one in listed]
    except (RagmeshError, TypeError, KeyError):
        return None
