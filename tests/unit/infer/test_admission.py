"""Who runs, who waits, and who is shed."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY as METRICS

from services.infer.admission import Admission
from services.runtime.errors import DeadlineExceeded, RagmeshError, Unavailable
from tests.until import until


class Crowd:
    """Generations that hold their slots until they are let go."""

    def __init__(self, admission):
        self.admission = admission
        self.started = []
        self.tasks = []
        self._gates = {}

    def come(self, name, *, tenant="", model="", end=1e12):
        gate = self._gates[name] = asyncio.Event()

        async def generation():
            async with self.admission.slot(end, tenant=tenant, model=model):
                self.started.append(name)
                await gate.wait()

        task = asyncio.ensure_future(generation())
        self.tasks.append(task)
        return task

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0)

    async def end(self, name):
        self._gates[name].set()
        await self.settle()

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def crowd_of():
    crowds = []

    def make(*limits, **more):
        crowd = Crowd(Admission(*limits, **more))
        crowds.append(crowd)
        return crowd

    yield make
    for crowd in crowds:
        await crowd.leave()
        assert (crowd.admission.running, crowd.admission.waiting) == (0, 0)


async def test_a_tenant_with_many_requests_does_not_starve_one_with_few(crowd_of):
    crowd = crowd_of(1, 100)
    for i in range(20):
        crowd.come(f"a{i}", tenant="a")
    await crowd.settle()
    crowd.come("b0", tenant="b")
    crowd.come("b1", tenant="b")
    await crowd.settle()
    for _ in range(5):
        await crowd.end(crowd.started[-1])
    assert crowd.started == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_slots_go_to_who_has_fewest_running(crowd_of):
    crowd = crowd_of(3, 100)
    for name in ("a0", "a1", "a2", "a3", "a4"):
        crowd.come(name, tenant="a")
    await crowd.settle()
    for name in ("b0", "b1", "b2"):
        crowd.come(name, tenant="b")
    await crowd.settle()
    await crowd.end("a0")
    await crowd.end("a1")
    await crowd.end("a2")
    assert crowd.started == ["a0", "a1", "a2", "b0", "a3", "b1"]


async def test_weights_share_out_the_slots(crowd_of):
    crowd = crowd_of(1, 100, weights={"a": 3.0})
    crowd.come("first", tenant="c")
    await crowd.settle()
    for i in range(12):
        crowd.come(f"a{i}", tenant="a")
        crowd.come(f"b{i}", tenant="b")
    await crowd.settle()
    for _ in range(12):
        await crowd.end(crowd.started[-1])
    served = "".join(name[0] for name in crowd.started[1:13])
    assert (served.count("a"), served.count("b")) == (9, 3)


async def test_a_full_queue_gives_the_greediest_tenants_last_place_to_another(crowd_of):
    crowd = crowd_of(1, 4)
    tasks = {name: crowd.come(name, tenant="a") for name in ("a0", "a1", "a2", "a3", "a4")}
    await crowd.settle()
    crowd.come("b0", tenant="b")
    await crowd.settle()
    with pytest.raises(Unavailable) as caught:
        await tasks["a4"]
    assert (caught.value.reason, caught.value.retry_after) == ("ENGINE_OVERLOADED", 1.0)
    with pytest.raises(Unavailable):
        await crowd.come("a5", tenant="a")
    await crowd.end("a0")
    assert crowd.started == ["a0", "b0"]


async def test_leaving_frees_a_place_and_a_slot(crowd_of):
    crowd = crowd_of(1, 1)
    first, second = crowd.come("a"), crowd.come("b")
    await crowd.settle()
    second.cancel()
    await crowd.settle()
    assert crowd.admission.waiting == 0
    crowd.come("c")
    await crowd.settle()
    first.cancel()
    await crowd.settle()
    assert crowd.started == ["a", "c"]


async def test_a_slot_that_comes_as_its_waiter_leaves_is_not_lost(crowd_of):
    crowd = crowd_of(1, 4)
    crowd.come("a")
    second = crowd.come("b")
    crowd.come("c")
    await crowd.settle()
    crowd._gates["a"].set()
    await asyncio.sleep(0)  # the slot is granted to b, which has not run yet
    second.cancel()
    await crowd.settle()
    assert "c" in crowd.started


async def test_models_have_limits_of_their_own(crowd_of):
    crowd = crowd_of(3, 10, model_limits={"big": 1})
    for name, model in (("b0", "big"), ("b1", "big"), ("s0", "small")):
        crowd.come(name, model=model)
    await crowd.settle()
    assert crowd.started == ["b0", "s0"]
    await crowd.end("b0")
    assert crowd.started == ["b0", "s0", "b1"]


class Manager:
    """Loads and unloads in name only."""

    exclusive = True

    def __init__(self):
        self.unloaded = []

    async def load(self, model):
        pass

    async def unload(self, model):
        await asyncio.sleep(0)
        self.unloaded.append(model)

    async def pull(self, model):
        return
        yield


async def test_one_model_at_a_time_and_none_waits_for_ever(crowd_of):
    manager = Manager()
    crowd = crowd_of(4, 10, manager=manager)
    for name in ("x0", "x1", "y0", "x2"):
        crowd.come(name, model=name[0])
    await crowd.settle()
    assert crowd.started == ["x0", "x1"]  # x2 came after a wish for y
    await crowd.end("x0")
    assert (crowd.started, manager.unloaded) == (["x0", "x1"], [])
    await crowd.end("x1")
    assert (crowd.started, manager.unloaded) == (["x0", "x1", "y0"], ["x"])
    await crowd.end("y0")
    assert (crowd.started[-1], manager.unloaded) == ("x2", ["x", "y"])


def shed(reason):
    labels = {"provider": "busy", "reason": reason}
    return METRICS.get_sample_value("ragmesh_infer_shed_total", labels) or 0.0


async def test_what_cannot_be_in_time_is_shed_at_once_with_a_delay(crowd_of):
    crowd = crowd_of(1, 100, provider="busy")
    clock = asyncio.get_running_loop().time
    for _ in range(5):  # so long do they take
        async with crowd.admission.slot(clock() + 10):
            await asyncio.sleep(0.05)
    crowd.come("runs")
    await crowd.settle()
    before = shed("hopeless")
    with pytest.raises(Unavailable) as caught:
        await crowd.come("late", end=clock() + 0.01)
    assert caught.value.reason == "ENGINE_OVERLOADED"
    assert 0.05 <= (caught.value.retry_after or 0) <= 5
    assert shed("hopeless") == before + 1
    patient = crowd.come("patient", end=clock() + 60)
    await until(lambda: crowd.admission.waiting == 1)
    patient.cancel()


async def test_the_deadline_ends_the_wait(crowd_of):
    crowd = crowd_of(1, 4)
    crowd.come("runs")
    await crowd.settle()
    with pytest.raises(DeadlineExceeded):
        await crowd.come("waits", end=asyncio.get_running_loop().time() + 0.02)
    assert crowd.admission.waiting == 0


async def test_no_account_is_kept_of_tenants_that_left_while_others_waited(crowd_of):
    crowd = crowd_of(1, 9)
    crowd.come("a", tenant="a")
    leavers = [crowd.come(name, tenant=name) for name in "bcd"]
    crowd.come("e", tenant="e")
    await crowd.settle()
    for task in leavers:
        task.cancel()
    await crowd.settle()
    assert crowd.admission.waiting == 1
    await crowd.end("a")
    await crowd.end("e")
    assert crowd.started == ["a", "e"]
    assert not crowd.admission._tenants


async def test_no_account_is_kept_of_tenants_that_left():
    admission = Admission(1, 1)
    for i in range(50):
        with suppress(RagmeshError):
            async with admission.slot(1e12, tenant=str(i)):
                pass
    assert not admission._tenants
