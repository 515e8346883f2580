"""What benches share: sides in processes of their own, interleaved blocks, statistics, output."""

from bench.harness.runner import run
from bench.harness.runs import Defaults, Finding, Run
from bench.harness.sides import Block, Side, Work, stopwatch

__all__ = ["Block", "Defaults", "Finding", "Run", "Side", "Work", "run", "stopwatch"]
