"""A bucket of an S3 server on loopback (moto), read by obstore."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from cli.console import Failure
from cli.syncing.bucket import BucketSource
from cli.syncing.entries import Entry, Known, NotRead, Skipped
from cli.syncing.run import Options, Sync
from tests.unit.cli.fake_mesh import FakeMesh


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {
        "AWS_ENDPOINT": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1",
                          aws_access_key_id="k", aws_secret_access_key="s")  # fmt: skip
    client.create_bucket(Bucket="docs")
    try:
        yield Bucket(client)
    finally:
        for one in client.list_objects_v2(Bucket="docs").get("Contents", ()):
            client.delete_object(Bucket="docs", Key=one["Key"])
        client.delete_bucket(Bucket="docs")
        client.close()


class Bucket:
    """The bucket ``docs``."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def put(self, **objects: str) -> None:
        for name, text in objects.items():
            key = f"{name.replace('__', '/')}.md"
            self.client.put_object(Bucket="docs", Key=key, Body=text.encode())


def sync(mesh: FakeMesh, known: dict[str, Known], url: str = "s3://docs", **options):
    source = BucketSource(url, max_bytes=1000)
    try:
        running = Sync(mesh.api(), source, "notes", options=Options(**options), known=known,
                       tell=lambda *_: None)  # fmt: skip
        return running.run(), running.seen
    finally:
        source.close()


def test_a_bucket_is_followed(bucket: Bucket) -> None:
    mesh = FakeMesh()
    bucket.put(a="A", sub__b="B", c="C")
    report, known = sync(mesh, {})
    assert report.added == ["a.md", "c.md", "sub/b.md"]
    assert mesh.collections["notes"]["sub/b.md"]["text"] == "B"
    assert mesh.collections["notes"]["a.md"]["metadata"]["sync"]["source"] == "s3://docs"
    report, known = sync(mesh, known)
    assert (report.unchanged, report.is_quiet) == (3, True)
    bucket.put(a="A2", sub__moved="B")
    for key in ("sub/b.md", "c.md"):
        bucket.client.delete_object(Bucket="docs", Key=key)
    mesh.embedded = 0
    report, known = sync(mesh, known)
    assert report.changed == ["a.md"]
    assert report.moved == [{"from": "sub/b.md", "to": "sub/moved.md"}]
    assert report.deleted == ["c.md"]
    assert mesh.embedded == 1


def test_an_unchanged_object_is_not_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = FakeMesh()
    bucket.put(a="A")
    _, known = sync(mesh, {})

    def refuse(*_: object) -> None:
        raise AssertionError("an object was read")

    monkeypatch.setattr(BucketSource, "open", refuse)
    assert sync(mesh, known)[0].unchanged == 1


def test_a_prefix_is_where_paths_begin(bucket: Bucket) -> None:
    mesh = FakeMesh()
    bucket.put(guides__a="A", guidesandmore="X", other__b="B")
    report, _ = sync(mesh, {}, "s3://docs/guides/")
    assert report.added == ["a.md"]


def test_what_cannot_be_a_document(bucket: Bucket) -> None:
    bucket.put(large="x" * 1001, empty="", good="x")
    for key in ("photo.png", ".hidden.md", "folder/"):
        bucket.client.put_object(Bucket="docs", Key=key, Body=b"x")
    source = BucketSource("s3://docs", max_bytes=1000)
    found = list(source.entries())
    source.close()
    assert [one.id for one in found if isinstance(one, Entry)] == ["good.md"]
    assert {one.id: one.reason for one in found if isinstance(one, Skipped)} == {
        ".hidden.md": "it is hidden",
        "empty.md": "it is empty",
        "folder": "its format is not supported",
        "large.md": "it is larger than 1000 bytes",
        "photo.png": "its format is not supported",
    }


def test_an_object_that_is_gone_when_it_is_read(bucket: Bucket) -> None:
    source = BucketSource("s3://docs", max_bytes=1000)
    with pytest.raises(NotRead) as caught:
        source.open(Entry("none.md", "none.md", "none.md"), None)
    assert caught.value.gone
    source.close()


@pytest.mark.parametrize("url", ["s3://nobody-made-this", "s3://"])
def test_a_bucket_that_is_not_there(bucket: Bucket, url: str) -> None:
    with pytest.raises(Failure) as caught:
        sync(FakeMesh(), {}, url)
    assert caught.value.code in ("source_unreadable", "no_such_source")
