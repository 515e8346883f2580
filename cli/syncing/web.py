"""A web address as a source: one page, a sitemap, or a listing of files."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, cast
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser
from xml.etree import ElementTree as ET

import httpx

from cli.console import Failure
from cli.syncing.entries import (
    Content,
    Entry,
    Known,
    NotRead,
    Skipped,
    Spool,
    digest_of,
    extension_of,
    is_supported,
    problem_of,
)
from services.runtime.version import VERSION

AGENT = "ragmesh-sync"
MAX_REDIRECTS = 5
MAX_ENTRIES = 50_000
"""As many as one sitemap may list (sitemaps.org)."""
MAX_DEPTH = 5
"""Of sitemaps in sitemap indexes, and of listings in listings."""
MAX_SITEMAP_BYTES = 50 * 1024 * 1024
"""As sitemaps.org allows, before compression."""
_IN_MEMORY_BYTES = 4 * 1024 * 1024
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_EXTENSIONS = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "text/csv": "csv",
    "application/json": "json",
    "application/pdf": "pdf",
    "application/epub+zip": "epub",
    "message/rfc822": "eml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Media types that tell nothing: the name's ending counts."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})


@dataclass(slots=True)
class _Answer:
    """What an address answered."""

    url: str
    kind: str
    file: BinaryIO
    stamp: str


class WebSource:
    """Pages of one host, fetched only when they have changed (RFC 9110, conditional requests)."""

    def __init__(
        self,
        url: str,
        *,
        alias: str = "",
        max_bytes: int,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Args:
        url: http or https. What answers decides: a sitemap and a listing (a page that calls
            itself "Index of" or "Directory listing") stand for what they list, below them or on
            their host; everything else is a document itself.
        alias: as in `FolderSource`.
        max_bytes: larger answers are left out.

        Raises:
            Failure: it is no such address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"{url} is no http or https address.", code="no_such_source")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        query = f"?{parts.query}" if parts.query else ""
        self._url = f"{parts.scheme}://{host}{port}{parts.path or '/'}{query}"
        self._origin = (parts.hostname, parts.port)
        auth = None
        if parts.username:
            auth = httpx.BasicAuth(unquote(parts.username), unquote(parts.password or ""))
        self._client = httpx.Client(
            headers={"user-agent": f"{AGENT}/{VERSION}"},
            timeout=_TIMEOUT,
            auth=auth,
            transport=transport,
        )
        self._alias = alias
        self._max_bytes = max_bytes
        self._complete = True
        self._robots: RobotFileParser | None = None
        self._spool = Spool()

    @property
    def name(self) -> str:
        return f"web:{self._alias}" if self._alias else self._url

    @property
    def complete(self) -> bool:
        return self._complete

    def close(self) -> None:
        self._client.close()
        self._spool.close()

    # What there is

    def entries(self) -> Iterator[Entry | Skipped]:
        self._complete = True
        try:
            answer = self._fetch(self._url, limit=max(self._max_bytes, MAX_SITEMAP_BYTES))
        except NotRead as error:
            raise Failure(f"{self._url}: {error.reason}.", code="source_unreadable") from None
        if answer is None:
            raise Failure(f"{self._url} answers with nothing.", code="source_unreadable")
        with answer.file:
            listed = self._listed(answer, 0)
        if listed is None:
            yield self._entry(self._url)
            return
        seen: set[str] = set()
        for found in listed:
            id = found if isinstance(found, str) else found.id
            if id in seen:
                continue
            seen.add(id)
            if len(seen) > MAX_ENTRIES:
                self._complete = False
                yield Skipped(self._url, f"it lists more than {MAX_ENTRIES} addresses", failed=True)
                return
            yield self._checked(found) if isinstance(found, str) else found

    def _checked(self, url: str) -> Entry | Skipped:
        if not self._is_near(url):
            return Skipped(url, "it is on another host")
        if not self._may_fetch(url):
            return Skipped(url, "robots.txt does not allow it")
        return self._entry(url)

    def _entry(self, url: str) -> Entry | Skipped:
        if problem := problem_of(url):
            return Skipped(url, problem)
        return Entry(url, PurePosixPath(unquote(urlsplit(url).path)).name, url)

    def _listed(self, answer: _Answer, depth: int) -> Iterator[str | Skipped] | None:
        """What a sitemap or a listing lists; None for a page of its own."""
        text = answer.file.read()
        media = answer.kind.partition(";")[0].strip().lower()
        path = urlsplit(answer.url).path
        if path.endswith(".gz") or text.startswith(b"\x1f\x8b"):
            text = _unpacked(text)
        if (root := _sitemap(text)) is not None:
            return self._of_sitemap(root, depth)
        if media == "text/html" and path.endswith("/"):
            page = _Links()
            page.feed(text.decode("utf-8", "replace"))
            if page.lists_files:
                return self._of_listing(answer.url, page.links, depth)
        return None

    def _of_sitemap(self, root: ET.Element, depth: int) -> Iterator[str | Skipped]:
        places = [one.text.strip() for one in root.iter() if _tag(one) == "loc" and one.text]
        if _tag(root) == "urlset":
            yield from (urldefrag(place).url for place in places)
            return
        for place in places:
            yield from self._below(place, depth, needed=True)

    def _of_listing(self, base: str, links: list[str], depth: int) -> Iterator[str | Skipped]:
        for link in links:
            url = urldefrag(urljoin(base, link)).url
            # Up, to itself sorted otherwise, or elsewhere: not what is listed.
            if not url.startswith(base) or url == base or urlsplit(url).query:
                continue
            if url.endswith("/"):
                yield from self._below(url, depth, needed=False)
            elif is_supported(unquote(urlsplit(url).path)):
                yield url
            else:
                yield Skipped(url, "its format is not supported")

    def _below(self, url: str, depth: int, *, needed: bool) -> Iterator[str | Skipped]:
        """What a sitemap of an index, or a folder of a listing, lists."""
        if not self._is_near(url):
            yield Skipped(url, "it is on another host")
            return
        if depth >= MAX_DEPTH:
            self._complete = False
            yield Skipped(url, f"it lies deeper than {MAX_DEPTH} levels", failed=True)
            return
        try:
            answer = self._fetch(url, limit=MAX_SITEMAP_BYTES)
        except NotRead as error:
            self._complete = False
            yield Skipped(url, error.reason, failed=True)
            return
        if answer is None:
            return
        with answer.file:
            listed = self._listed(answer, depth + 1)
        if listed is not None:
            yield from listed
        elif needed:
            self._complete = False
            yield Skipped(url, "it is no sitemap", failed=True)

    def _is_near(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and (parts.hostname, parts.port) == self._origin

    def _may_fetch(self, url: str) -> bool:
        """What robots.txt says of an address that nobody typed (RFC 9309)."""
        if self._robots is None:
            self._robots = RobotFileParser()
            try:
                answer = self._fetch(urljoin(self._url, "/robots.txt"), limit=512 * 1024)
            except NotRead as error:
                # Refused is as good as none; who cannot answer may have rules.
                refused = error.gone or "HTTP 4" in error.reason
                lines = [] if refused else ["User-agent: *", "Disallow: /"]
            else:
                lines = _lines(answer)
            self._robots.parse(lines)
        return self._robots.can_fetch(AGENT, url)

    # Reading

    def open(self, entry: Entry, known: Known | None) -> Content | None:
        if kept := self._spool.take(entry.id):
            return kept
        answer = self._fetch(entry.place, stamp=known.stamp if known else "")
        if answer is None:
            return None
        name = _name_of(entry.place, answer.kind)
        if not name:
            answer.file.close()
            media = answer.kind.partition(";")[0]
            raise NotRead(f"its type {media[:80]} is not supported", fatal=False)
        digest, size = digest_of(answer.file)
        return Content(answer.file, digest, size, answer.kind, name, answer.stamp)

    def keep(self, entry: Entry, content: Content) -> None:
        self._spool.keep(entry.id, content)

    def _fetch(self, url: str, *, stamp: str = "", limit: int | None = None) -> _Answer | None:
        """GET an address; None when it is unchanged since `stamp`. Raises NotRead."""
        headers = _conditions(stamp)
        most = self._max_bytes if limit is None else limit
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with self._client.stream("GET", url, headers=headers) as response:
                    if response.status_code in _REDIRECTS and "location" in response.headers:
                        url = self._redirected(url, response.headers["location"])
                        continue
                    if response.status_code == 304 and stamp:
                        return None
                    if not response.is_success:
                        status = response.status_code
                        raise NotRead(f"it answers HTTP {status}", gone=status in _GONE)
                    return _Answer(
                        url,
                        response.headers.get("content-type", ""),
                        _spooled(response, most),
                        _stamp(response),
                    )
        except httpx.HTTPError as error:
            raise NotRead(f"it does not answer ({type(error).__name__})") from error
        except (httpx.InvalidURL, UnicodeError):
            raise NotRead("it is no address", fatal=False) from None
        raise NotRead(f"it redirects more than {MAX_REDIRECTS} times")

    def _redirected(self, url: str, location: str) -> str:
        """Where a redirect leads: to the same host only, so that no page sends us elsewhere, such
        as to what only this machine reaches; and never from https to http."""
        target = urldefrag(urljoin(url, location)).url
        before, after = urlsplit(url), urlsplit(target)
        upgraded = (before.scheme, after.scheme) == ("http", "https")
        same_port = before.port == after.port or (upgraded and after.port in (None, 443))
        downgraded = (before.scheme, after.scheme) == ("https", "http")
        if after.hostname != before.hostname or not same_port or downgraded:
            raise NotRead(f"it redirects to {target[:200]}; name that instead")
        return target


def _lines(answer: _Answer | None) -> list[str]:
    if answer is None:
        return []
    with answer.file:
        return answer.file.read().decode("utf-8", "replace").splitlines()


def _conditions(stamp: str) -> dict[str, str]:
    try:
        held = json.loads(stamp) if stamp else {}
    except ValueError:
        return {}
    names = {"etag": "if-none-match", "modified": "if-modified-since"}
    return {names[key]: str(value) for key, value in held.items() if key in names}


def _stamp(response: httpx.Response) -> str:
    held = {
        "etag": response.headers.get("etag"),
        "modified": response.headers.get("last-modified"),
    }
    held = {key: value for key, value in held.items() if value}
    return json.dumps(held) if held else ""


def _spooled(response: httpx.Response, limit: int) -> BinaryIO:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise NotRead(f"it is larger than {limit} bytes", fatal=False)
    spooled = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - whoever gets it closes it
    size = 0
    try:
        for piece in response.iter_bytes():
            size += len(piece)
            if size > limit:
                raise NotRead(f"it is larger than {limit} bytes", fatal=False)
            spooled.write(piece)
    except BaseException:
        spooled.close()
        raise
    spooled.seek(0)
    return cast(BinaryIO, cast(IO[bytes], spooled))


def _name_of(url: str, kind: str) -> str:
    """A file name whose ending is that of the media type; empty for one that no document has."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    media = kind.partition(";")[0].strip().lower()
    extension = _EXTENSIONS.get(media, "")
    if not extension:
        return name if media in _UNTOLD and is_supported(name) else ""
    held = extension_of(name)
    alike = {"html": {"html", "htm", "xhtml"}, "txt": {"txt", "text", "md", "markdown", "csv"},
             "md": {"md", "markdown"}}.get(extension, {extension})  # fmt: skip
    return name if held in alike else f"{name or 'index'}.{extension}"


def _unpacked(data: bytes) -> bytes:
    """A gzipped sitemap, cut where it grows too large; itself when it is none."""
    try:
        reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return reader.decompress(data, MAX_SITEMAP_BYTES)
    except (zlib.error, gzip.BadGzipFile):
        return data


def _sitemap(text: bytes) -> ET.Element | None:
    """The root of a sitemap or a sitemap index."""
    head = text[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"<") or b"<!DOCTYPE" in text[:4096] or b"<!ENTITY" in text[:4096]:
        return None  # no sitemap declares anything, so nothing can expand
    if b"<urlset" not in head and b"<sitemapindex" not in head:
        return None
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a DOCTYPE there are no entities
    except ET.ParseError:
        return None
    return root if _tag(root) in ("urlset", "sitemapindex") else None


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


class _Links(HTMLParser):
    """A page's title and links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self._title = ""
        self._in_title = False

    @property
    def lists_files(self) -> bool:
        """Whether it is a web server's own listing of a folder."""
        return self._title.strip().lower().startswith(("index of", "directory listing"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title += data
