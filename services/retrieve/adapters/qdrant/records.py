"""What the catalogue's points hold."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.retrieve.adapters.catalog import Row, tenant_digest
from services.retrieve.adapters.qdrant import ids
from services.retrieve.ports import CollectionKey, Document, NewCollection

FORMAT = 1
HISTORY = 64
"""Earlier versions that a document's record names."""

KIND, FOLDER, TENANT = "kind", "folder", "tenant"
COLLECTION, MOVED, DOCUMENT, TOMBSTONE, LEASE, DROPPED = (
    "collection", "moved", "document", "tombstone", "lease", "dropped",
)  # fmt: skip
"""Kinds of records."""

_FACTS = (
    "description", "encoder", "dimensions", "analyzer", "tokenizer_id", "chunk_tokens",
    "chunk_overlap",
)  # fmt: skip
_DOCUMENT = (
    "title", "source", "metadata_json", "content_hash", "format", "language", "pages", "chunks",
    "bytes", "created_at", "updated_at",
)  # fmt: skip

Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CollectionRow(Row):
    """A collection's record."""

    changed: str = ""
    """Another whenever its documents are others."""

    @property
    def point(self) -> str:
        return collection_point(self.facts.key)


def collection_point(key: CollectionKey) -> str:
    return ids.record(COLLECTION, key.tenant, key.name)


def collection_payload(new: NewCollection, folder: str, now: float) -> dict[str, Any]:
    facts = {name: getattr(new, name) for name in _FACTS}
    return facts | {
        "encoder_languages": list(new.encoder_languages),
        "encoder_normalizes": new.encoder_normalizes,
        KIND: COLLECTION, TENANT: tenant_digest(new.key.tenant), FOLDER: folder,
        "name": new.key.name, "created_at": now, "profile": "", "changed": "",
    }  # fmt: skip


def collection_row(tenant: str, given: Payload) -> CollectionRow:
    key = CollectionKey(tenant, given["name"])
    # The last two are what collections of earlier versions lack.
    languages, normalizes = given.get("encoder_languages", ()), given.get("encoder_normalizes")
    known = [*(given[name] for name in _FACTS), tuple(languages), normalizes]
    facts = NewCollection(key, *known)
    return CollectionRow(
        0, given[FOLDER], facts, given["created_at"], given["profile"], given["changed"]
    )


def dropped_payload(folder: str, name: str, now: float) -> dict[str, Any]:
    return {
        KIND: DROPPED,
        TENANT: folder.partition("/")[0],
        FOLDER: folder,
        "name": name,
        "at": now,
    }


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a document id: its current version, or that there is none any more."""

    revision: int = 0
    """Grows with every change; 0 where nothing is recorded."""
    version: int = 0
    """The current one; 0 for none."""
    history: tuple[int, ...] = ()
    """Versions that were current once, the latest last. None becomes current again."""
    buried: tuple[int, ...] = ()
    """Versions that were given up before they were current. None becomes current any more."""
    document: Document | None = None
    languages: Counter[str] | None = None
    """Chunks by language."""

    def succeeded(self, version: int, document: Document, languages: Counter[str]) -> "Record":
        """The record after a document is published."""
        return Record(self.revision + 1, version, self._past(), self.buried, document, languages)

    def deleted(self) -> "Record":
        """The record after the document is deleted."""
        return Record(self.revision + 1, 0, self._past(), self.buried)

    def undone(self, before: "Record") -> "Record":
        """The record after a publication is taken back, whose chunks before are still there."""
        past = (*self.history, self.version)[-HISTORY:]
        return replace(before, revision=self.revision + 1, history=past, buried=self.buried)

    def without(self, version: int) -> "Record":
        """The record after a version is given up that never became current."""
        buried = (*self.buried, version)[-HISTORY:]
        return replace(self, revision=self.revision + 1, buried=buried)

    def knows(self, version: int) -> bool:
        """Whether a version is or was current."""
        return version == self.version or version in self.history

    def _past(self) -> tuple[int, ...]:
        return (*self.history, *([self.version] if self.version else []))[-HISTORY:]


def document_point(folder: str, document_id: str) -> str:
    return ids.record(DOCUMENT, folder, document_id)


def record_payload(folder: str, record: Record, now: float) -> dict[str, Any]:
    base: dict[str, Any] = {
        TENANT: folder.partition("/")[0], FOLDER: folder, "revision": record.revision,
        "history": [ids.text_of(one) for one in record.history],
        "buried": [ids.text_of(one) for one in record.buried],
    }  # fmt: skip
    document = record.document
    if document is None:
        return base | {KIND: TOMBSTONE, "at": now}
    languages = dict(sorted((record.languages or {}).items()))
    return base | {name: getattr(document, name) for name in _DOCUMENT} | {
        KIND: DOCUMENT, "id": document.id, "version": ids.text_of(record.version),
        "languages": json.dumps(languages), "access": list(document.access),
        "summary": json.dumps([list(document.access), languages], ensure_ascii=False),
    }  # fmt: skip


def record_of(given: Payload) -> Record:
    history = tuple(int(one, 16) for one in given["history"])
    buried = tuple(int(one, 16) for one in given["buried"])
    if given[KIND] == TOMBSTONE:
        return Record(given["revision"], 0, history, buried)
    version, languages = int(given["version"], 16), Counter(json.loads(given["languages"]))
    return Record(given["revision"], version, history, buried, document_of(given), languages)


def document_of(given: Payload) -> Document:
    facts = {name: given[name] for name in _DOCUMENT}
    return Document(id=given["id"], access=tuple(given["access"]), **facts)


@dataclass(frozen=True, slots=True)
class Lease:
    """A version that is being written, or whose predecessors are being removed."""

    version: int
    folder: str
    record: str
    """The point of its document's record."""
    name: str
    """The Qdrant collection of its chunks."""

    @property
    def point(self) -> str:
        return ids.record(LEASE, ids.text_of(self.version))

    def payload(self, now: float) -> dict[str, Any]:
        return {
            KIND: LEASE, TENANT: self.folder.partition("/")[0], FOLDER: self.folder,
            "version": ids.text_of(self.version), "record": self.record, "name": self.name,
            "at": now,
        }  # fmt: skip


def lease_of(given: Payload) -> Lease:
    return Lease(int(given["version"], 16), given[FOLDER], given["record"], given["name"])
