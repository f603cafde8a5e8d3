"""Which requests may wait for predictions."""

from __future__ import annotations

from contextlib import ExitStack

from yolo_backend.server.admission import Admission


def taken(admission: Admission, held: ExitStack, task_count: int) -> bool:
    return held.enter_context(admission.take(task_count))


def test_two_threads_are_for_other_calls_and_one_for_a_person() -> None:
    admission = Admission(threads=5)
    with ExitStack() as held:
        assert [taken(admission, held, task_count=2) for _ in range(3)] == [True, True, False]
        assert [taken(admission, held, task_count=1) for _ in range(2)] == [True, False]


def test_who_goes_lets_another_in_and_a_refusal_costs_nothing() -> None:
    admission = Admission(threads=4)
    for _ in range(3):
        with ExitStack() as held:
            assert [taken(admission, held, task_count=2) for _ in range(2)] == [True, False]
            assert taken(admission, held, task_count=1)


def test_people_may_be_all_who_wait() -> None:
    admission = Admission(threads=5)
    with ExitStack() as held:
        assert [taken(admission, held, task_count=1) for _ in range(4)] == [True, True, True, False]
        assert not taken(admission, held, task_count=2)
