"""Analysis in a process of its own: the same as here, and whatever happens to the process."""

import asyncio
import os
import signal

import psutil
import pytest

from services.retrieve.adapters import ANALYZERS
from services.retrieve.adapters.analyst import Analyst
from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.analysis import Analysis
from tests.until import until

TEXTS = [f"Number {number} tells of foxes and rivers. 東京の川は長い。" for number in range(250)]
LANGUAGES = ["en", "ja"] * 125
AVERAGES = {"en": (9.0,)}


class Failing(TermsAnalyzer):
    """Analyses nothing in the other process."""

    home = os.getpid()

    def lengths(self, text):
        if os.getpid() != self.home:
            raise ValueError("of the test")
        return super().lengths(text)


@pytest.fixture
async def here():
    analysis = Analysis(TermsAnalyzer())
    await analysis.start()
    return analysis


@pytest.fixture
async def analyst():
    one = Analyst(TermsAnalyzer(), ANALYZERS["terms"])
    await one.start()
    yield one
    await one.aclose()


async def test_it_says_what_analysis_here_says(analyst, here):
    asked = (TEXTS, LANGUAGES, AVERAGES)
    assert await analyst.documents(*asked) == await here.documents(*asked)
    assert await analyst.lengths(TEXTS) == await here.lengths(TEXTS)
    assert await analyst.documents([], [], {}) == await analyst.lengths([]) == []


async def test_those_who_ask_at_once_get_their_own(analyst, here):
    asked = [TEXTS[number : number + 3] for number in range(40)]
    found = await asyncio.gather(*map(analyst.lengths, asked))
    assert found == [await here.lengths(one) for one in asked]


async def test_who_leaves_takes_nobodys_answer_away(analyst, here):
    leaving = [asyncio.create_task(analyst.lengths(TEXTS)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    assert await analyst.lengths(["one two"]) == await here.lengths(["one two"])


async def test_a_process_that_died_is_started_again(analyst, here):
    expected = await here.lengths(TEXTS)
    assert await analyst.lengths(TEXTS) == expected
    first = analyst.process_id
    os.kill(first, signal.SIGKILL)
    assert await analyst.lengths(TEXTS) == expected
    assert analyst.process_id not in (None, first)


async def test_without_a_process_it_is_done_here(here):
    analyst = Analyst(TermsAnalyzer(), "services.retrieve.adapters.terms:NoSuchAnalyzer")
    await analyst.start()
    assert await analyst.lengths(TEXTS[:5]) == await here.lengths(TEXTS[:5])
    await analyst.aclose()


async def test_what_fails_there_is_done_here(here):
    analyst = Analyst(TermsAnalyzer(), f"{__name__}:Failing")
    await analyst.start()
    assert await analyst.lengths(TEXTS[:5]) == await here.lengths(TEXTS[:5])
    assert analyst.process_id is not None  # it lives
    await analyst.aclose()


async def test_it_ends_with_the_service(analyst):
    assert await analyst.lengths(["one"])
    process = psutil.Process(analyst.process_id)
    await analyst.aclose()
    await until(lambda: not process.is_running())
    assert analyst.process_id is None
