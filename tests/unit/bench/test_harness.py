"""The bench harness: turns, processes, what is counted, what is printed and written."""

import json
import math
import os

import psutil
import pytest

from bench.harness import Finding, Side, report, run
from bench.harness.machine import warning
from bench.harness.runner import SideFailed, schedule
from bench.harness.usage import ENDED, Usage, label, spent

HERE = "tests.unit.bench.sides"


def sides(log, *names, build=False):
    return [
        Side(name, f"{HERE}:Recorder", {"log": str(log), "name": name}, build=build)
        for name in names
    ]


def measured(chosen, *, starts=1, rounds=1):
    return run(chosen, starts=starts, rounds=rounds, seed=7, progress=lambda _: None)


def test_sides_take_turns_and_every_start_begins_with_another():
    assert list(schedule(2, 2, 2)) == [
        (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1),
        (1, 0, 1), (1, 0, 0), (1, 1, 1), (1, 1, 0),
    ]  # fmt: skip


def test_every_start_is_a_process_and_the_blocks_are_interleaved(tmp_path):
    log = tmp_path / "log"
    found = measured(sides(log, "a", "b", build=True), starts=2, rounds=2)
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    measures = [(name, what) for name, _, what in lines if what.startswith("measure")]
    assert measures == [
        ("a", "measure 0 7"), ("b", "measure 0 7"), ("a", "measure 1 7"), ("b", "measure 1 7"),
        ("b", "measure 0 7"), ("a", "measure 0 7"), ("b", "measure 1 7"), ("a", "measure 1 7"),
    ]  # fmt: skip
    assert len({process for _, process, _ in lines}) == 2 * (1 + 2)
    assert [what for _, _, what in lines].count("close") == 2 * (1 + 2)
    assert all(not psutil.pid_exists(int(process)) for _, process, _ in lines)
    assert [(one.side, one.start) for one in found.prepared] == [
        ("a", -1), ("b", -1), ("a", 0), ("b", 0), ("b", 1), ("a", 1)
    ]  # fmt: skip
    assert found.figures("a") == {"disk_mb": [1.0], "load_s": [2.0] * 2, "round": [0, 1, 0, 1]}
    assert found.summary("a", "call").count == 2 * 2 * 4
    assert found.summary("a", "call").p90 == 0.5
    assert found.ratio("b", "a", "call").value == 1.0
    assert all(one.spent.wall_s > 0 and one.rss_mb["bench"] > 0 for one in found.blocks)


def test_children_that_ended_within_a_block_are_counted():
    found = measured([Side("burns", f"{HERE}:Burner")])
    assert found.blocks[0].spent.cpu_s[ENDED] >= 0.15


def test_a_side_that_fails_ends_the_run_with_its_traceback(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(SideFailed, match="this side cannot"):
        measured([*sides(log, "a"), Side("fails", f"{HERE}:Failing")])
    assert log.read_text().splitlines()[-1].endswith("close")


def test_a_side_that_dies_is_named():
    with pytest.raises(SideFailed, match="dies: its process ended in measure"):
        measured([Side("dies", f"{HERE}:Dying")])


def test_what_was_spent_is_never_negative():
    before = Usage(1.0, {"bench": 2.0, "engine": 5.0, ENDED: 1.0}, 100.0)
    after = Usage(3.0, {"bench": 3.0, ENDED: 6.5}, 103.0)
    used = spent(before, after)
    assert used.cpu_s == {"bench": 1.0, ENDED: 0.5}
    assert used.wall_s == 2.0
    assert used.others == pytest.approx(1.5 / (2.0 * (os.cpu_count() or 1)))


def test_a_process_is_called_by_its_module():
    assert label(["python", "-m", "services.retrieve.adapters.edge.engine", "5"], "python3") == (
        "edge.engine"
    )
    assert label(["redis-server"], "redis-server") == "redis-server"
    assert label(["python", "-m"], "python3") == "python3"


def test_a_quiet_machine_needs_no_warning():
    assert warning(0.02, 0.1, 2) == ""
    assert "load 3.00" in warning(0.02, 3.0, 2)
    assert "90%" in warning(0.9, 0.1, 2)


def test_the_report_shows_and_keeps_what_was_found(tmp_path):
    found = measured(sides(tmp_path / "log", "a", "b"), rounds=2)
    findings = [
        Finding("fast enough", 1.5, "ms", below=2),
        Finding("many enough", math.nan, at_least=50),
        Finding("just told", 12345.0),
    ]
    shown = report.show(found, findings)
    assert "a: call" in shown
    assert "b / a: p50 of call" in shown
    (missed,) = [line for line in shown.splitlines() if line.startswith("many enough")]
    assert missed.split() == ["many", "enough", "-", ">=", "50", "DOES", "NOT", "HOLD"]
    assert "12,345" in shown
    path = tmp_path / "made" / "run.json"
    report.write(path, report.as_json("name", {"seed": 7}, {"cores": 2}, found, findings))
    kept = json.loads(path.read_text())
    assert kept["bench"] == "name"
    assert [one["holds"] for one in kept["findings"]] == [True, False, True]
    assert kept["summaries"]["a"]["series"]["call"]["count"] == 8
    assert kept["blocks"][0]["spent"]["wall_s"] > 0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0"), (2.5e-8, "25 ns"), (1.5e-5, "15 us"), (0.0123, "12.3 ms"), (3.0, "3 s"),
     (4000.0, "4000 s"), (math.nan, "-")],
)  # fmt: skip
def test_durations_have_three_digits_and_a_unit(seconds, expected):
    assert report.duration(seconds) == expected
