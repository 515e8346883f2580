"""What every test level shares: a clean environment, and the rules for skipping."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

NOT_APPLICABLE = "does not apply: "
"""How the reason of a skip begins where a contract asks for what an adapter does not claim."""

# Tests read nothing from the developer's shell, and no test may look a model up on the network.
for _name in [name for name in os.environ if name.startswith("RAGMESH_")]:
    del os.environ[_name]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ragmesh")
    group.addoption("--network", action="store_true", help="run the tests marked network")
    group.addoption(
        "--strict-skips",
        action="store_true",
        help="fail when a test is skipped that could have run: GPU, network and test data are at "
        "hand, and it applies",
    )


def _machine_has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a GPU")
    no_network = pytest.mark.skip(reason="needs the network: --network")
    for item in items:
        if item.get_closest_marker("gpu") and not _machine_has_gpu():
            item.add_marker(no_gpu)
        if item.get_closest_marker("network") and not config.getoption("--network"):
            item.add_marker(no_network)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data beside the checkout; a test that asks for it is skipped without."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the test data beside the checkout")
    return SHARED_DATA


def _may_skip(item: pytest.Item, report: pytest.TestReport) -> bool:
    if isinstance(report.longrepr, tuple) and NOT_APPLICABLE in report.longrepr[2]:
        return True
    if item.get_closest_marker("gpu") or item.get_closest_marker("network"):
        return True
    return "shared_data" in getattr(item, "fixturenames", ()) and not SHARED_DATA.is_dir()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # An expected failure is reported as skipped too; that is no skip.
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and item.config.getoption("--strict-skips") and not _may_skip(item, report):
        report.outcome = "failed"
        report.longrepr = f"skipped, but could have run: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--strict-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped whole, but could have run: {report.longrepr}"
    return report
