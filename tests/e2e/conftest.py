"""The meshes that the tests share: starting one costs seconds, so each lives for the session."""

from collections.abc import Iterator

import pytest

from tests.e2e.mesh import Mesh


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """As `make run` starts it, with the sample documents."""
    running = Mesh(tmp_path_factory.mktemp("mesh") / "var", demo=True)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def slow_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Its engine, `scripted`, says a word every 0.2 seconds for minutes."""
    running = Mesh(
        tmp_path_factory.mktemp("slow") / "var",
        MODEL_BACKEND="scripted",
        RAGMESH_SCRIPTED_TEXT="word " * 2000,
        RAGMESH_SCRIPTED_DELAY="0.2",
    )
    try:
        yield running
    finally:
        running.stop()
