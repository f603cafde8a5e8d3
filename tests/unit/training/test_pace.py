"""How many steps fit into a budget, and what is made of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from yolo_backend.training.pace import Budget, Pace


@dataclass
class Machine:
    """Two cores, both busy with the training as far as others leave them to it."""

    cpu_s: float = 5.0  # it has run for a while
    wall_s: float = 100.0
    share: float = field(default=1.0)

    def work(self, cpu_s: float) -> None:
        self.cpu_s += cpu_s
        self.wall_s += cpu_s / 2 / self.share

    def budget(self, limit_s: float, *, counts_cpu: bool = True) -> Budget:
        return Budget(limit_s, counts_cpu=counts_cpu, cpu_s=lambda: self.cpu_s, wall_s=lambda: self.wall_s)


def run(machine: Machine, pace: Pace, step_s: Callable[[int], float], kept: float = 0.0) -> list[float]:
    """All steps; the learning rate of each."""
    rates = []
    while not pace.is_over:
        if pace.must_plan:
            pace.plan(pace.step_cost(), kept)
            if pace.is_over:
                break
        rates.append(pace.learning_rate)
        machine.work(step_s(pace.done))
        pace.stepped()
    return rates


def test_cpu_time_counts_on_a_cpu_and_not_the_wall() -> None:
    machine = Machine(share=0.5)
    budget = machine.budget(60)
    machine.work(30)
    assert budget.spent() == pytest.approx(0.5)
    assert budget.elapsed_s() == 30


def test_who_waits_for_others_all_the_time_ends_too() -> None:
    machine = Machine(share=0.01)
    budget = machine.budget(60)
    machine.work(22.8)  # in 1,140 s
    assert budget.spent() == pytest.approx(1.0)


@pytest.mark.parametrize("counts_cpu", [True, False])
def test_what_is_not_counted_takes_nothing_also_if_it_fails(*, counts_cpu: bool) -> None:
    machine = Machine()
    budget = machine.budget(60, counts_cpu=counts_cpu)
    machine.work(6)
    before, before_s = budget.spent(), budget.elapsed_s()
    with suppress(MemoryError), budget.uncounted():
        machine.work(30)
        raise MemoryError
    assert (budget.spent(), budget.elapsed_s()) == pytest.approx((before, before_s))
    machine.work(6)
    assert budget.spent() == pytest.approx(2 * before)


def test_the_wall_counts_on_a_gpu() -> None:
    machine = Machine()
    budget = machine.budget(60, counts_cpu=False)
    machine.work(60)
    assert budget.spent() == pytest.approx(0.5)


@pytest.mark.parametrize("step_s", [0.1, 1.0, 7.0])
def test_the_steps_fill_the_budget_and_no_more(step_s: float) -> None:
    machine = Machine()
    budget = machine.budget(60)
    machine.work(3)  # to set up
    run(machine, Pace(budget, 10), lambda _: step_s)
    assert 1 - step_s / 60 - 0.01 <= budget.spent() <= 1.01


def test_the_first_step_is_dearer_than_the_others_and_tells_nothing() -> None:
    machine = Machine()
    budget = machine.budget(60)
    run(machine, Pace(budget, 10), lambda number: 5.0 if number == 0 else 0.5)
    assert 0.98 <= budget.spent() <= 1.01


def test_a_part_is_kept_for_something_else() -> None:
    machine = Machine()
    budget = machine.budget(60)
    run(machine, Pace(budget, 10), lambda _: 0.5, kept=0.1)
    assert 0.88 <= budget.spent() <= 0.91


def test_it_ends_in_time_where_steps_become_dearer() -> None:
    machine = Machine()
    budget = machine.budget(60)
    pace = Pace(budget, 10)
    run(machine, pace, lambda number: 0.5 if number < 30 else 2.0)
    assert 1 <= budget.spent() <= 1.05
    assert pace.steps
    assert pace.done < pace.steps


def test_a_step_that_takes_longer_than_the_budget_is_made_once() -> None:
    machine = Machine()
    pace = Pace(machine.budget(60), 10)
    assert len(run(machine, pace, lambda _: 90)) == 1
    assert (pace.done, pace.epoch) == (1, 1)


def test_a_step_of_two_thirds_of_the_budget_is_not_made_twice() -> None:
    machine = Machine()
    budget = machine.budget(60)
    run(machine, Pace(budget, 10), lambda _: 40)
    assert budget.spent() < 0.7


def test_images_aren_t_learnt_by_heart() -> None:
    machine = Machine()
    budget = machine.budget(36_000)
    pace = Pace(budget, 10)
    run(machine, pace, lambda _: 0.1)
    assert (pace.done, pace.epochs) == (3000, 300)
    assert budget.spent() < 0.02


def test_few_images_are_seen_more_often() -> None:
    machine = Machine()
    pace = Pace(machine.budget(36_000), 1)
    run(machine, pace, lambda _: 0.1)
    assert pace.done == 2000


def test_the_learning_rate_rises_stays_and_falls() -> None:
    machine = Machine()
    rates = run(machine, Pace(machine.budget(60), 10), lambda _: 0.25)
    assert rates[0] == pytest.approx(0.05)
    assert rates[19] == 1.0
    assert rates[len(rates) // 2] == pytest.approx(1.0, abs=0.02)
    assert 0 < rates[-1] < 0.02
    assert rates[20:] == sorted(rates[20:], reverse=True)


@pytest.mark.parametrize("limit_s", [60, 36_000])
def test_with_the_same_number_of_steps_it_is_made_again(limit_s: float) -> None:
    machine = Machine()
    pace = Pace(machine.budget(limit_s), 10)
    rates = run(machine, pace, lambda number: 0.2 + number % 3 / 10)
    slower = Machine()
    again = Pace(slower.budget(1), 10, steps=pace.done)
    assert run(slower, again, lambda _: 5.0) == rates


def test_mosaic_ends_a_fifth_before_the_end() -> None:
    pace = Pace(Machine().budget(60), 10, steps=100)
    seen = []
    while not pace.is_over:
        seen.append(pace.has_mosaic)
        pace.stepped()
    assert seen == [True] * 80 + [False] * 20


def test_the_time_left_is_that_of_the_steps_to_come() -> None:
    machine = Machine()
    pace = Pace(machine.budget(60), 10, steps=40)
    assert pace.seconds_left is None
    for _ in range(10):
        machine.work(2)
        pace.stepped()
    assert pace.seconds_left == pytest.approx(30)
