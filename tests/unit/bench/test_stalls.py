"""What a stall of the machine delayed is left out, and nothing else."""

import json
import subprocess
import sys

from bench.process import ROOT
from bench.stalls import untroubled

STALLS = [(10.0, 0.5), (20.0, 0.1)]


def test_what_ran_during_a_stall_or_soon_after_it_is_left_out():
    timed = [
        (9.0, 0.9),  # ended before
        (9.8, 0.3),  # the stall began in it
        (10.2, 0.1),
        (10.9, 0.2),  # began while what had waited was worked off
        (11.1, 0.3),
        (19.0, 3.0),  # longer than the stall, which lies in it
        (30.0, 0.4),
    ]
    assert untroubled(timed, STALLS) == [0.9, 0.3, 0.4]


def test_without_stalls_everything_counts():
    assert untroubled([(1.0, 0.1), (2.0, 0.2)], []) == [0.1, 0.2]


def test_the_watcher_says_what_it_saw_when_its_input_ends():
    watcher = subprocess.run(
        [sys.executable, "-m", "bench.stalls"],
        input=b"",
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    ready, stalls = watcher.stdout.splitlines()
    assert ready == b"ready"
    assert all(seconds >= 0.01 for _, seconds in json.loads(stalls))
