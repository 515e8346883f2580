"""Every bench in the register can be started: its options parse, and its sides are there."""

import pickle
import threading
import time
from pkgutil import resolve_name

import pytest

from bench.__main__ import BENCHES, _module, main, parser_of
from bench.engines import ticker
from bench.harness import Work
from bench.process import total


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_declares_what_the_harness_needs(name, tmp_path):
    module = _module(name)
    assert module.SUMMARY
    options = parser_of(name).parse_args(module.QUICK)
    assert options.starts >= 1
    sides = module.sides(options, tmp_path)
    assert len({one.name for one in sides}) == len(sides) > 0
    for side in sides:
        assert issubclass(resolve_name(side.work), Work)
        assert pickle.loads(pickle.dumps(side)) == side  # noqa: S301 - what was just made


def test_the_help_lists_every_bench(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in BENCHES)


def test_an_unknown_bench_is_told(capsys):
    assert main(["nonsense"]) == 2
    assert "There is no bench 'nonsense'" in capsys.readouterr().err


def test_a_metric_is_summed_over_its_labels():
    lines = ['calls{mode="a"} 2.0', 'calls{mode="b"} 0.5', "calls_other 7", "# HELP calls 3"]
    assert total(lines, "calls") == 2.5
    assert total(lines, "missing") == 0.0


def test_the_ticker_lives_as_long_as_its_block():
    before = threading.active_count()
    with ticker() as gaps:
        time.sleep(0.05)
    assert threading.active_count() == before
    assert len(gaps) > 1
    assert min(gaps) >= 0
