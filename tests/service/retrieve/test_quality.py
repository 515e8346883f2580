"""The promise of hybrid search on samples of the sets, through the real service: a gate.

`make eval` measures whole sets; this finds out within a minute that something broke.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bench import eval as bench

SETS = Path(__file__).parents[4] / "shared" / "data" / "retrieval"
QUESTIONS = 40
DOCUMENTS = 250


def sample(name: str) -> bench.RetrievalSet:
    """Some questions of a set, their answers, and other documents."""
    folder = SETS / name
    if not folder.is_dir():
        pytest.skip(f"the evaluation set {name} is not here")
    whole = bench.read_set(folder, 0)
    queries = whole.queries[:: max(1, len(whole.queries) // QUESTIONS)][:QUESTIONS]
    wanted = {document for query, _ in queries for document in whole.relevant[query]}
    ordered = sorted(whole.corpus, key=lambda document: document[0] not in wanted)
    return replace(whole, corpus=ordered[: max(DOCUMENTS, len(wanted))], queries=queries)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("cranfield_en", 0.55), ("jsquad_valid_ja", 0.93)])
async def test_hybrid_is_no_worse_than_its_best_arm(name, least, tmp_path):
    one = sample(name)
    with bench.retrieve_service(tmp_path / "cache", "auto") as address:
        rows = await asyncio.wait_for(bench.evaluate_sample(address, one), 110)
    quality = {row.mode: row.ndcg_10 for row in rows}
    assert quality["hybrid"] >= max(quality["dense"], quality["sparse"]) - 0.01
    assert quality["hybrid"] >= quality[bench.RRF] - 0.01
    assert quality["hybrid"] >= least
