"""Generates the Python code of the protos: messages, their types, gRPC stubs and their types.

    python protos/generate.py              writes protos/gen
    python protos/generate.py --check      fails when protos/gen differs from what the protos say
    python protos/generate.py --out DIR    writes elsewhere

The result depends only on the protos and on the pinned generators (grpcio-tools, mypy-protobuf).
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent
GENERATED_ROOT = PROTO_ROOT / "gen"
WELL_KNOWN_TYPES = Path(grpc_tools.__file__).parent / "_proto"
# Without the RPCs' types a stub is Any, and mypy checks no call between the gateway and a service.
GRPC_TYPES_PLUGIN = Path(sysconfig.get_path("scripts")) / "protoc-gen-mypy_grpc"


class GenerationError(Exception):
    """protoc refused the protos; it has printed why."""


def _protoc(arguments: list[str]) -> None:
    command = ["protoc", f"--proto_path={PROTO_ROOT}", f"--proto_path={WELL_KNOWN_TYPES}"]
    if protoc.main(command + arguments) != 0:
        raise GenerationError(f"protoc failed: {' '.join(arguments)}")


def _files_with_services(proto_files: list[str]) -> list[str]:
    """Returns the files that define an RPC service: only they get gRPC code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "protos.binpb"
        _protoc([f"--descriptor_set_out={path}", *proto_files])
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    return [file.name for file in descriptors.file if file.service]


def generate(out: Path) -> None:
    """Writes the code of every proto under `out`, replacing what `out/ragmesh` held.

    Raises GenerationError when protoc refuses a proto; `out` is then unchanged.
    """
    proto_files = sorted(
        path.relative_to(PROTO_ROOT).as_posix()
        for path in (PROTO_ROOT / "ragmesh").rglob("*.proto")
    )
    with tempfile.TemporaryDirectory() as folder:
        _protoc([f"--python_out={folder}", f"--pyi_out={folder}", *proto_files])
        _protoc(
            [
                f"--grpc_python_out={folder}",
                f"--plugin=protoc-gen-mypy_grpc={GRPC_TYPES_PLUGIN}",
                f"--mypy_grpc_out=quiet,only_async:{folder}",
                *_files_with_services(proto_files),
            ]
        )
        # A proto that was removed must not leave its code behind.
        shutil.rmtree(out / "ragmesh", ignore_errors=True)
        shutil.copytree(Path(folder) / "ragmesh", out / "ragmesh")


def _generated_files(root: Path) -> set[Path]:
    return {
        path.relative_to(root) for path in root.rglob("*.py*") if path.suffix in {".py", ".pyi"}
    }


def drift() -> list[str]:
    """Regenerates elsewhere and returns one line per file of protos/gen that differs."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        expected, committed = _generated_files(fresh), _generated_files(GENERATED_ROOT)
        lines = [f"missing: {path}" for path in expected - committed]
        lines += [f"left over: {path}" for path in committed - expected]
        lines += [
            f"out of date: {path}"
            for path in expected & committed
            if not filecmp.cmp(fresh / path, GENERATED_ROOT / path, shallow=False)
        ]
    return sorted(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Python code of the protos.")
    parser.add_argument("--check", action="store_true", help="fail when protos/gen is out of date")
    parser.add_argument("--out", type=Path, default=GENERATED_ROOT, help="where to write")
    options = parser.parse_args()
    try:
        if not options.check:
            generate(options.out)
            return 0
        differences = drift()
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 2
    for line in differences:
        print(line, file=sys.stderr)
    if differences:
        print("protos/gen is out of date: run `make protos`", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
