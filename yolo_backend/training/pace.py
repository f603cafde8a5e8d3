"""How long a fitting may take, and how many steps fit into that."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Where the budget is counted in CPU time: what it waits for others ends some time, too.
_WALL_LIMIT, _WALL_LIMIT_S = 4.0, 900.0
_MEASURED = 0.2  # the part of the budget in which a step's cost is measured
_WARM_UP_STEPS = 20
_DECAY = 0.5  # the part of the steps over which the learning rate falls, at the end
_WITHOUT_MOSAIC = 0.2  # likewise
_MAX_EPOCHS, _FEW_STEPS = 300, 2000  # more learn little more, and some images by heart


class Budget:
    """How much of the time that is allowed was taken, since this was made, aside from what is `uncounted`.

    On a CPU it is CPU time, this process's and that of children that ended, so that a busy machine takes nothing away.
    It ends at the latest after four times as much wall time and a quarter of an hour. Elsewhere it is wall time.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        counts_cpu: bool,
        cpu_s: Callable[[], float] | None = None,
        wall_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s, self._counts_cpu = limit_s, counts_cpu
        self._cpu_s, self._wall_s = cpu_s or cpu_seconds, wall_s
        self._cpu_began_s, self._wall_began_s = self._cpu_s(), wall_s()

    def spent(self) -> float:
        """The part of the budget that is spent: 1 is all of it."""
        wall_s = self.elapsed_s()
        if not self._counts_cpu:
            return wall_s / self._limit_s
        cpu_s = self._cpu_s() - self._cpu_began_s
        return max(cpu_s / self._limit_s, wall_s / (_WALL_LIMIT * self._limit_s + _WALL_LIMIT_S))

    def elapsed_s(self) -> float:
        """The wall time that it took."""
        return self._wall_s() - self._wall_began_s

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is done in here takes nothing of it."""
        cpu_s, wall_s = self._cpu_s(), self._wall_s()
        try:
            yield
        finally:
            self._cpu_began_s += self._cpu_s() - cpu_s
            self._wall_began_s += self._wall_s() - wall_s


class Pace:
    """How many steps are made, of which an epoch has `epoch_steps`: measured by the first of them, then fixed.

    The learning rate is a factor of the step and, in the second half, of the number of all steps. So the steps that
    are made while this isn't known are those of a fitting that knows it from the beginning: with the same `steps` it
    can be made again.
    """

    def __init__(self, budget: Budget, epoch_steps: int, steps: int | None = None) -> None:
        self._budget, self.epoch_steps, self.steps = budget, epoch_steps, steps
        self.done = 0
        self._is_given = steps is not None
        self._began, self._began_s = budget.spent(), budget.elapsed_s()
        self._measured_from: tuple[int, float] = (0, self._began)
        self._enough = max(_MAX_EPOCHS * epoch_steps, _FEW_STEPS)

    @property
    def epoch(self) -> int:
        """The epoch that is under way, counted from 1."""
        return max(0, self.done - 1) // self.epoch_steps + 1

    @property
    def epochs(self) -> int | None:
        """How many there will be, the last perhaps in part; None while that is measured."""
        return self.steps and -(-self.steps // self.epoch_steps)

    @property
    def seconds_left(self) -> float | None:
        """How long the steps to come take, if they go on like those before; None while they aren't counted."""
        if self.steps is None or not self.done:
            return None
        return (self._budget.elapsed_s() - self._began_s) / self.done * (self.steps - self.done)

    @property
    def must_plan(self) -> bool:
        """Returns True if enough steps are made to say how many there will be."""
        is_measured = self._budget.spent() >= self._began + _MEASURED * (1 - self._began)
        # While the learning rate is still the same, however many there will be.
        return self.steps is None and self.done > 0 and (is_measured or self.done >= self._enough // 2)

    @property
    def is_over(self) -> bool:
        """Returns True after the last step, or if the time is up before it."""
        if self.steps is not None and self.done >= self.steps:
            return True
        return not self._is_given and self.done > 0 and self._budget.spent() >= 1

    @property
    def learning_rate(self) -> float:
        """That of the step to come, as a part of the highest."""
        warm_up = min(1.0, (self.done + 1) / _WARM_UP_STEPS)
        return warm_up * self.many_to_one

    @property
    def many_to_one(self) -> float:
        """From 1 to 0 in the second half of the steps."""
        if self.steps is None:
            return 1.0
        return min(1.0, (self.steps - self.done) / (_DECAY * self.steps))

    @property
    def has_mosaic(self) -> bool:
        """Returns False for the last steps, which see images as they are."""
        return self.steps is None or self.done < (1 - _WITHOUT_MOSAIC) * self.steps

    def stepped(self) -> None:
        """One more step is made."""
        self.done += 1
        if self.done == 1:  # which takes longer than the others: memory is got for it, and kernels are chosen
            self._measured_from = (1, self._budget.spent())

    def step_cost(self) -> float:
        """What a step takes, as a part of the budget."""
        steps, spent = self._measured_from
        if self.done == steps:  # one alone takes a fifth of the budget
            steps, spent = 0, self._began
        return (self._budget.spent() - spent) / (self.done - steps)

    def plan(self, step_cost: float, kept: float = 0.0) -> None:
        """Fix the number of steps, by what a step takes; a part of the budget is kept for something else."""
        left = max(0.0, 1 - self._budget.spent() - kept)
        self.steps = max(self.done, min(self.done + int(left / step_cost), self._enough))


def cpu_seconds() -> float:
    """What this process, with all of its threads, and its children that ended have had of the CPU."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


class Looks:
    """When the validation images are looked at: so often, evenly over the steps that are left, the last at the end."""

    def __init__(self) -> None:
        self.count = 0
        self._began: int | None = None
        self._made = 0

    def is_due(self, pace: Pace) -> bool:
        """Returns True if it is time for one."""
        if not self.count or pace.steps is None or self._made == self.count:
            return False
        if self._began is None:
            self._began = pace.done - 1
        next_at = self._began + (pace.steps - self._began) * (self._made + 1) // self.count
        if pace.done < next_at:
            return False
        self._made += 1
        return True
