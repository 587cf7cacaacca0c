"""When steps start and how large they are: the policy over simulated time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from app.serving.batcher import AT_ONCE, Batcher
from app.serving.scheduling import LATE, MAX_HOLD, LatestStart, StepTime, learnt, sustained

STEP_S = 0.6
TICK_S = 0.02

Cost = Callable[[int], float]


def costs(fixed_ms: float, per_stream_ms: float) -> Cost:
    return lambda streams: (fixed_ms + per_stream_ms * streams) / 1000


INT8 = costs(40, 20)
"""The streaming model in int8 on one core, as measured, in round figures."""
FP32 = costs(130, 60)
FAST = costs(4, 0.1)
"""A GPU's order of magnitude."""


@dataclass
class Client:
    """A stream: when each of its chunks is full; what came of them."""

    arrivals: list[float]
    urgent: bool = False
    leaves_at: float = math.inf
    next: int = 0
    waiting: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)


@dataclass
class Report:
    """What a simulation showed."""

    clients: list[Client]
    sizes: list[int] = field(default_factory=list)
    busy_s: float = 0.0

    @property
    def mean_batch(self) -> float:
        return sum(self.sizes) / len(self.sizes)

    def worst(self, share: float = 0.99, first: int | None = None) -> float:
        """The lag that ``share`` of the answers stay below, for the first clients."""
        lags = sorted(lag for client in self.clients[:first] for lag in client.lags)
        return lags[min(int(share * len(lags)), len(lags) - 1)]

    def backlog(self) -> int:
        return sum(len(client.waiting) for client in self.clients)


class Simulation:
    """The loop of a worker, with a clock that jumps from one event to the next."""

    def __init__(self, policy: Batcher[int], cost: Cost, clients: Sequence[Client]) -> None:
        self.policy = policy
        self.cost = cost
        self.clients = list(clients)
        self.report = Report(self.clients)
        self.now = 0.0
        self.step: list[int] = []
        self.step_end = math.inf

    def run(self, until: float) -> Report:
        while True:
            due = None if self.step else self.policy.due(self.now)
            events = [self.step_end]
            events += [c.arrivals[c.next] for c in self.clients if c.next < len(c.arrivals)]
            events += [c.leaves_at for c in self.clients if c.leaves_at > self.now]
            if due is not None:
                events.append(due)
            moment = min(events)
            if moment >= until:
                return self.report
            self.now = max(self.now, moment)
            self.advance()

    def advance(self) -> None:
        if self.now >= self.step_end:
            self.finish()
        for key, client in enumerate(self.clients):
            while client.next < len(client.arrivals) and client.arrivals[client.next] <= self.now:
                client.waiting.append(client.arrivals[client.next])
                client.next += 1
            if client.leaves_at <= self.now and client.waiting:
                client.waiting.clear()
                self.policy.discard(key)
            self.ready(key)
        due = None if self.step else self.policy.due(self.now)
        if due is not None and due <= self.now:
            self.step = self.policy.take(self.now)
            seconds = self.cost(len(self.step))
            self.report.sizes.append(len(self.step))
            self.report.busy_s += seconds
            self.step_end = self.now + seconds

    def ready(self, key: int) -> None:
        client = self.clients[key]
        if client.waiting and key not in self.step:
            self.policy.add(key, self.now, urgent=client.urgent)

    def finish(self) -> None:
        self.policy.took(len(self.step), self.cost(len(self.step)))
        step, self.step, self.step_end = self.step, [], math.inf
        for key in step:
            client = self.clients[key]
            if client.waiting:
                client.lags.append(self.now - client.waiting.pop(0))
            self.ready(key)


def speakers(number: int, seconds: float, jitter_s: float = 0.0, seed: int = 1) -> list[Client]:
    """Clients in real time, with phases as they come."""
    chance = random.Random(seed)
    clients = []
    for _ in range(number):
        phase = chance.uniform(0, STEP_S)
        full = [phase + (k + 1) * STEP_S for k in range(int(seconds / STEP_S))]
        clients.append(Client(sorted(at + chance.uniform(0, jitter_s) for at in full)))
    return clients


def seeded(cost: Cost, max_batch: int | None = None) -> LatestStart[int]:
    policy: LatestStart[int] = LatestStart(STEP_S, max_batch, TICK_S)
    for streams in (1, 2, 4, 8):
        policy.took(streams, cost(streams))
    return policy


def simulate(
    policy: Batcher[int], cost: Cost, clients: Sequence[Client], seconds: float = 60
) -> Report:
    return Simulation(policy, cost, clients).run(seconds)


def keeps_up(report: Report) -> bool:
    """Whether every stream is recognised in real time: no chunk waits for the one after it."""
    return report.worst(1.0) < 2 * STEP_S and report.backlog() <= len(report.clients)


# The policy by itself


def test_nobody_ready_nothing_due() -> None:
    policy = seeded(INT8)
    assert policy.due(1.0) is None
    assert policy.take(1.0) == []


def busy(number: int, cost: Cost = INT8) -> LatestStart[int]:
    """A policy that has just had a step for streams that were ready every 10 ms from 0 on."""
    policy = seeded(cost)
    for key in range(number):
        policy.add(key, key * 0.01)
    policy.take(0.2)
    return policy


def test_waits_for_those_that_are_about_to_come_and_no_longer() -> None:
    policy = busy(6)
    policy.add(0, 0.6)
    due = policy.due(0.6)
    assert due is not None and due > 0.61
    for key in range(1, 5):
        policy.add(key, 0.6 + key * 0.01)
        due = policy.due(0.6 + key * 0.01)
        assert due is not None and due > 0.6 + key * 0.01
    policy.add(5, 0.65)
    assert policy.due(0.65) == AT_ONCE  # all are here
    assert policy.take(0.65) == [0, 1, 2, 3, 4, 5]


def test_the_oldest_does_not_wait_beyond_its_hold() -> None:
    policy = busy(6)
    policy.add(9, 0.42)
    assert policy.due(0.42) == pytest.approx(0.42 + MAX_HOLD * STEP_S)
    policy.add(0, 0.6)
    assert policy.due(0.6) == pytest.approx(0.42 + MAX_HOLD * STEP_S)
    assert policy.due(0.661) == AT_ONCE


def test_the_hold_leaves_time_for_the_step() -> None:
    policy = busy(18, costs(100, 20))
    for key in range(20, 30):
        policy.add(key, 0.55)
    # A step for 11 takes 320 ms; it should be over within 480 ms.
    assert policy.due(0.706) == pytest.approx(0.55 + 0.16)
    assert policy.due(0.711) == AT_ONCE


def test_who_is_alone_never_waits() -> None:
    policy = seeded(INT8)
    for step in range(5):
        policy.add(1, step * STEP_S)
        assert policy.due(step * STEP_S) == AT_ONCE
        assert policy.take(step * STEP_S) == [1]


def test_nobody_waits_for_one_who_is_gone_or_pauses() -> None:
    policy = busy(6)
    for key in range(1, 6):
        policy.discard(key)
    policy.add(0, 0.6)
    assert policy.due(0.6) == AT_ONCE

    policy = busy(6)  # nobody but this one comes
    policy.add(0, 0.6)
    assert policy.due(0.6) == pytest.approx(0.61 + LATE * STEP_S)
    assert policy.due(0.69) == pytest.approx(0.62 + LATE * STEP_S)
    assert policy.due(0.74) == AT_ONCE


def test_a_hurry_starts_a_step_at_once_and_takes_all_along() -> None:
    policy = busy(6)
    policy.add(0, 0.6)
    policy.add(1, 0.61, urgent=True)
    assert policy.due(0.61) == AT_ONCE
    assert policy.take(0.61) == [0, 1]
    policy.add(2, 0.62)
    due = policy.due(0.62)
    assert due is not None and due > 0.62  # the hurry is over


def test_a_fast_engine_with_little_to_do_holds_nobody_for_long() -> None:
    policy = busy(6, FAST)
    policy.add(0, 0.6)
    due = policy.due(0.6)
    assert due is not None and due <= 0.6 + TICK_S


def test_the_cap_is_what_fits_into_the_time_and_the_rest_is_next_the_oldest_first() -> None:
    policy = seeded(FP32)  # 5 take 430 ms, 6 take 490; a step should be over within 480 ms
    for key in (7, 3, 5, 1, 2, 9, 8):
        policy.add(key, 1.0)
    assert policy.due(1.0) == AT_ONCE
    assert policy.take(1.0) == [7, 3, 5, 1, 2]
    policy.add(7, 1.4)  # again, and behind those that have not had their turn
    assert policy.take(1.43) == [9, 8, 7]


@pytest.mark.parametrize(
    ("cost", "max_batch", "cap"),
    [
        (INT8, None, 22),
        (INT8, 16, 16),
        (INT8, 1, 1),
        (costs(600, 100), None, 8),  # too slow anyway: what shares a step of twice a single one
        (costs(0, 1_000), None, 2),
    ],
)
def test_the_cap_never_makes_it_worse(cost: Cost, max_batch: int | None, cap: int) -> None:
    assert seeded(cost, max_batch).cap() == cap


def test_without_any_step_yet_there_is_neither_a_cap_nor_a_hold() -> None:
    policy: LatestStart[int] = LatestStart(STEP_S, None, TICK_S)
    assert policy.cap() is None
    policy.add(1, 0.0)
    policy.add(2, 0.01)
    policy.take(0.01)
    policy.add(1, 0.6)
    assert policy.due(0.6) == AT_ONCE


# The model of a step's time


def test_the_model_finds_both_costs_through_noise() -> None:
    chance = random.Random(3)
    model = StepTime()
    for _ in range(500):
        streams = chance.randint(4, 9)
        model.observe(streams, INT8(streams) * chance.uniform(0.9, 1.1))
    assert model.fixed_s == pytest.approx(0.040, abs=0.02)
    assert model.predicted(7) == pytest.approx(INT8(7), rel=0.05)


def test_the_same_batch_for_hours_keeps_what_was_known_of_sharing() -> None:
    model = learnt([(1, INT8(1)), (8, INT8(8))])
    for factor in (1, 2):  # the machine gets slower
        for _ in range(5_000):
            model.observe(6, factor * INT8(6))
        assert model.fixed_s == pytest.approx(factor * 0.040, rel=0.01)
        assert model.per_stream_s == pytest.approx(factor * 0.020, rel=0.01)


def test_one_stall_changes_little_and_a_slower_machine_is_noticed() -> None:
    model = learnt([(1, INT8(1)), (8, INT8(8))] * 20)
    model.observe(8, 30.0)
    assert model.predicted(8) < 1.2 * INT8(8)
    for _ in range(150):
        model.observe(8, 4 * INT8(8))
    assert model.predicted(8) == pytest.approx(4 * INT8(8), rel=0.1)


def test_a_slow_first_step_is_soon_forgotten() -> None:
    model = learnt([(1, 5.0)])
    for _ in range(20):
        model.observe(2, INT8(2))
    assert model.predicted(2) == pytest.approx(INT8(2), rel=0.1)


def test_neither_cost_is_ever_negative() -> None:
    model = learnt([(1, 0.2), (4, 0.1), (8, 0.05)])
    assert model.per_stream_s == 0
    assert model.fixed_s > 0
    assert model.most(1.0) is None
    assert model.most(0.01) == 0
    model = learnt([(1, 0.01), (2, 0.1), (8, 1.0)])
    assert model.fixed_s == 0
    assert model.per_stream_s > 0


# How many streams a device carries


@pytest.mark.parametrize(
    ("cost", "max_batch", "most", "streams"),
    [
        (INT8, None, 256, 22),  # one step of 22 takes 480 ms
        (INT8, None, 12, 12),
        (INT8, 8, 256, 19),  # a step of 8 takes 200 ms: 2.4 of them
        (INT8, 1, 256, 8),
        (FP32, None, 256, 5),
        (FP32, 1, 256, 2),
        (FAST, None, 2_000, 2_000),
        (costs(600, 100), None, 256, 1),
        (costs(0, 0), None, 256, 256),
    ],
)
def test_streams_that_a_device_carries(
    cost: Cost, max_batch: int | None, most: int, streams: int
) -> None:
    model = learnt([(n, cost(n)) for n in (1, 2, 4, 8)])
    assert sustained(model, STEP_S, max_batch, most) == streams


@pytest.mark.parametrize("cost", [INT8, FP32, costs(62, 26), costs(25, 12)])
@pytest.mark.parametrize("max_batch", [None, 8, 1])
@pytest.mark.parametrize("seed", [1, 2])
def test_that_many_are_really_carried(cost: Cost, max_batch: int | None, seed: int) -> None:
    streams = sustained(learnt([(n, cost(n)) for n in (1, 2, 4, 8)]), STEP_S, max_batch, 1_000)
    report = simulate(seeded(cost, max_batch), cost, speakers(streams, 60, 0.03, seed))
    assert keeps_up(report)
    assert report.worst() < 1.0


# The whole, over simulated minutes


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sixteen_streams_share_steps_and_are_answered_in_time(seed: int) -> None:
    report = simulate(seeded(INT8), INT8, speakers(16, 120, 0.03, seed), 120)
    assert report.mean_batch >= 6
    assert report.worst() < 0.5
    assert report.busy_s < 0.75 * 120


@pytest.mark.parametrize("cost", [INT8, FP32])
def test_without_sharing_less_than_half_as_many_are_carried(cost: Cost) -> None:
    def carried(max_batch: int | None) -> int:
        number = 1
        while True:
            policy = seeded(cost, max_batch)
            report = simulate(policy, cost, speakers(number + 1, 120), 120)
            if report.worst() >= 1.0:
                return number
            number += 1

    assert carried(None) >= 2 * carried(1)


def test_an_overloaded_device_goes_on_at_its_best_rate() -> None:
    report = simulate(seeded(FP32), FP32, speakers(16, 60))
    assert sum(report.sizes) / report.busy_s >= 0.9 * 5 / FP32(5)
    answers = [len(client.lags) for client in report.clients]
    assert max(answers) - min(answers) <= 1  # they share the misery


def disturbed(disturber: Client | None, cost: Cost, number: int) -> Report:
    clients = speakers(number, 60, 0.03, seed=5)
    return simulate(seeded(cost), cost, [*clients, *([disturber] if disturber else [])])


@pytest.mark.parametrize("cost", [INT8, FP32])
@pytest.mark.parametrize(
    "disturber",
    [
        pytest.param(lambda: Client([0.0] * 1_000), id="flood"),
        pytest.param(lambda: Client([0.0] * 1_000, urgent=True), id="flood in a hurry"),
        pytest.param(lambda: speakers(1, 20)[0], id="stalls after 20 s"),
        pytest.param(lambda: Client([k / 2 for k in range(9)], leaves_at=4.2), id="disappears"),
        pytest.param(lambda: Client([k * 1.7 for k in range(30)]), id="comes late each time"),
    ],
)
def test_one_that_misbehaves_delays_the_others_by_one_step_at_most(
    disturber: Callable[[], Client], cost: Cost
) -> None:
    number = 12 if cost is INT8 else 4
    quiet = disturbed(None, cost, number)
    loud = disturbed(disturber(), cost, number)
    longest = cost(max(loud.sizes))
    assert loud.worst(1.0, number) < 2 * STEP_S
    for share in (0.5, 0.99, 1.0):
        assert loud.worst(share, number) <= quiet.worst(share) + longest
    assert [len(client.lags) for client in loud.clients[:number]] == pytest.approx(
        [len(client.lags) for client in quiet.clients], abs=1
    )


def test_a_flood_is_served_in_every_step_but_only_once() -> None:
    flood = Client([0.0] * 1_000)
    report = disturbed(flood, INT8, 12)
    assert len(report.sizes) - 2 <= len(flood.lags) <= len(report.sizes)
    assert len(flood.lags) * STEP_S > 2 * 60  # and gets on faster than in real time
