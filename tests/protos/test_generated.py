"""The committed code of the protos is what the protos say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_generated_code_is_in_sync():
    # A process of its own: protoc prints its complaints past sys.stderr.
    check = subprocess.run(
        [sys.executable, REPOSITORY / "protos" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert check.returncode == 0, check.stderr
