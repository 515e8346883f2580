"""NVIDIA AI-Q's two generations: the research assistant, to docs/rest-api.md and the schemas of
NVIDIA-AI-Blueprints/aiq-research-assistant; the job service, to docs/source/integration/rest-api.md
and the routes of NVIDIA-AI-Blueprints/aiq."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import SecretStr

from services.infer.adapters.aira_settings import AiraSettings
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import Asked, Failure, Reply, ScriptedServer, sse
from tests.contract.infer.servers.openai import COMPLETION_TOKENS, KEY, PROMPT_TOKENS, TEXT

AGENTS = ("deep_researcher", "shallow_researcher")
TOO_LONG = (
    "Error code: 400 - {'error': {'message': \"This model's maximum context length is 512 tokens. "
    "However, your messages resulted in 513 tokens.\", 'type': 'invalid_request_error'}}"
)
BLOCKED = re.compile(r"ignore\s+(?:all\s+)?previous\s+instructions|system\s*:", re.I)
"""Two of the patterns that the research assistant refuses questions for."""


def event(number: int, kind: str, data: Any) -> str:
    mark = f"id: {number}\n" if number else ""
    return f"{mark}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


class AiraServer(ScriptedServer):
    """The research assistant. It knows no keys of its own; a proxy before it does."""

    citations: ClassVar[Any] = "[1] a.pdf"
    stands_in = "a scripted server of AI-Q's API"
    text = "".join(TEXT)
    # An answer comes in one piece, so there is no moment in the middle of it.
    can = rig.WIRE - {rig.HANG} | {rig.FILTER}
    lead = 0
    rate_limit_delay = 7.0
    failures: ClassVar[dict[str, Failure]] = {
        rig.RATE: Failure(429, {"detail": "Too Many Requests"}, {"retry-after": "7"}),
        rig.AUTH: Failure(401, {"detail": "Unauthorized"}),
        rig.OVERLOAD: Failure(503, "upstream connect error"),
        rig.DOWN: Failure(500, "Internal Server Error"),
        rig.FILTER: Failure(
            422,
            {
                "detail": [
                    {
                        "type": "value_error",
                        "loc": ["body", "question"],
                        "msg": "Value error, Prompt contains potentially harmful content",
                    }
                ]
            },
        ),
    }

    def start(self) -> None:
        self.settings = AiraSettings(url=self.url, api_key=SecretStr(KEY))

    async def answer(self, asked: Asked, reply: Reply) -> None:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return await reply.fail(self.failures[rig.AUTH])
        if asked.path == "/aiqhealth":
            return await reply.send(200, {"status": "OK"})
        if asked.method != "POST":
            return await reply.send(404, {"detail": "Not Found"})
        if self.refusal:
            return await reply.fail(self.refusal)
        if BLOCKED.search(str(asked.body.get("question") or asked.body.get("topic"))):
            return await reply.fail(self.failures[rig.FILTER])
        if asked.path == "/generate_query":
            query = {"query": "foxes", "report_section": "Foxes", "rationale": "They are quick."}
            return await reply.send(200, {"queries": [query], "intermediate_step": None})
        if self.mode == rig.CONTEXT:  # the toolkit puts its errors into a stream without a frame
            error = {"code": "workflow_error", "message": TOO_LONG, "details": "BadRequestError"}
            return await reply.stream((json.dumps(error),))
        if asked.path == "/artifact_qa/stream":
            fields = {"artifact", "question", "chat_history", "use_internet", "rag_collection"}
            assert asked.body.keys() == fields
            return await reply.stream(self.reply(asked.body))
        if asked.path == "/generate_summary/stream":
            assert asked.body["queries"][0]["query"] == "foxes"
            return await reply.stream(self.report())
        return await reply.send(404, {"detail": "Not Found"})

    def reply(self, body: dict[str, Any]) -> Iterator[str]:
        yield 'intermediate_data: {"id": "1", "name": "llm", "payload": "not for readers"}\n\n'
        yield sse({"assistant_reply": self.text, "updated_artifact": body["artifact"]})

    def report(self) -> Iterator[str]:
        state = {"queries": [], "running_summary": "a draft"}
        for step in (json.dumps({"summarize_sources": "読んでいます"}), json.dumps(state)):
            yield sse({"intermediate_step": step, "final_report": None, "citations": None})
        report = {"final_report": self.text, "citations": self.citations}
        yield sse({"intermediate_step": None, **report})


class AiraJobServer(ScriptedServer):
    """The job service. A job runs until it is cancelled or its events were read to the end."""

    stands_in = "a scripted server of AI-Q's API"
    text = "".join(TEXT)
    lead = 2
    rate_limit_delay = None
    failures: ClassVar[dict[str, Failure]] = {
        rig.RATE: Failure(
            429,
            {"detail": "Active job limit reached for this principal (5). Wait for running jobs."},
        ),
        rig.AUTH: Failure(401, {"detail": "Invalid or expired auth token"}),
        rig.OVERLOAD: Failure(
            503, {"detail": "Server is at sandbox capacity; please retry shortly."}
        ),
        rig.DOWN: Failure(500, {"detail": "Failed to persist async job authorization metadata"}),
    }

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, str] = {}
        """Job -> its status."""
        self.cuts = 0
        """Streams that break off after two events each, before one goes on to the end."""
        self.refuse_cancels = 0
        """Cancels that come before their job has begun."""

    def start(self) -> None:
        self.settings = AiraSettings(url=self.url, api_key=SecretStr(KEY), resumes=1)

    @property
    def running(self) -> int:
        return sum(status == "running" for status in self.jobs.values())

    @property
    def aborted(self) -> int:
        return sum(status == "interrupted" for status in self.jobs.values())

    async def answer(self, asked: Asked, reply: Reply) -> None:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return await reply.fail(self.failures[rig.AUTH])
        base, _, rest = asked.path.partition("/v1/jobs/async/")
        if base or not rest:
            return await reply.send(404, {"detail": "Not Found"})
        if rest == "agents":
            agents = [{"agent_type": name, "description": "Researches."} for name in AGENTS]
            return await reply.send(200, {"agents": agents})
        if rest == "submit":
            return await self.submit(asked.body, reply)
        _, job, action, *last = [*rest.split("/"), "", ""]
        if job not in self.jobs:
            return await reply.send(404, {"detail": f"Job not found: {job}"})
        if action == "stream":
            return await self.events(job, int(last[0] or 0), reply)
        if action == "cancel":
            return await self.cancel(job, reply)
        if action == "report":
            done = self.jobs[job] == "success"
            report = self.text if done else None
            return await reply.send(200, {"job_id": job, "has_report": done, "report": report})
        return await reply.send(200, {"job_id": job, "status": self.jobs[job], "error": None})

    async def submit(self, body: dict[str, Any], reply: Reply) -> None:
        if self.refusal:
            return await reply.fail(self.refusal)
        assert body.keys() <= {"agent_type", "input", "job_id", "data_sources"}
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", body["job_id"])
        if body["agent_type"] not in AGENTS:
            return await reply.send(400, {"detail": f"'Unknown agent type: {body['agent_type']}'"})
        if not body["input"].strip():
            return await reply.send(422, {"detail": [{"loc": ["body", "input"], "msg": "blank"}]})
        self.jobs[body["job_id"]] = "running"
        await reply.send(200, {"job_id": body["job_id"], "status": "submitted"})

    async def cancel(self, job: str, reply: Reply) -> None:
        status = self.jobs[job]
        if self.refuse_cancels:
            self.refuse_cancels -= 1
            status = "submitted"
        if status != "running":
            return await reply.send(400, {"detail": f"Job not running: {job} (status: {status})"})
        self.jobs[job] = "interrupted"
        await reply.send(200, {"job_id": job, "status": "interrupted", "task_cancelled": True})

    async def events(self, job: str, after: int, reply: Reply) -> None:
        if after and self.mode == rig.CUT:
            return await reply.stream(())
        stored = [(number, piece) for number, piece in self.stored() if number > after]
        if self.cuts:
            self.cuts -= 1
            # As versions before 2.1 do, the mode of the stream has a number of its own.
            pieces = [piece for _, piece in stored[:2]]
            return await reply.stream([*pieces, event(after + 3, "stream.mode", {"mode": "live"})])
        await reply.stream(self.live(job, stored))

    def live(self, job: str, stored: list[tuple[int, str]]) -> Iterator[str]:
        yield event(0, "stream.mode", {"mode": "polling", "interval_ms": 500})
        for _, piece in stored:
            yield piece
        if self.mode == rig.CONTEXT:
            self.jobs[job] = "failure"
            yield event(0, "job.status", {"status": "failure", "error": TOO_LONG})
            return
        self.jobs[job] = "success"
        yield event(0, "job.status", {"status": "success"})

    def stored(self) -> Iterator[tuple[int, str]]:
        """The events that a job leaves, by their numbers."""
        kinds: list[tuple[str, Any]] = [
            ("workflow.start", {"name": "shallow_research_agent", "data": {"input": "?"}}),
            ("llm.chunk", {"data": {"chunk": "考え"}}),
            ("llm.chunk", {"data": {"chunk": "ます"}}),
            ("llm.end", {"name": "nemotron", "metadata": self.usage()}),
            ("tool.start", {"name": "web_search", "data": {"input": {"query": "foxes"}}}),
            ("artifact.update", self.output("a draft", "draft")),
        ]
        if self.mode != rig.CONTEXT:
            kinds.append(("artifact.update", self.output(self.text, "final_report")))
        for number, (kind, data) in enumerate(kinds, 1):
            yield number, event(number, kind, data)

    def usage(self) -> Any:
        counts = {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS}
        return {"message_count": 2, **({} if self.mode == rig.NO_USAGE else {"usage": counts})}

    @staticmethod
    def output(content: str, category: str) -> Any:
        return {"data": {"type": "output", "content": content, "output_category": category}}
