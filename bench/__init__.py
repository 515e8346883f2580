"""Benchmarks and evaluations. They print tables and are no tests.

    python -m bench                                every bench at a quick size, in minutes
    python -m bench search --chunks 1000000        one bench at another size
    python -m bench --help                         which benches there are

How to write one
----------------

A bench is a module and a line in `bench.__main__.BENCHES`. It compares *sides*, each a class whose
objects live in processes of their own; `bench.harness` starts each side several times, lets them
work in turn (A B A B ...), and counts processor time beside wall time, child processes included:

    class Int8(Work):
        async def prepare(self):                   # once a start: load, warm up; not timed
            self.model = load(self.options["path"], self.seed)
            return {"load_s": ...}                 # figures to print

        async def measure(self, round_):           # one block; the harness times it as a whole
            seconds = []
            for text in texts_of(round_):          # the same work for every side
                with stopwatch(seconds):
                    self.model.encode(text)
            return Block(len(seconds), {"encode": seconds}, {"texts_per_s": ...})

    SUMMARY = "what it compares, in a line"
    QUICK = ("--texts", "50")                      # options of the quick run
    DEFAULTS = Defaults(starts=3, rounds=5)        # may be left out

    def add_options(parser): ...                   # its own options, with defaults
    def sides(options, folder):                    # the first side is what others are held to
        return [Side("torch fp32", "bench.encoding:Torch", {...}), Side("int8", ...)]
    def findings(run, options):                    # may be left out: what must hold
        return [Finding("times torch fp32", run.speedup("int8", "torch fp32"), at_least=2.5)]

`Side(..., build=True)` calls the side's `build` once, in a process of its own, before its starts:
for an index that every start opens. Options travel to the processes, so they are plain values.
"""
