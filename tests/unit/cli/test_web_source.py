"""Pages of a real web server on loopback: conditional requests, redirects, sitemaps, listings."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cli.console import Failure
from cli.syncing.entries import Entry, Known, NotRead, Skipped
from cli.syncing.run import Options, Sync
from cli.syncing.web import WebSource
from services.runtime.version import VERSION
from tests.unit.cli.fake_mesh import FakeMesh

HTML = "text/html"


@dataclass
class Site:
    """What a web server has."""

    url: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    asked: list[tuple[str, int]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    tags: bool = True

    def put(self, path: str, text: str | bytes, kind: str = HTML) -> None:
        self.pages[path] = kind, text.encode() if isinstance(text, str) else text

    def put_sitemap(self, *paths: str, name: str = "/sitemap.xml") -> None:
        places = "".join(f"<url><loc>{self.url}{path}</loc></url>" for path in paths)
        schema = "http://www.sitemaps.org/schemas/sitemap/0.9"
        text = f"<?xml version='1.0'?><urlset xmlns='{schema}'>{places}</urlset>"
        self.put(name, text, "application/xml")


@pytest.fixture
def site() -> Iterator[Site]:
    held = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.agents.add(self.headers["user-agent"])
            status = self._answer()
            held.asked.append((self.path, status))

        def _answer(self) -> int:
            if self.path in held.moved:
                return self._send(302, {"location": held.moved[self.path]})
            if self.path in held.broken:
                return self._send(500)
            if self.path not in held.pages:
                return self._send(404)
            kind, body = held.pages[self.path]
            headers = {"content-type": kind}
            if held.tags:
                headers["etag"] = f'"{hashlib.sha256(body).hexdigest()}"'
                if self.headers["if-none-match"] == headers["etag"]:
                    return self._send(304, headers)
            return self._send(200, headers, body)

        def _send(self, status: int, headers: Any = None, body: bytes = b"") -> int:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return status

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def scan(url: str, **options) -> tuple[list[str], dict[str, str], bool]:
    source = WebSource(url, max_bytes=options.pop("max_bytes", 10_000))
    try:
        found = list(source.entries())
        entries = [one.id for one in found if isinstance(one, Entry)]
        skipped = {one.id: one.reason for one in found if isinstance(one, Skipped)}
        return entries, skipped, source.complete
    finally:
        source.close()


def sync(site: Site, mesh: FakeMesh, path: str, known: dict[str, Known], **options):
    source = WebSource(site.url + path, max_bytes=10_000)
    try:
        running = Sync(mesh.api(), source, "site", options=Options(**options), known=known,
                       tell=lambda *_: None)  # fmt: skip
        report = running.run()
        return report, running.seen
    finally:
        source.close()


def read(url: str, **options):
    source = WebSource(url, max_bytes=options.pop("max_bytes", 10_000))
    try:
        content = source.open(Entry(url, "", url), options.get("known"))
        if content is not None:
            with content.file:
                return content, content.file.read()
        return None, b""
    finally:
        source.close()


def test_a_page_is_a_document_and_is_fetched_again_only_when_it_changed(site: Site) -> None:
    mesh = FakeMesh()
    site.put("/guide.html", "<p>One</p>")
    report, known = sync(site, mesh, "/guide.html", {})
    assert report.added == [f"{site.url}/guide.html"]
    document = mesh.collections["site"][f"{site.url}/guide.html"]
    assert (document["text"], document["source"]) == ("<p>One</p>", f"{site.url}/guide.html")
    assert site.agents == {f"ragmesh-sync/{VERSION}"}
    report, known = sync(site, mesh, "/guide.html", known)
    assert (report.unchanged, mesh.embedded) == (1, 1)
    assert site.asked[-1] == ("/guide.html", 304)
    site.put("/guide.html", "<p>Two</p>")
    report, known = sync(site, mesh, "/guide.html", known)
    assert report.changed == [f"{site.url}/guide.html"]


def test_a_server_without_validators_costs_a_fetch_and_no_embedding(site: Site) -> None:
    mesh = FakeMesh()
    site.tags = False
    site.put("/a.html", "A")
    _, known = sync(site, mesh, "/a.html", {})
    assert known == {}
    report, _ = sync(site, mesh, "/a.html", known)
    assert (report.unchanged, mesh.embedded) == (1, 1)


def test_what_was_fetched_to_compare_is_not_fetched_to_send(site: Site) -> None:
    site.put_sitemap("/a.html", "/b.html")
    site.put("/a.html", "A")
    site.put("/b.html", "B")
    sync(site, FakeMesh(), "/sitemap.xml", {})
    assert sum(path == "/a.html" for path, _ in site.asked) == 1


def test_a_sitemap_stands_for_what_it_lists(site: Site) -> None:
    mesh = FakeMesh()
    site.put_sitemap("/a.html", "/b.html#part", "/b.html", "/gone.html", "/broken.html")
    for name in "ab":
        site.put(f"/{name}.html", name)
    site.put("/broken.html", "C")
    site.broken.add("/broken.html")
    report, known = sync(site, mesh, "/sitemap.xml", {})
    assert report.added == [f"{site.url}/a.html", f"{site.url}/b.html"]
    assert [one["id"] for one in report.failed] == [f"{site.url}/broken.html"]
    site.broken.clear()
    sync(site, mesh, "/sitemap.xml", known)
    assert len(mesh.collections["site"]) == 3
    # A page that fails stays, one that is gone goes, whether it is still listed or not.
    site.broken.add("/broken.html")
    del site.pages["/a.html"]
    site.put_sitemap("/a.html", "/broken.html")
    report, _ = sync(site, mesh, "/sitemap.xml", {})
    assert report.deleted == [f"{site.url}/a.html", f"{site.url}/b.html"]
    assert set(mesh.collections["site"]) == {f"{site.url}/broken.html"}


def test_an_index_of_sitemaps_some_of_them_compressed(site: Site) -> None:
    site.put_sitemap("/a.html", name="/one.xml")
    site.put_sitemap("/b.html", name="/two.xml.gz")
    _, text = site.pages["/two.xml.gz"]
    site.pages["/two.xml.gz"] = "application/gzip", gzip.compress(text)
    places = "".join(f"<sitemap><loc>{site.url}{one}</loc></sitemap>"
                     for one in ("/one.xml", "/two.xml.gz"))  # fmt: skip
    site.put("/index.xml", f"<sitemapindex>{places}</sitemapindex>", "text/xml")
    entries, skipped, complete = scan(f"{site.url}/index.xml")
    assert entries == [f"{site.url}/a.html", f"{site.url}/b.html"]
    assert (skipped, complete) == ({}, True)
    del site.pages["/one.xml"]
    entries, skipped, complete = scan(f"{site.url}/index.xml")
    assert entries == [f"{site.url}/b.html"]
    assert (skipped, complete) == ({f"{site.url}/one.xml": "it answers HTTP 404"}, False)


def test_a_sitemap_that_lists_itself_ends(site: Site) -> None:
    loop = f"<sitemapindex><sitemap><loc>{site.url}/index.xml</loc></sitemap></sitemapindex>"
    site.put("/index.xml", loop, "text/xml")
    entries, _, complete = scan(f"{site.url}/index.xml")
    assert (entries, complete) == ([], False)
    assert len(site.asked) < 10


def test_a_listing_stands_for_the_files_below_it(site: Site) -> None:
    page = "<title>Index of /docs/</title>" + "".join(
        f"<a href='{link}'>x</a>"
        for link in ("../", "?C=N;O=D", "a.md", "%E3%82%AC.txt", "photo.png", "deep/",
                     "/docs/a.md", "http://elsewhere.example/x.md")
    )  # fmt: skip
    site.put("/docs/", page)
    site.put("/docs/deep/", "<title>Index of /docs/deep/</title><a href='b.pdf'>b</a>")
    entries, skipped, _ = scan(f"{site.url}/docs/")
    assert entries == [
        f"{site.url}/docs/a.md", f"{site.url}/docs/%E3%82%AC.txt", f"{site.url}/docs/deep/b.pdf",
    ]  # fmt: skip
    assert skipped == {f"{site.url}/docs/photo.png": "its format is not supported"}
    site.put("/blog/", "<title>My blog</title><a href='a.md'>x</a>")
    assert scan(f"{site.url}/blog/")[0] == [f"{site.url}/blog/"]


def test_other_hosts_and_what_robots_txt_forbids_are_left_out(site: Site) -> None:
    site.put("/sitemap.xml", "<urlset>"
             f"<url><loc>{site.url}/a.html</loc></url><url><loc>{site.url}/private/b</loc></url>"
             "<url><loc>http://169.254.169.254/latest</loc></url>"
             "<url><loc>file:///etc/passwd</loc></url></urlset>", "text/xml")  # fmt: skip
    site.put("/robots.txt", "User-agent: *\nDisallow: /private/\n", "text/plain")
    entries, skipped, _ = scan(f"{site.url}/sitemap.xml")
    assert entries == [f"{site.url}/a.html"]
    assert skipped == {
        f"{site.url}/private/b": "robots.txt does not allow it",
        "http://169.254.169.254/latest": "it is on another host",
        "file:///etc/passwd": "it is on another host",
    }
    site.broken.add("/robots.txt")
    assert scan(f"{site.url}/sitemap.xml")[0] == []
    site.broken.clear()
    del site.pages["/robots.txt"]
    assert len(scan(f"{site.url}/sitemap.xml")[0]) == 2


def test_redirects_stay_on_the_host(site: Site) -> None:
    site.put("/new.html", "N")
    site.moved |= {"/old.html": "/new.html", "/out.html": "http://169.254.169.254/x",
                   "/port.html": "http://127.0.0.1:1/x", "/loop.html": "/loop.html"}  # fmt: skip
    content, body = read(f"{site.url}/old.html")
    assert (body, content.kind) == (b"N", HTML)
    for path, said in (
        ("/out.html", "name that instead"),
        ("/port.html", "name that instead"),
        ("/loop.html", "more than"),
    ):
        with pytest.raises(NotRead, match=said):
            read(site.url + path)


def test_a_declared_charset_goes_with_the_page(site: Site) -> None:
    site.put("/ja", "日本語".encode("shift_jis"), "text/html; charset=Shift_JIS")
    content, body = read(f"{site.url}/ja")
    assert (content.kind, content.name) == ("text/html; charset=Shift_JIS", "ja.html")
    assert body.decode("shift_jis") == "日本語"


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("/", HTML, "index.html"),
        ("/a.php", HTML, "a.php.html"),
        ("/a.pdf", "application/pdf", "a.pdf"),
        ("/download", "application/pdf", "download.pdf"),
        ("/notes.md", "text/plain", "notes.md"),
        ("/notes.md", "application/octet-stream", "notes.md"),
    ],
)
def test_a_name_tells_the_format(site: Site, path: str, kind: str, name: str) -> None:
    site.put(path, "x", kind)
    assert read(site.url + path)[0].name == name


def test_what_is_no_document_or_too_large_is_left_out(site: Site) -> None:
    site.put("/photo", "x", "image/png")
    site.put("/large.html", "x" * 101)
    site.put_sitemap("/photo", "/large.html")
    with pytest.raises(NotRead, match="its type image/png is not supported") as caught:
        read(f"{site.url}/photo")
    assert not caught.value.fatal
    with pytest.raises(NotRead, match="larger than 100 bytes"):
        read(f"{site.url}/large.html", max_bytes=100)


def test_a_sitemap_with_entities_is_none(site: Site) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><urlset><url><loc>&a;</loc></url></urlset>'
    site.put("/sitemap.xml", bomb, "text/xml")
    assert scan(f"{site.url}/sitemap.xml")[0] == [f"{site.url}/sitemap.xml"]


def test_a_site_that_does_not_answer_is_a_failure(site: Site) -> None:
    for url in (f"{site.url}/none.html", "http://127.0.0.1:1/"):
        with pytest.raises(Failure) as caught:
            scan(url)
        assert caught.value.code == "source_unreadable"


def test_secrets_in_an_address_are_not_remembered() -> None:
    source = WebSource("https://user:secret@example.com/a?b=c#d", max_bytes=1)
    assert source.name == "https://example.com/a?b=c"
    source.close()
