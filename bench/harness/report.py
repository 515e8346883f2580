"""The printed table and the JSON file of a run."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness.runner import BUILD
from bench.harness.runs import Finding, Run


def duration(seconds: float) -> str:
    """With three digits and a unit."""
    if math.isnan(seconds):
        return "-"
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if abs(seconds) * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"


def number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; the first is left-aligned, the others right-aligned."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show(run: Run, findings: Sequence[Finding]) -> str:
    """Everything that is printed after a run."""
    parts = [part for part in (_times(run), _costs(run), _figures(run), _ratios(run)) if part]
    if findings:
        rows = [
            [
                one.what,
                f"{number(one.value)} {one.unit}".rstrip(),
                one.bound,
                ("holds" if one.holds else "DOES NOT HOLD") if one.bound else "",
            ]
            for one in findings
        ]
        parts.append(table(["must hold", "measured", "bound", ""], rows))
    return "\n\n".join(parts)


def _times(run: Run) -> str:
    rows = []
    for side in run.sides:
        for name in run.series(side):
            one = run.summary(side, name)
            rows.append(
                [f"{side}: {name}", f"{one.count:,}",
                 *(duration(part) for part in (one.p50, one.p90, one.p99, one.most)),
                 f"{one.spread:.0%}"]
            )  # fmt: skip
    return table(["time of", "n", "p50", "p90", "p99", "most", "spread"], rows) if rows else ""


def _costs(run: Run) -> str:
    rows = []
    for side in run.sides:
        blocks = run.of(side)
        wall, _ = run.wall_per_call(side)
        cpu, apart = run.cpu_per_call(side)
        total = sum(one.spent.total_cpu_s for one in blocks) or 1.0
        names = dict.fromkeys(name for one in blocks for name in one.spent.cpu_s)
        shares = {
            name: sum(one.spent.cpu_s.get(name, 0.0) for one in blocks) / total for name in names
        }
        memory = run.rss_mb(side)
        rows.append(
            [side, f"{sum(one.calls for one in blocks):,}", duration(wall), duration(cpu),
             f"{apart:.0%}", _parts({key: f"{value:.0%}" for key, value in shares.items()}),
             _parts({key: f"{value:,.0f}" for key, value in memory.items()})]
        )  # fmt: skip
    head = ["per call", "calls", "wall", "CPU", "spread", "CPU of", "RSS in MiB"]
    return table(head, rows)


def _parts(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _figures(run: Run) -> str:
    rows = []
    for side in run.sides:
        for one in run.prepared:
            if one.side == side and one.start == BUILD:
                rows.append([f"{side}: build, wall", duration(one.spent.wall_s), ""])
                rows.append([f"{side}: build, CPU", duration(one.spent.total_cpu_s), ""])
        for name, values in run.figures(side).items():
            extremes = f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else ""
            rows.append([f"{side}: {name}", number(median(values)), extremes])
    return table(["figure", "median", "extremes"], rows) if rows else ""


def _ratios(run: Run) -> str:
    first, *others = run.sides
    rows = []
    for side in others:
        for name in [*(one for one in run.series(first) if one in run.series(side)), ""]:
            one = run.ratio(side, first, name)
            what = f"p50 of {name}" if name else "wall per call"
            rows.append(
                [f"{side} / {first}: {what}", f"{one.value:.3g}", f"{one.least:.3g}",
                 f"{one.most:.3g}"]
            )  # fmt: skip
    return table(["times as long, block by block", "median", "least", "most"], rows) if rows else ""


def as_json(
    name: str,
    options: Mapping[str, Any],
    machine: Mapping[str, Any],
    run: Run,
    findings: Sequence[Finding],
) -> dict[str, Any]:
    """What is written to the file."""
    return {
        "bench": name,
        "options": dict(options),
        "machine": dict(machine),
        "others_share": run.others,
        "findings": [{**asdict(one), "bound": one.bound, "holds": one.holds} for one in findings],
        **run.as_json(),
    }


def write(path: Path, report: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Paths, and numbers of numpy."""
    return value.item() if hasattr(value, "item") else str(value)
