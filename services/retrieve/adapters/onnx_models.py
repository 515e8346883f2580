"""Models in ONNX Runtime: exported once, kept in the data folder, and opened."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)

_FILES = ("onnx/model.onnx", "model.onnx")


def shipped(folder: Path) -> Path | None:
    """The ONNX file that a model came with."""
    return next((folder / file for file in _FILES if (folder / file).is_file()), None)


def kept(target: Path, make: Callable[[Path], None]) -> Path:
    """The file ``model.onnx`` of a folder of our own, made when it is first needed.

    Args:
        target: the folder; what is in it is complete.
        make: writes the file, and what goes with it, into the folder that it is given.
    """
    if (target / "model.onnx").is_file():
        return target / "model.onnx"
    draft = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        make(draft)
        try:
            draft.rename(target)
        except OSError:  # another process was faster
            if not (target / "model.onnx").is_file():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target / "model.onnx"


def quantize(source: Path, folder: Path) -> None:
    """Weights in int8, one scale a channel, activations as they come: into ``model.onnx``."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  seconds

    quantize_dynamic(
        source, folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8,
        use_external_data_format=False,
    )  # fmt: skip


def open_session(path: Path, *, device: str, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Raises:
        FailedPrecondition: PACKAGE_MISSING, DEVICE_MISSING.
    """
    try:
        import onnxruntime  # noqa: PLC0415  seconds, and not in every image
    except ImportError as error:
        raise FailedPrecondition(
            "PACKAGE_MISSING", "The back-end onnx needs the extra ragmesh[onnx]."
        ) from error
    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise FailedPrecondition(
            "DEVICE_MISSING", f"ONNX Runtime has no {provider} here; use the device cpu."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the processor from the rest of the mesh.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    number = device.partition(":")[2]
    settings = [{"device_id": number}] if number else None
    return onnxruntime.InferenceSession(
        str(path), options, providers=[provider], provider_options=settings
    )
