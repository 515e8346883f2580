"""Sides that the harness's tests run in processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.harness import Block, Work, stopwatch


class Recorder(Work):
    """Writes down what is asked of it, in a file that all sides share."""

    def note(self, what: str) -> None:
        with Path(self.options["log"]).open("a") as log:
            log.write(f"{self.options['name']} {os.getpid()} {what}\n")

    async def build(self):
        self.note("build")
        return {"disk_mb": 1.0}

    async def prepare(self):
        self.note("prepare")
        return {"load_s": 2.0}

    async def measure(self, round_):
        self.note(f"measure {round_} {self.seed}")
        seconds: list[float] = []
        with stopwatch(seconds):
            pass
        return Block(4, {"call": [*seconds, 0.5, 0.5, 0.5]}, {"round": float(round_)})

    async def aclose(self):
        self.note("close")


class Burner(Work):
    """Lets a child of its own work, and end, within the block."""

    async def measure(self, round_):
        code = "import time\nwhile time.process_time() < 0.2: pass"
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: ASYNC221
        return Block(1)


class Failing(Work):
    async def measure(self, round_):
        raise ValueError("this side cannot")


class Dying(Work):
    async def measure(self, round_):
        os.kill(os.getpid(), signal.SIGKILL)
        return Block(1)
