"""Bulk and lone requests over one predictor: by the deadline, in order, and each result delivered once."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import REGISTRY

from tests.fakes.clock import Clock, RealClock
from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.importing_label_studio import TOKEN, LabelStudio
from tests.fakes.weights import FakeShelf, fake_catalog
from tests.harness.http_server import Answer, StartServer, reply
from tests.harness.pictures import encode
from yolo_backend.detection.detector import BULK, PERSON, AbandonedError
from yolo_backend.detection.trained import trained_name
from yolo_backend.failures import Failure
from yolo_backend.images.line import Line
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.protocol import Prediction, Task, project_key
from yolo_backend.serving import delivery as delivery_module
from yolo_backend.serving import door as door_module
from yolo_backend.serving import jobs as jobs_module
from yolo_backend.serving import request as prediction_module
from yolo_backend.serving import tickets as tickets_module
from yolo_backend.serving.request import Predictor, default_predictor
from yolo_backend.serving.task import TaskPredictor
from yolo_backend.settings import Settings, SettingsError, load_settings

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="car"/></RectangleLabels></View>"""
PHOTO = "data:image/png;base64," + base64.b64encode(encode(np.ones((4, 4, 3), np.uint8))).decode()
PROJECT = "7.1700000000"
WAIT_S = 10
pytestmark = pytest.mark.usefixtures("clean_environment")


def task(task_id: Any, image: Any = PHOTO) -> Task:
    return {"id": task_id, "data": {"image": image}}


def tasks(*task_ids: int) -> list[Task]:
    return [task(task_id) for task_id in task_ids]


def load(name: str) -> FakeEngine:
    engine = FakeEngine(info_of(name))
    engine.gate.set()
    return engine


class Gate:
    """A `finish` that lets some tasks wait until it is opened."""

    def __init__(self, *waiting: int) -> None:
        self.waiting = waiting
        self.opened = threading.Event()
        self.met = threading.Event()
        self.finished: Counter[int] = Counter()

    def __call__(self, task: Task, prediction: Prediction) -> Prediction:
        self.finished[task["id"]] += 1
        if task["id"] in self.waiting:
            self.met.set()
            assert self.opened.wait(WAIT_S)
        return prediction


class House:
    """A predictor with a fast engine, and the Label Studio that it delivers to."""

    def __init__(self, serve: StartServer, token: str | None = TOKEN, **more: Any) -> None:
        self.label_studio = LabelStudio(cast(Clock, RealClock()), set(range(1, 10)), label_config=CONFIG)
        self.server = self.label_studio.server = serve(self.label_studio)
        settings = load_settings(
            label_studio_url=self.server.url,
            label_studio_api_key=token,
            model_name="fake.pt",
            **{"image_timeout_s": 2} | more,
        )
        self.shelf = FakeShelf()
        catalog = fake_catalog(load, self.shelf, max_models=2, detect_timeout_s=WAIT_S)
        catalog.wait_for_info("fake.pt", WAIT_S)
        self.predictor = Predictor(settings, catalog)
        self.version = self.predictor.plan(CONFIG).model_version

    def predict(self, asked: list[Task], **more: Any) -> list[Any]:
        settings: dict[str, Any] = {"project": PROJECT, "deadline_s": WAIT_S} | more
        return self.predictor.predict(asked, CONFIG, **settings)

    def click(self, *task_ids: int, **more: Any) -> list[Any]:
        """The answer, which Label Studio stores."""
        answer = self.predict(tasks(*task_ids), **more)
        self.label_studio.store([each for each, given in zip(task_ids, answer, strict=True) if given])
        return answer

    def wait_until_idle(self) -> None:
        wait_for(lambda: all(work.finished_at for work in self.predictor.progress()))


def wait_for(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


@pytest.fixture
def house(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(delivery_module, "_PAUSE_S", 0.02)
    monkeypatch.setattr(jobs_module, "_LOOK_FOR_CLIENT_S", 0.02)
    made = House(serve)
    yield made
    made.predictor.drain(WAIT_S)  # else its last lines come in the next test
    made.predictor.close()


def number(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# Bulk


def test_one_entry_for_each_task_in_order(house: House) -> None:
    asked = [task(3), task(1, "data:,broken"), task(None), task(2)]
    answer = house.predict(asked)
    assert [bool(entry) for entry in answer] == [True, False, True, True]
    assert answer[1] == []
    assert {entry["model_version"] for entry in answer if entry} == {house.version}


def test_what_is_not_ready_by_the_deadline_is_pushed(house: House, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(3, 4)
    before = number("yolo_tasks_total", outcome="not ready")
    answer = house.click(1, 2, 3, 4, deadline_s=0.5, finish=gate)
    assert [bool(entry) for entry in answer] == [True, True, False, False]
    (line,) = messages(caplog)
    assert "2 of 4 tasks" in line
    assert line.endswith("pushed to Label Studio")
    assert number("yolo_tasks_total", outcome="not ready") == before + 2
    gate.opened.set()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2, 3, 4])
    assert gate.finished == Counter([1, 2, 3, 4])
    (pushed,) = [json.loads(request.body) for request in house.server.requests if request.method == "POST"]
    assert sorted((each["task"], each["model_version"]) for each in pushed) == [(3, house.version), (4, house.version)]
    wait_for(lambda: not any(thread.name.startswith("deliver") for thread in threading.enumerate()))


def test_what_is_remembered_does_not_wait_for_work_under_way(house: House) -> None:
    assert all(house.click(1, 2))
    gate = Gate(*range(100, 120))  # so few that they are answered
    with ThreadPoolExecutor(1) as client:
        busy = client.submit(house.predict, tasks(*gate.waiting), project="8.1", finish=gate)
        workers = house.predictor._parallel_tasks(house.predictor.plan(CONFIG))
        wait_for(lambda: len(gate.finished) == workers)  # nobody is free
        answer = house.predict(tasks(3, 4), project="9.1", deadline_s=2)
        assert [entry["score"] for entry in answer] == [1.0, 1.0]
        assert not busy.done()
        gate.opened.set()
        assert all(busy.result())


def test_a_finish_is_asked_for_what_is_remembered_too(house: House) -> None:
    assert all(house.predict(tasks(1, 2)))
    gate = Gate()
    assert all(house.predict(tasks(3, 4), finish=gate, project="8.1"))
    assert gate.finished == Counter([3, 4])


def test_a_second_click_joins_the_first(house: House) -> None:
    gate = Gate(1, 2)
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(house.predict, tasks(1, 2, 3), finish=gate)
        assert gate.met.wait(WAIT_S)
        second = clients.submit(house.predict, tasks(3, 2, 1), finish=gate)
        wait_for(lambda: any(len(job.ledger._asks) == 2 for job in house.predictor._jobs.all()))
        gate.opened.set()
        answers = first.result(), list(reversed(second.result()))
    assert [sum(map(bool, entries)) for entries in zip(*answers, strict=True)] == [1, 1, 1]
    assert gate.finished == Counter([1, 2, 3])


def test_a_client_that_hangs_up_loses_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(1, 2)
    answer = house.predict(tasks(1, 2, 3), finish=gate, is_abandoned=gate.met.is_set)
    assert answer == [[], [], []]
    assert len(messages(caplog)) == 1
    gate.opened.set()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2, 3])
    assert gate.finished == Counter([1, 2, 3])


def test_a_label_studio_that_is_away_is_told_from_a_deadline_that_passed(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_AWAY_PATIENCE_S", 0.05)
    house.server.answer = reply(b"", 503)
    assert house.predict([task(each, f"/data/upload/1/0123abcd-{each}.png") for each in (1, 2)]) == [[], []]
    assert "2 of 2 tasks are not ready, because Label Studio is away: the work goes on" in messages(caplog)[-1]


@pytest.mark.long
def test_without_a_token_the_next_click_gets_it(
    serve: StartServer, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    anonymous = House(serve, token=None)
    gate = Gate(3)
    anonymous.click(1, 2, 3, deadline_s=0.5, finish=gate)
    assert messages(caplog)[-1].endswith("kept for the next click")
    gate.opened.set()
    wait_for(lambda: anonymous.predictor.progress()[0].kept == 1)
    anonymous.click(3)
    assert anonymous.label_studio.stored == Counter([1, 2, 3])
    assert gate.finished == Counter([1, 2, 3])
    assert anonymous.server.requests == []
    anonymous.predictor.drain(WAIT_S)
    anonymous.predictor.close()


def test_a_cause_that_all_tasks_share_is_told_first(house: House, caplog: pytest.LogCaptureFixture) -> None:
    before = number("yolo_tasks_total", outcome="failed")
    house.server.answer = reply(b"", 404)
    asked = [task(each, f"/data/upload/{each}.jpg?token=secret") for each in (1, 2, 3)]
    assert house.predict(asked) == [[], [], []]
    first, *lines = messages(caplog)
    assert first.startswith("Project 7: none of 3 tasks is predicted, for one cause: ")
    assert sorted(line.split(" is")[0] for line in lines) == ["Task 1", "Task 2", "Task 3"]
    assert "secret" not in caplog.text
    assert number("yolo_tasks_total", outcome="failed") == before + 3


@pytest.mark.parametrize(
    "address",
    [
        "http://user:secret@127.0.0.1:9/a.jpg",
        "http://127.0.0.1:9/a.jpg?X-Amz-Signature=secret",
        "http://nowhere.invalid/a.jpg?token=secret#secret",
        "s3://bucket/a.jpg?secret",
        "ftp://host/a.jpg?secret",
        "/data/local-files/?d=a.jpg&token=secret",
        "data:image/png;base64,secret",
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_no_line_tells_a_secret(house: House, caplog: pytest.LogCaptureFixture, address: str, count: int) -> None:
    house.server.answer = reply(b"", 404)
    assert house.predict([task(each, address) for each in range(count)]) == [[]] * count
    for each in range(count):
        assert sum(f"Task {each} is not predicted" in message for message in messages(caplog)) == 1
    assert "secret" not in caplog.text
    assert TOKEN not in caplog.text
    assert "secret" not in repr(house.predictor.failures.last())


@pytest.mark.long
@pytest.mark.parametrize("task_ids", [[1], [1, 2]])
@pytest.mark.parametrize(
    "wrong",
    [RuntimeError("no"), object(), {"result": {1}}, None, [], "text"],
    ids=["raises", "an object", "not JSON", "None", "a list", "text"],
)
def test_a_finish_that_goes_wrong_costs_its_task_only(
    house: House, caplog: pytest.LogCaptureFixture, task_ids: list[int], wrong: Any
) -> None:
    def finish(task: Task, prediction: Prediction) -> Any:
        if task["id"] != 1:
            return prediction
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    before = number("yolo_tasks_total", outcome="failed")
    answer = house.predict(tasks(*task_ids), finish=finish)
    assert [bool(entry) for entry in json.loads(json.dumps(answer))] == [each != 1 for each in task_ids]
    assert "Task 1" in caplog.text
    assert number("yolo_tasks_total", outcome="failed") == before + 1
    house.label_studio.store(task_ids[1:])
    house.wait_until_idle()


def test_a_finish_that_leaves_the_version_out_is_still_stored_once(house: House) -> None:
    """By its version alone Label Studio can tell what it holds."""

    def finish(task: Task, prediction: Prediction) -> Prediction:
        return {"result": prediction["result"], "score": prediction["score"]}

    answer = house.predict(tasks(1, 2), finish=finish)
    assert [entry["model_version"] for entry in answer] == [house.version] * 2


def test_no_tasks_are_no_job(house: House) -> None:
    assert house.predict([]) == []
    assert house.predictor.progress() == []


def test_each_empty_entry_has_its_line(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_MAX_TASKS", 2)
    before = number("yolo_tasks_total", outcome="not ready")
    answer = house.click(1, 2, 3, 4, 5)
    assert [bool(entry) for entry in answer] == [True, True, False, False, False]
    assert len(messages(caplog)) == 1
    assert number("yolo_tasks_total", outcome="not ready") == before + 3


# Changed labels


def test_labels_of_other_weights_void_results_quietly(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """The other weights aren't read yet when the push asks."""
    house.label_studio.label_config = CONFIG.replace('toName="image"', 'toName="image" model_path="other.pt"')
    gate = Gate(1)
    house.click(1, 2, deadline_s=0.3, finish=gate)
    gate.opened.set()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([2])
    assert "Traceback" not in caplog.text
    assert "delivering failed" not in caplog.text


# A lone request


def test_a_lone_task(house: House, caplog: pytest.LogCaptureFixture) -> None:
    assert house.predict(tasks(1))[0]["model_version"] == house.version
    before = number("yolo_tasks_total", outcome="failed")
    assert house.predict([task(1, "data:,broken")]) == [[]]
    assert len(messages(caplog)) == 1
    assert number("yolo_tasks_total", outcome="failed") == before + 1
    assert [failure.task_id for failure in house.predictor.failures.last()] == [1]
    assert house.predictor.progress() == []


def test_a_lone_task_that_is_not_ready(house: House, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(1)
    assert house.predict(tasks(1), finish=gate, deadline_s=0.3) == [[]]
    assert len(messages(caplog)) == 1
    gate.opened.set()


DRAWN = {
    "id": "drawn",
    "from_name": "label",
    "to_name": "image",
    "type": "rectanglelabels",
    "value": {"x": 0, "y": 0, "width": 25, "height": 25, "rectanglelabels": ["car"]},
}


def test_a_smart_tool_has_no_part_in_the_work_under_way(house: House) -> None:
    gate = Gate(2)
    context = {"result": [DRAWN]}
    with ThreadPoolExecutor(1) as clients:
        bulk = clients.submit(house.predict, tasks(1, 2), finish=gate)
        assert gate.met.wait(WAIT_S)
        for _ in range(2):
            assert len(house.predict(tasks(1), context=context)[0]["result"]) == 1
        assert house.predict([task(1, "data:,broken")], context=context) == [{"result": []}]
        assert house.predict(tasks(1), context={"result": []}) == [{"result": []}]
        gate.opened.set()
        assert all(bulk.result())


def test_a_smart_tool_that_asks_for_several_tasks_gets_each_and_nothing_is_delivered(house: House) -> None:
    answer = house.predict(tasks(1, 2, 3), context={"result": [DRAWN]})
    assert [len(each["result"]) for each in answer] == [1, 1, 1]
    assert house.predictor.progress() == []


def test_what_brings_nothing_is_said_in_a_line(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="yolo_backend.serving.request"):
        there = {"id": 1, "result": [DRAWN | {"id": "there"}]}
        assert house.predict([{**task(1), "drafts": [there]}], context={"result": [DRAWN]}) == [{"result": []}]
    assert messages(caplog, logging.INFO) == [
        "Task 1: the smart tool's rectangle brings nothing: no box of its label overlaps it by half, or it is there "
        "already"
    ]


def test_a_lone_request_takes_a_task_over(house: House) -> None:
    gate = Gate(1, 2)
    with ThreadPoolExecutor(1) as clients:
        bulk = clients.submit(house.predict, tasks(1, 2), finish=gate)
        wait_for(lambda: gate.finished.total() == 2)
        assert house.click(1)[0]
        gate.opened.set()
        assert [bool(entry) for entry in bulk.result()] == [False, True]


def test_a_lone_request_of_what_is_ready_costs_no_work(house: House) -> None:
    gate = Gate(2)
    with ThreadPoolExecutor(1) as clients:
        bulk = clients.submit(house.predict, tasks(1, 2), finish=gate)
        wait_for(lambda: gate.met.is_set() and any(work.kept == 1 for work in house.predictor.progress()))
        assert house.predict(tasks(1), finish=gate)[0]
        assert gate.finished[1] == 1
        gate.opened.set()
        assert [bool(entry) for entry in bulk.result()] == [False, True]


def test_a_lone_request_of_what_is_pushed_meanwhile_is_not_stored_twice(house: House) -> None:
    is_importing, may_import = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            is_importing.set()
            assert may_import.wait(WAIT_S)
        house.label_studio(handler)

    house.server.answer = answer
    house.predict(tasks(1, 2), is_abandoned=lambda: True)
    assert is_importing.wait(WAIT_S)
    with ThreadPoolExecutor(1) as clients:
        lone = clients.submit(house.click, 1)
        time.sleep(0.3)
        assert not lone.done()  # it waits, so that its page sees what Label Studio holds then
        may_import.set()
        assert lone.result() == [[]]
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2])


def test_two_people_who_open_one_task_at_once_get_one_prediction(house: House) -> None:
    both = threading.Barrier(2)

    def open_it(_: int) -> tuple[list[Any], float]:
        both.wait(WAIT_S)
        began = time.monotonic()
        return house.click(1), time.monotonic() - began

    with ThreadPoolExecutor(2) as people:
        answers = list(people.map(open_it, range(2)))
    assert sorted(bool(answer[0]) for answer, _ in answers) == [False, True]
    assert max(took_s for _, took_s in answers) < 2
    assert house.label_studio.stored == Counter([1])


@pytest.mark.long
def test_who_opens_a_task_whose_answer_was_lost_gets_nothing_for_a_while_only(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets_module, "_LOST_AFTER_S", 1.0)
    assert all(house.predict(tasks(1)))  # and Label Studio never got it
    began = time.monotonic()
    answer = house.click(1)
    assert answer != [[]]
    assert 0.5 < time.monotonic() - began < 2.5
    assert house.label_studio.stored == Counter([1])


def test_who_opens_it_waits_no_longer_than_until_their_deadline(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_module, "_SECOND_WAITS_S", 3.0 * WAIT_S)
    assert all(house.predict(tasks(1)))  # and Label Studio never got it, which is known some seconds later
    assert house.click(1, deadline_s=0.5) == [[]]


def test_a_task_that_was_picked_before_a_push_is_not_answered_after_it(house: House) -> None:
    """Label Studio picks the tasks of a click first, and sends them when another's may have been stored."""
    house.predict(tasks(1, 2), is_abandoned=lambda: True)
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2])
    assert [bool(entry) for entry in house.click(1, 2, 3)] == [False, False, True]
    assert house.click(2) == [[]]
    assert house.label_studio.stored == Counter([1, 2, 3])


def test_predictions_that_somebody_deleted_come_again(house: House) -> None:
    house.predict(tasks(1, 2), is_abandoned=lambda: True)
    house.wait_until_idle()
    house.label_studio.stored.clear()
    assert all(house.click(1))
    assert all(house.click(2, 3))


@pytest.mark.long
def test_a_second_click_waits_for_what_label_studio_is_storing(house: House) -> None:
    answer = house.predict(tasks(1, 2, 3))  # which Label Studio stores one by one
    assert all(answer)
    threading.Timer(0.5, house.label_studio.store, [[1, 2, 3]]).start()
    began = time.monotonic()
    assert house.click(1, 2, 3) == [[]] * 3
    assert 0.4 < time.monotonic() - began < 5
    assert house.label_studio.stored == Counter([1, 2, 3])


def test_a_click_on_many_is_stored_by_import_while_it_waits(house: House) -> None:
    house.label_studio.tasks.update(range(1, 101))
    answer = house.click(*range(1, 101))
    assert answer == [[]] * 100
    assert house.label_studio.stored == Counter(range(1, 101))


@pytest.mark.long
def test_where_label_studio_cannot_answer_meanwhile_the_answer_brings_them(house: House) -> None:
    house.label_studio.tasks.update(range(1, 101))
    is_waiting = threading.Lock()  # it has one thread

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with is_waiting:
            house.label_studio(handler)

    house.server.answer = answer
    with is_waiting:
        began = time.monotonic()
        answers = house.predict(tasks(*range(1, 101)))
        took_s = time.monotonic() - began
    assert all(answers)
    assert took_s < 4
    assert house.label_studio.calls.count("import") == 0
    house.label_studio.store(range(1, 101))
    house.wait_until_idle()
    assert house.label_studio.stored == Counter(range(1, 101))


def test_where_the_token_may_not_import_the_answer_brings_them(house: House) -> None:
    house.label_studio.tasks.update(range(1, 101))
    refused = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            refused.set()
            reply(b"{}", 403)(handler)
        else:
            house.label_studio(handler)

    house.server.answer = answer
    assert all(house.click(*range(1, 101)))
    assert refused.is_set()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter(range(1, 101))


def test_an_answer_holds_no_more_than_label_studio_stores_in_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "_STORED_WITHIN_S", 2.5)
    house.label_studio.tasks.update(range(1, 101))
    monkeypatch.setattr(prediction_module, "_QUESTION_TIMEOUT_S", 0.2)
    is_there = threading.Event()
    ask = house.label_studio.get_tasks

    def ask_late(task_ids: Sequence[int]) -> tuple[int, Any]:
        is_there.wait(0.5)
        return ask(task_ids)

    monkeypatch.setattr(house.label_studio, "get_tasks", ask_late)
    answer = house.click(*range(1, 101))
    is_there.set()
    assert sum(map(bool, answer)) == 25
    house.wait_until_idle()
    assert house.label_studio.stored == Counter(range(1, 101))


def test_label_studio_is_asked_no_more_questions_when_the_time_for_them_is_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a click on thousands each question may be answered in time, and all of them not."""
    house.click(1, 2, 3, 4)
    house.wait_until_idle()
    monkeypatch.setattr(prediction_module, "_IDS_PER_QUESTION", 2)
    asked: list[Sequence[int]] = []
    ask = house.label_studio.get_tasks

    def get_tasks(task_ids: Sequence[int]) -> tuple[int, Any]:
        asked.append(task_ids)
        return ask(task_ids)

    monkeypatch.setattr(house.label_studio, "get_tasks", get_tasks)
    assert house.click(1, 2, 3, 4) == [[]] * 4
    assert asked == [[1, 2], [3, 4]]
    asked.clear()
    monkeypatch.setattr(prediction_module, "_QUESTION_TIMEOUT_S", 1e-6)
    house.predict(tasks(1, 2, 3, 4))
    wait_for(lambda: bool(asked))  # it may be answered too late, but it is asked
    assert asked == [[1, 2]]


@pytest.mark.alone  # on a busy machine the job may have ended before the lone request, which then knows nothing of it
def test_a_lone_request_that_was_there_before_the_bulk_is_not_stored_twice(house: House) -> None:
    gate = Gate(1)
    with ThreadPoolExecutor(1) as clients:
        lone = clients.submit(house.click, 1, finish=gate)
        assert gate.met.wait(WAIT_S)
        house.click(1, 2)
        gate.opened.set()
        lone.result()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2])


def test_a_lone_request_that_takes_long_is_not_stored_twice(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its project's job is forgotten meanwhile, for nothing was done there, and another person opens the task."""
    monkeypatch.setattr(jobs_module, "_UNUSED_S", 0.0)
    gate = Gate(1)
    with ThreadPoolExecutor(1) as clients:
        slow = clients.submit(house.click, 1, finish=gate)
        assert gate.met.wait(WAIT_S)
        house.predict(tasks(1), project="8.1700000000")  # a new project is when the unused are forgotten
        assert [bool(each) for each in house.click(1)] == [True]
        gate.opened.set()
        assert slow.result() == [[]]
    assert house.label_studio.stored == Counter([1])


@pytest.mark.parametrize("priority", [PERSON, BULK])
@pytest.mark.parametrize("image", [PHOTO, "nonsense"])
def test_what_nobody_wants_any_more_is_no_failure(house: House, priority: int, image: str) -> None:
    before = number("yolo_tasks_total", outcome="failed")
    predictor = TaskPredictor(house.predictor.settings, house.predictor.catalog.pool, 1)
    plan = house.predictor.plan(CONFIG)
    line = Line()
    line.hang_up()
    with pytest.raises(AbandonedError):
        predictor.predict_task(task(1, image), plan, None, priority, project="7", line=line)
    assert number("yolo_tasks_total", outcome="failed") == before
    outcome = predictor.predict_task(task(1, "nonsense"), plan, None, BULK, project="7")
    assert isinstance(outcome, Failure)
    assert (outcome.project, outcome.task_id) == ("7", 1)


# The end


@pytest.mark.long
def test_draining_finishes_and_delivers_what_runs(house: House) -> None:
    gate = Gate(1, 2)
    house.predict(tasks(1, 2, 3), deadline_s=0.3, finish=gate)
    house.label_studio.store([3])
    threading.Timer(0.2, gate.opened.set).start()
    house.predictor.drain(WAIT_S)
    assert house.label_studio.stored == Counter([1, 2, 3])
    assert house.predictor._jobs.all() == []


@pytest.mark.long
def test_closing_leaves_no_job_behind(house: House) -> None:
    gate = Gate(*range(1, 10))
    many = [task(each, PHOTO) for each in range(1, 100)]
    for project in ("7.1", "8.1", "9.1"):
        house.predict(many, deadline_s=0.1, finish=gate, project=project)
    threading.Timer(0.2, gate.opened.set).start()
    house.predictor.close()
    wait_for(lambda: house.predictor._jobs.all() == [])


def test_tasks_that_a_stop_leaves_out_are_told(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.predictor.drain(WAIT_S)
    assert house.predict(tasks(1, 2)) == [[], []]
    assert len(messages(caplog)) == 1


def test_a_stream_gives_each_task_with_its_prediction_or_failure(house: House) -> None:
    asked = [task(1), task(2, "nothing"), task(3), task(4, None)]
    outcomes = {one["id"]: outcome for one, outcome in house.predictor.stream(asked, house.predictor.plan(CONFIG), "7")}
    assert sorted(outcomes) == [1, 2, 3, 4]
    (alone,) = house.predict([task(1)], project="8.1700000000")
    for outcome in (outcomes[1], outcomes[3]):
        assert isinstance(outcome, dict)
        assert (outcome["score"], outcome["model_version"]) == (alone["score"], house.version)
        assert [region["value"] for region in outcome["result"]] == [region["value"] for region in alone["result"]]
    failures = [outcome for outcome in (outcomes[2], outcomes[4]) if isinstance(outcome, Failure)]
    assert [(one.project, one.task_id, one.kind) for one in failures] == [
        ("7", 2, "unsupported"),
        ("7", 4, "wrong_type"),
    ]
    assert house.label_studio.calls == []
    assert house.predictor.progress() == []


def test_a_stream_takes_no_more_tasks_than_are_under_way(house: House) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Task]:
        for number in itertools.count():
            taken.append(number)
            yield task(number)

    stream = house.predictor.stream(endless(), house.predictor.plan(CONFIG), PROJECT)
    seen = list(itertools.islice(stream, 100))
    assert len({one["id"] for one, _ in seen}) == 100
    assert len(taken) <= 100 + prediction_module._MAX_PARALLEL_TASKS
    stream.close()  # type: ignore[attr-defined]  # a generator
    count = len(taken)
    time.sleep(0.1)
    assert len(taken) == count


def test_the_images_of_a_task_are_those_that_the_page_shows(house: House) -> None:
    (image,) = house.predictor.images(task(1), house.predictor.plan(CONFIG), PROJECT)
    np.testing.assert_array_equal(image.pixels, np.ones((4, 4, 3)))
    assert image.address == PHOTO
    assert image.shows({"to_name": "image"})
    assert not image.shows({"to_name": "image", "item_index": 0})
    assert not image.shows({"to_name": "other"})


def write_uploads(media_root: Path, count: int) -> list[str]:
    """So many uploads of project 7; their addresses."""
    (media_root / "upload" / "7").mkdir(parents=True)
    uploads = [f"/data/upload/7/{number:08x}-a.png" for number in range(count)]
    for number, upload in enumerate(uploads):
        (media_root / upload.removeprefix("/data/")).write_bytes(encode(np.full((4, 4, 3), number + 1, np.uint8)))
    return uploads


def with_images(house: House, images: Answer) -> Answer:
    """The house's Label Studio, which is well, and answers so where it is asked for an image."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        known = {"data": images, "health": reply(b"{}")}
        known.get(request.path.split("/")[1], house.label_studio)(request)

    return answer


def test_uploads_of_the_asking_project_come_from_the_disk_whichever_way_it_asks(
    serve: StartServer, tmp_path: Path
) -> None:
    house = House(serve, label_studio_media_root=tmp_path)
    uploads = write_uploads(tmp_path, 5)
    house.server.answer = with_images(house, reply(b"", 404))
    plan = house.predictor.plan(CONFIG)
    try:
        for first_id in (1, 3):  # the second time from memory
            assert all(house.predict([task(first_id, uploads[0]), task(first_id + 1, uploads[1])]))
        assert all(house.predict([task(5, uploads[2])]))
        ((_, outcome),) = house.predictor.stream([task(6, uploads[3])], plan, "7")
        assert not isinstance(outcome, Failure)
        assert len(house.predictor.images(task(7, uploads[4]), plan, PROJECT)) == 1
        assert [one.path for one in house.server.requests if "upload" in one.path] == []

        # In another project's name, or in none, Label Studio is asked: this one has no such files.
        for number, project in enumerate(("8.1700000000", None)):
            house.predict([task(number, uploads[number])], project=project)
        assert [one.path for one in house.server.requests if "upload" in one.path] == uploads[:2]
    finally:
        house.predictor.drain(WAIT_S)
        house.predictor.close()


@pytest.mark.long
@pytest.mark.parametrize("slow_address", ["/data/local-files/?d={}.png", "{}/data/upload/7/{}.png"])
def test_uploads_on_the_disk_do_not_wait_for_images_that_a_server_does_not_send(
    serve: StartServer, tmp_path: Path, slow_address: str
) -> None:
    sends = threading.Event()

    def late(request: BaseHTTPRequestHandler) -> None:
        if "gone" not in request.path:
            sends.wait(WAIT_S)
        reply(b"", 404)(request)

    house = House(serve, label_studio_media_root=tmp_path, image_timeout_s=WAIT_S, allowed_image_hosts="127.0.0.1")
    uploads = write_uploads(tmp_path, 40)
    house.server.answer = with_images(house, late)
    elsewhere = [serve(late).url] if slow_address.startswith("{}/") else []
    slow = [task(number, slow_address.format(*elsewhere, number)) for number in range(100, 150)]
    finished = Gate()
    try:
        # Label Studio was asked for uploads whose files were gone, of another project's and of this one's.
        for project in ("8", "7"):
            gone = [task(number, f"/data/upload/{project}/{number:08x}-gone.png") for number in (91, 92)]
            assert house.predict(gone, project=f"{project}.1700000000", finish=finished) == [[], []]
        with ThreadPoolExecutor(1) as person:
            asked = [*slow, *(task(number, upload) for number, upload in enumerate(uploads, 1))]
            click = person.submit(house.predict, asked, finish=finished)
            wait_for(lambda: finished.finished == dict.fromkeys(range(1, 41), 1))
            sends.set()
            click.result()
    finally:
        sends.set()
        house.predictor.drain(WAIT_S)
        house.predictor.close()


# A project's own weights


def promote(house: House, project: str = PROJECT, content: str = "trained") -> None:
    """Trained weights begin to serve a project, in the eyes of a server that runs."""
    key = project_key(house.server.url, project)
    assert key
    house.shelf.put(trained_name(key), content)
    house.predictor.catalog.look()
    house.predictor.catalog.look()


def test_a_project_s_own_weights_serve_it_alone(house: House) -> None:
    another_time, another_id = "7.1700000001", "8.1700000000"
    for project in (PROJECT, another_time, another_id, None):
        assert house.predictor.plan(CONFIG, WAIT_S, project=project).model_version == house.version
    promote(house)
    version = house.predictor.plan(CONFIG, WAIT_S, project=PROJECT).model_version
    assert version.startswith("project-7-")
    for project in (another_time, another_id, None, "nonsense"):
        assert house.predictor.plan(CONFIG, WAIT_S, project=project).model_version == house.version
        assert {entry["model_version"] for entry in house.predict(tasks(1, 2), project=project)} == {house.version}
    assert [entry["model_version"] for entry in house.predict(tasks(1))] == [version]
    assert {entry["model_version"] for entry in house.predict(tasks(2, 3))} == {version}


def test_what_a_project_s_own_weights_found_late_is_pushed(house: House) -> None:
    promote(house)
    gate = Gate(3, 4)
    house.click(1, 2, 3, 4, deadline_s=0.5, finish=gate)
    gate.opened.set()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2, 3, 4])


def test_what_was_under_way_when_they_came_is_not_pushed_any_more(house: House) -> None:
    gate = Gate(3, 4)
    house.click(1, 2, 3, 4, deadline_s=0.5, finish=gate)
    promote(house)
    gate.opened.set()
    house.wait_until_idle()
    assert house.label_studio.stored == Counter([1, 2])
    answer = house.click(1, 2, 3, 4)
    assert all(entry["model_version"].startswith("project-7-") for entry in answer)


def test_a_project_that_nothing_was_trained_for_yet_gets_nothing(
    serve: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(serve, training="on")
    config = CONFIG.replace('"car"', '"newt"')
    image = f"{house.server.url}/data/upload/7/a.png"
    try:
        with caplog.at_level(logging.INFO):
            for asked in ([task(1, image)], [task(1, image), task(2, image)]):
                assert house.predictor.predict(asked, config, project=PROJECT) == [[] for _ in asked]
                context = {"result": [{"type": "rectanglelabels"}]}
                meant = house.predictor.predict(asked, config, project=PROJECT, context=context)
                assert meant == [{"result": []} for _ in asked]
        assert "Project 7: 2 tasks get nothing, because nothing is trained yet" in messages(caplog, logging.INFO)
        assert (house.predictor.progress(), house.predictor.failures.last(), house.server.requests) == ([], [], [])
    finally:
        house.predictor.close()


def test_without_training_a_project_without_a_class_is_refused(house: House) -> None:
    with pytest.raises(LabelingConfigError, match="None of the labels newt"):
        house.predictor.predict(tasks(1), CONFIG.replace('"car"', '"newt"'), project=PROJECT)


# The process's own


@pytest.fixture
def no_default_predictor() -> Iterator[None]:
    default_predictor.cache_clear()
    yield
    default_predictor.cache_clear()


@pytest.mark.usefixtures("no_default_predictor")
def test_however_many_threads_come_first_there_is_one_predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    first = threading.Barrier(20)

    def slow() -> Settings:
        time.sleep(0.1)
        return load_settings()

    def ask() -> Predictor:
        first.wait(WAIT_S)
        return default_predictor()

    monkeypatch.setattr(prediction_module, "load_settings", slow)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(ask) for _ in range(20)]
        made = [each.result(WAIT_S) for each in asked]
    assert len({id(each) for each in made}) == 1
    assert default_predictor() is made[0]


@pytest.mark.usefixtures("no_default_predictor")
def test_settings_that_can_not_be_used_are_told_to_each_until_they_can(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("MAX_MODELS", "none")
    for _ in range(2):
        with pytest.raises(SettingsError, match="MAX_MODELS"):
            default_predictor()
    clean_environment.setenv("MAX_MODELS", "2")
    assert default_predictor().settings.max_models == 2
