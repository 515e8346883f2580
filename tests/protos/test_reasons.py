"""The reasons of errors that the contract names are those that the code raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime.errors import ERRORS

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOS = REPOSITORY / "protos" / "ragmesh"
REASON = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
RAISED_BY_ALL = {"TENANT_MALFORMED", "ATTRIBUTES_MALFORMED", "TENANT_NOT_ACCEPTED"}
# Told on stderr by a process that cannot start; no caller ever sees them.
AT_START = {
    "ANALYZER_UNREADABLE",
    "VECTOR_URL_INVALID",
    "PARSER_NOT_STARTED",
    "ENCODER_UNREADABLE",
    "RERANKER_UNREADABLE",
    "DEVICE_MISSING",
    "PACKAGE_MISSING",
    "PRECISION_UNSUPPORTED",
    "REDIS_URL_INVALID",
    "DATA_IN_USE",
    "DATA_TOO_NEW",
    "DATA_TOO_OLD",
    "ENGINE_NOT_DURABLE",
    "ENGINE_TOO_OLD",
    "VECTOR_CA_UNREADABLE",
    "DATA_UNREADABLE",
    "NOT_IN_THIS_VERSION",
    "SETTING_REQUIRED",
    "UNKNOWN_NAME",
    "DTYPE_UNSUPPORTED",
    "MODEL_NAME_REQUIRED",
    "MODEL_PATH_UNREADABLE",
    "URL_INVALID",
    "CA_FILE_UNREADABLE",
    "CONFIG_UNREADABLE",
    "KEY_INVALID",
}
# Raised by what infer's registry of models will be; its service is not served yet.
PLANNED = {"admin.proto"}


def calls_with_reasons(folder: Path) -> Iterator[str]:
    """Reasons that are written where an error, or a table's entry for one, is made."""
    makers = {cls.__name__ for cls in ERRORS.values()} | {"Meaning"}
    for path in folder.rglob("*.py"):
        if path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in makers:
                for argument in node.args[:2]:
                    if isinstance(argument, ast.Constant) and REASON.fullmatch(str(argument.value)):
                        yield str(argument.value)


def named(path: Path) -> set[str]:
    """Reasons in the comments of a file's services; gRPC's own code names are left out."""
    service = path.read_text(encoding="utf-8").partition("\n}\n")[0]
    comments = re.findall(r"^\s*// ?(.*)$", service, re.MULTILINE)
    return set(REASON.findall("\n".join(comments))) - ERRORS.keys()


@pytest.mark.parametrize("service", ["preprocess", "retrieve", "infer", "postprocess"])
def test_every_reason_of_a_service_is_in_its_contract(service: str) -> None:
    raised = set(calls_with_reasons(REPOSITORY / "services" / service)) - AT_START
    contract = set().union(*map(named, (PROTOS / service / "v1").glob("*.proto")))
    assert raised
    assert (raised | RAISED_BY_ALL) - ERRORS.keys() <= contract


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PROTOS.rglob("*.proto")) if path.name not in PLANNED],
    ids=lambda path: path.stem,
)
def test_every_reason_of_the_contract_exists(path: Path) -> None:
    written = "\n".join(
        module.read_text(encoding="utf-8")
        for folder in ("services", "gateway")
        for module in (REPOSITORY / folder).rglob("*.py")
    )
    assert named(path) <= set(REASON.findall(written))
