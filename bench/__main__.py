"""``python -m bench [NAME] [OPTIONS]``: one bench, or without a name all at a quick size."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.harness import report, run
from bench.harness.machine import busy, describe, facts, load_average, warning
from bench.harness.runner import SideFailed
from bench.harness.runs import Defaults

BENCHES = {
    "limits": "bench.limits",
    "search": "bench.search",
    "mixed": "bench.mixed",
    "tenants": "bench.tenants",
    "ingest": "bench.ingest",
    "engines": "bench.engines",
    "relay": "bench.relay",
    "cancel": "bench.cancel",
    "rerank": "bench.rerank",
    "encoding": "bench.encoding",
}
"""Name -> module. The order is that of the quick run."""
ROOT = Path(__file__).parent.parent
SEED = 20261125


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that sides end too
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if not arguments or arguments[0].startswith("-"):
        return max([measure(name, [*_module(name).QUICK, *arguments]) for name in BENCHES])
    name, *options = arguments
    if name not in BENCHES:
        print(f"There is no bench {name!r}.\n\n{usage()}", file=sys.stderr)
        return 2
    return measure(name, options)


def usage() -> str:
    width = max(map(len, BENCHES))
    lines = [f"  {name.ljust(width)}  {_module(name).SUMMARY}" for name in BENCHES]
    return "\n".join(
        [
            "usage: python -m bench [NAME] [OPTIONS]",
            "",
            "Without a name: all, at a quick size. A bench's own options: python -m bench NAME -h",
            "",
            *lines,
            "",
            "Retrieval quality is an evaluation, not a bench: python -m bench.eval -h",
        ]
    )


def _module(name: str) -> Any:
    return import_module(BENCHES[name])


def parser_of(name: str) -> argparse.ArgumentParser:
    """The options of a bench: its own and those of all."""
    module = _module(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m bench {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = getattr(module, "DEFAULTS", Defaults())
    every = parser.add_argument_group("every bench")
    every.add_argument("--starts", type=int, default=defaults.starts, help="processes of each side")
    every.add_argument("--rounds", type=int, default=defaults.rounds, help="turns of each process")
    every.add_argument("--seed", type=int, default=SEED, help="of everything random")
    every.add_argument("--side", action="append", default=[], help="only this side; repeatable")
    every.add_argument(
        "--json", type=Path, help="where the JSON file goes; var/bench/NAME-TIME.json"
    )
    every.add_argument("--folder", type=Path, help="for data, kept; a temporary one by default")
    every.add_argument("--strict", action="store_true", help="exit with 1 when a bound is missed")
    module.add_options(parser)
    return parser


def measure(name: str, arguments: Sequence[str]) -> int:
    """Run a bench and show what it found; the exit status."""
    module = _module(name)
    parser = parser_of(name)
    options = parser.parse_args(arguments)
    machine = {**facts(), "load_before": load_average()}
    print(f"== {name}: {module.SUMMARY}")
    print(f"{describe(machine)}; load {machine['load_before'][0]:.2f}; seed {options.seed}")
    if warned := warning(busy(), machine["load_before"][0], machine["cores"]):
        print(f"WARNING: {warned}", flush=True)
    folder = options.folder or Path(tempfile.mkdtemp(prefix=f"ragmesh-bench-{name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    try:
        chosen = [
            one
            for one in module.sides(options, folder.resolve())
            if not options.side or one.name in options.side
        ]
        if not chosen:
            parser.error("no side has the name that --side asks for")
        found = run(
            chosen, starts=options.starts, rounds=options.rounds, seed=options.seed, progress=_say
        )
    except SideFailed as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    findings = module.findings(found, options) if hasattr(module, "findings") else []
    machine["load_after"] = load_average()
    print(f"\n{report.show(found, findings)}\n")
    print(
        f"{time.time() - started:.0f} s; {options.starts} starts of {options.rounds} rounds; "
        f"load {machine['load_before'][0]:.2f} before, {machine['load_after'][0]:.2f} after; "
        f"others used {found.others:.0%} of the machine while it was measured"
    )
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started))
    path = options.json or ROOT / "var" / "bench" / f"{name}-{stamp}.json"
    report.write(path, report.as_json(name, vars(options), machine, found, findings))
    print(f"written: {path}\n", flush=True)
    return 1 if options.strict and not all(one.holds for one in findings) else 0


def _say(text: str) -> None:
    print(f"   {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
