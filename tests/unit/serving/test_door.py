"""An import or answers of several tasks go into a project at a time, never both."""

from __future__ import annotations

import threading
import time

import pytest

from tests.fakes.clock import Clock
from yolo_backend.serving import door as door_module
from yolo_backend.serving.door import Door

WAIT_S = 10


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(door_module, "time", clock)
    return clock


def test_no_import_begins_while_an_answer_is_being_stored() -> None:
    door = Door()
    assert door.enter_to_answer(0.0)
    assert door.enter_to_answer(0.0)  # two answers don't hinder each other
    assert not door.enter_to_import(at_once=True)
    door.answer_over()
    assert not door.enter_to_import(at_once=True)
    door.answer_over()
    assert door.enter_to_import()
    assert not door.enter_to_import(at_once=True)  # of another version of the project


def test_an_answer_waits_for_the_import_under_way_as_long_as_it_may() -> None:
    door = Door()
    assert door.enter_to_import()
    began = time.monotonic()
    assert not door.enter_to_answer(began + 0.05)
    assert time.monotonic() - began < 1
    threading.Timer(0.05, door.import_over).start()
    assert door.enter_to_answer(float("inf"))
    assert not door.enter_to_import(at_once=True)


def test_label_studio_has_as_much_time_without_imports_as_with(clock: Clock) -> None:
    door = Door()
    assert door.enter_to_import()
    door.import_over()
    door.rest(7.0)
    clock.now_s += 6.9
    assert not door.enter_to_import()
    assert door.enter_to_import(at_once=True)  # the last of a click
    door.import_over()
    clock.now_s += 0.2
    assert door.enter_to_import()


@pytest.mark.parametrize(
    ("took_s", "count", "is_faster"),
    [(0.0, 20, True), (0.0, 21, False), (5.0, 50, True), (5.0, 51, False), (100.0, 400, True), (100.0, 401, False)],
)
def test_few_are_answered_where_an_import_takes_long(clock: Clock, took_s: float, count: int, is_faster: bool) -> None:
    door = Door()
    door.rest(took_s)
    assert door.is_answer_faster(count) is is_faster


def test_an_answer_that_waits_goes_before_the_next_import() -> None:
    door = Door()
    assert door.enter_to_import()
    entered: list[bool] = []
    waiting = threading.Thread(target=lambda: entered.append(door.enter_to_answer(float("inf"))))
    waiting.start()
    while not door._waiting:
        time.sleep(0.001)
    door.import_over()
    assert not door.enter_to_import(at_once=True)
    waiting.join(WAIT_S)
    assert entered == [True]


def test_who_has_gone_waits_for_no_import() -> None:
    door = Door()
    assert door.enter_to_import()
    began = time.monotonic()
    assert not door.enter_to_answer(float("inf"), lambda: time.monotonic() > began + 0.2)
    assert time.monotonic() - began < 5
    door.import_over()
    assert not door.enter_to_answer(float("inf"), lambda: True)
    assert door.enter_to_import()
