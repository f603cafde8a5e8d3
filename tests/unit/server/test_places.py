"""Places for requests that wait for predictions."""

from __future__ import annotations

from contextlib import ExitStack

from yolo_backend.server.places import Places


def taken(places: Places, held: ExitStack, task_count: int) -> bool:
    return held.enter_context(places.take(task_count))


def test_two_threads_are_for_other_calls_and_one_for_a_person() -> None:
    places = Places(threads=5)
    with ExitStack() as held:
        assert [taken(places, held, task_count=2) for _ in range(3)] == [True, True, False]
        assert [taken(places, held, task_count=1) for _ in range(2)] == [True, False]


def test_a_place_is_given_back_and_a_refusal_takes_none() -> None:
    places = Places(threads=4)
    for _ in range(3):
        with ExitStack() as held:
            assert [taken(places, held, task_count=2) for _ in range(2)] == [True, False]
            assert taken(places, held, task_count=1)


def test_people_may_take_all_places() -> None:
    places = Places(threads=5)
    with ExitStack() as held:
        assert [taken(places, held, task_count=1) for _ in range(4)] == [True, True, True, False]
        assert not taken(places, held, task_count=2)
