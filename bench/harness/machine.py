"""Facts of the machine that belong beside every figure."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_PACKAGES = ("numpy", "onnxruntime", "qdrant-client", "qdrant-edge-py", "torch")
_BUSY_SHARE = 0.15
_LOOK_SECONDS = 0.5


def facts() -> dict[str, Any]:
    """Cores, processor, memory, versions."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    fields = {
        key.strip(): value.strip()
        for key, colon, value in (line.partition(":") for line in cpuinfo.splitlines())
        if colon
    }
    flags = set(fields.get("flags", "").split())
    return {
        "cores": cores(),
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "features": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def load_average() -> tuple[float, float, float]:
    """Runnable processes, averaged over 1, 5 and 15 minutes."""
    return os.getloadavg()


def busy() -> float:
    """Share of the processors that is in use now; looks for half a second."""
    return psutil.cpu_percent(interval=_LOOK_SECONDS) / 100


def warning(share: float, load: float, cores: int) -> str:
    """What to say before a run on a machine that has other work; empty when it is quiet."""
    if share <= _BUSY_SHARE and load <= _BUSY_SHARE * cores:
        return ""
    return (
        f"The machine is busy: {share:.0%} of its processors are in use, load {load:.2f} on "
        f"{cores} cores. Trust the ratios, not the times."
    )


def describe(known: Mapping[str, Any]) -> str:
    """One line."""
    return (
        f"{known['cores']} cores of {known['processor']} ({' '.join(known['features'])}), "
        f"{known['memory_gib']} GiB, {known['system']}, Python {known['python']}"
    )
