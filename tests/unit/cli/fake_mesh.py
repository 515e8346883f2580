"""A mesh's REST surface over collections in memory, as a transport of httpx."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from typing import Any
from urllib.parse import unquote

import httpx
from pydantic import SecretStr

from cli.api import Api
from cli.settings import CommandSettings
from gateway import records

Document = dict[str, Any]


@dataclass
class FakeMesh:
    """Documents by collection and id; a document's chunks are the lines of its text."""

    collections: dict[str, dict[str, Document]] = field(default_factory=dict)
    encoder: str = "words@1"
    calls: list[tuple[str, str]] = field(default_factory=list)
    embedded: int = 0
    refuse: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
    """Answers instead, where it has an answer."""
    cut_after: int = -1
    """Lines after which the next export breaks off; -1 for none."""
    generation: str = "g-1"

    def api(self) -> Api:
        settings = CommandSettings(url="http://mesh", token=SecretStr("t"))
        return Api(settings, httpx.MockTransport(self))

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.calls)

    def put(self, collection: str, id: str, text: str, **more: Any) -> None:
        held = self.collections.setdefault(collection, {})
        digest = hashlib.sha256(f"{text} {more}".encode()).hexdigest()
        held[id] = {"id": id, "title": id, "source": id, "metadata": {}, "access": None,
                    "content_hash": digest, "text": text, **more}  # fmt: skip

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        parts = [unquote(part) for part in path.split("/")[3:]]
        self.calls.append((request.method, "/".join(parts)))
        if (refused := self.refuse(request)) is not None:
            return refused
        if not parts:
            name = json.loads(request.read())["name"]
            if name in self.collections:
                return _error(409, "collection_exists")
            self.collections[name] = {}
            return httpx.Response(201, json=self._facts(name))
        name, *rest = parts
        if name not in self.collections:
            return _error(404, "collection_not_found")
        match request.method, rest:
            case "GET", []:
                return httpx.Response(200, json=self._facts(name))
            case "GET", ["export"]:
                return self._export(name, request)
            case "POST", ["unchanged"]:
                return self._unchanged(name, request)
            case "POST", ["import"]:
                return self._import(name, request)
            case "GET", ["documents"]:
                return self._list(name, request)
            case "POST", ["documents"]:
                return self._ingest(name, request)
            case method, ["documents", *id]:
                return self._change(name, method, "/".join(id), request)
        return _error(404, "route_not_found")

    def _facts(self, name: str) -> dict[str, Any]:
        return {"name": name, "encoder": self.encoder, "documents": len(self.collections[name])}

    def _export(self, name: str, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        if asked.get("generation", self.generation) != self.generation:
            return _error(409, "collection_changed", "conflict_error")
        lines = list(self._lines(name, asked.get("after", "")))
        if self.cut_after >= 0:
            lines, self.cut_after = lines[: self.cut_after], -1
        return httpx.Response(200, content=b"".join(lines))

    def _lines(self, name: str, after: str) -> Iterator[bytes]:
        documents = sorted(self.collections[name].items())
        yield records.dump({
            "type": "header", "format": records.FORMAT, "version": 1, "name": name,
            "encoder": self.encoder, "analyzer": "terms@1", "description": "d",
            "documents": len(documents), "generation": self.generation, "everything": True,
            "chunk_tokens": 100, "chunk_overlap": 10, "profile": "",
        })  # fmt: skip
        for id, one in documents:
            if id > after:
                chunks = one["text"].split("\n")
                yield records.dump({"type": "document", "id": id, "chunks": len(chunks),
                                    "content_hash": one["content_hash"]})  # fmt: skip
                for first in range(0, len(chunks), 2):
                    batch = [{"text": text} for text in chunks[first : first + 2]]
                    yield records.dump({"type": "chunks", "first": first, "chunks": batch})
        yield records.dump({"type": "end", "documents": len(documents), "chunks": 0})

    def _unchanged(self, name: str, request: httpx.Request) -> httpx.Response:
        held = self.collections[name]
        found = [
            {"id": one["id"], "chunks": 1}
            for one in json.loads(request.read())["documents"]
            if held.get(one["id"], {}).get("content_hash") == one["content_hash"]
        ]
        return httpx.Response(200, json={"unchanged": found})

    def _import(self, name: str, request: httpx.Request) -> httpx.Response:
        held, done, embedded = self.collections[name], [], 0
        encoder = ""
        facts: Document = {}
        for line in request.read().splitlines():
            record = records.load(line)
            if record["type"] == "header":
                encoder = record["encoder"]
            elif record["type"] == "document":
                facts = {**record, "text": []}
            else:
                facts["text"] += [one["text"] for one in record["chunks"]]
                embedded += 0 if encoder == self.encoder else len(record["chunks"])
                if len(facts["text"]) == facts["chunks"]:
                    status = "replaced" if facts["id"] in held else "indexed"
                    held[facts["id"]] = {**facts, "text": "\n".join(facts["text"])}
                    done.append({"id": facts["id"], "chunks": facts["chunks"], "status": status})
        self.embedded += embedded
        return httpx.Response(200, json={"documents": done, "embedded_chunks": embedded})

    def _list(self, name: str, request: httpx.Request) -> httpx.Response:
        after, limit = request.url.params["after"], int(request.url.params["limit"])
        ids = sorted(id for id in self.collections[name] if id > after)[:limit]
        last = ids[-1] if len(ids) == limit else None
        page = [self.collections[name][id] for id in ids]
        return httpx.Response(200, json={"documents": page, "next": last})

    def _ingest(self, name: str, request: httpx.Request) -> httpx.Response:
        header = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
        form = message_from_bytes(header + request.read(), policy=HTTP)
        files: list[tuple[str, bytes]] = []
        metadata: list[dict[str, Any]] = []
        for part in form.iter_parts():
            content: Any = part.get_payload(decode=True)
            filename = part.get_filename()
            if filename is None:
                metadata = json.loads(content)
            else:
                files.append((filename, content))
        if any(b"BAD" in content for _, content in files):
            return _error(400, "unreadable_document")
        held, done = self.collections[name], []
        for (filename, content), facts in zip(files, metadata, strict=True):
            id = facts.pop("id")
            access = facts.pop("access", None)
            status = "replaced" if id in held else "indexed"
            self.put(name, id, content.decode("utf-8", "replace"), metadata=facts, access=access,
                     source=facts.get("source", filename))  # fmt: skip
            self.embedded += 1
            done.append({"id": id, "chunks": 1, "status": status})
        return httpx.Response(201, json={"documents": done})

    def _change(self, name: str, method: str, id: str, request: httpx.Request) -> httpx.Response:
        held = self.collections[name]
        if id not in held:
            return _error(404, "document_not_found")
        if method == "DELETE":
            del held[id]
            return httpx.Response(200, json={"id": id, "deleted": True})
        change = json.loads(request.read())
        replace, new = change.pop("replace", False), change.get("id", id)
        if new != id and new in held and not replace:
            return _error(409, "document_exists", "conflict_error")
        held[new] = {**held.pop(id), **change}
        return httpx.Response(200, json=held[new])


def _error(status: int, code: str, kind: str = "invalid_request_error") -> httpx.Response:
    error = {"message": f"no: {code}", "type": kind, "param": None, "code": code}
    return httpx.Response(status, json={"error": error})
