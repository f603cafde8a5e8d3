"""A project predicted into a small Label Studio of our own, which can break as the real one can't on demand."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.fakes.filtering_label_studio import PROJECT, TOKEN, LabelStudio
from tests.harness.http_server import StartServer
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.label_studio import patience as patience_module
from yolo_backend.label_studio import storing as storing_module
from yolo_backend.label_studio.errors import StudioRefusedError, StudioUnreachedError
from yolo_backend.label_studio.patience import PatientStudio
from yolo_backend.label_studio.projects import open_project
from yolo_backend.label_studio.selection import Selection
from yolo_backend.label_studio.storing import UnknownOutcomeError
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.prelabeling import prelabeling as prelabeling_module
from yolo_backend.prelabeling.prelabeling import Prelabeling
from yolo_backend.protocol import Task
from yolo_backend.serving.project_predictor import OutcomesOf, TaskOutcome

VERSION, OLD, OTHER = "yolo26n-3f9a1c2e", "yolo26n-00000001", "sam-20261122"

WAIT_S = 10


class House:
    """A project of so many tasks, and the work on it; `failures` says which tasks can't be predicted, and why."""

    def __init__(self, serve: StartServer, count: int) -> None:
        self.label_studio = LabelStudio({number: [] for number in range(1, count + 1)})
        self.server = self.label_studio.server = serve(self.label_studio)
        self.stop = threading.Event()
        self.remarks: list[str] = []
        self.on_remark: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self.advanced = 0
        self.failures: dict[int, deque[Failure]] = {}
        self.predicted: list[int] = []
        self.version_of: dict[str, str] = {}
        studio = PatientStudio(self.server.url, TOKEN, self.remarks.append, self.stop)
        self.project = open_project(studio, PROJECT)
        self.work = Prelabeling(
            self.project,
            VERSION,
            self.version_of.__getitem__,  # asked for other labels than those at the start
            stop=self.stop,
            advanced=self.advance,
            remark=self.remark,
        )

    @property
    def report(self) -> Any:
        return self.work.report

    def remark(self, text: str) -> None:
        self.remarks.append(text)
        self.on_remark()

    def methods(self) -> list[str]:
        return [request.method for request in self.server.requests]

    def advance(self) -> None:
        self.advanced += 1

    def predict(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        for task in tasks:
            self.predicted.append(task["id"])
            if failures := self.failures.get(task["id"]):
                yield task, failures.popleft()
            else:
                yield task, {"result": [], "score": 0.9, "model_version": VERSION}

    def run(self, predict: OutcomesOf | None = None, **selection: Any) -> None:
        self.work.run(Selection(**selection), predict or self.predict)

    def fail(self, task_id: int, *, is_passing: bool = False, times: int = 1) -> None:
        failure = Failure(str(PROJECT), task_id, FailureKind.NOT_FOUND, "no such image", is_passing=is_passing)
        self.failures[task_id] = deque([failure] * times)


MakeHouse = Callable[[int], House]


@pytest.fixture
def make(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> MakeHouse:
    monkeypatch.setattr(storing_module, "_SURELY_STORED_S", 0.05)
    monkeypatch.setattr(storing_module, "_SURELY_STORED_EACH_S", 0.0)
    monkeypatch.setattr(storing_module, "_ASK_AFTER_S", (0.01, 0.02))
    monkeypatch.setattr(patience_module, "_ASK_AGAIN_AFTER_S", (0.02, 0.05))
    return lambda count: House(serve, count)


def assert_each_once(house: House, *but: int) -> None:
    held = house.label_studio.held()
    assert held == {task_id: [] if task_id in but else [VERSION] for task_id in held}


@pytest.mark.parametrize(("count", "imports"), [(0, []), (1, [1]), (200, [200]), (501, [200, 200, 101])])
def test_each_task_gets_one_prediction_in_chunks(make: MakeHouse, count: int, imports: list[int]) -> None:
    house = make(count)
    house.run()
    assert_each_once(house)
    assert house.label_studio.imports == imports
    assert (house.report.total, house.report.done, house.report.predicted, house.report.stored) == (count,) * 4
    assert house.advanced == count
    assert house.report.failures == house.remarks == []


def test_what_is_held_is_not_predicted_again(make: MakeHouse) -> None:
    house = make(10)
    for task_id in (1, 2, 3):
        house.label_studio.store(task_id, VERSION)
    house.label_studio.store(4, OTHER)
    house.run(limit=5)
    assert house.predicted == [4, 5, 6, 7, 8]
    assert (house.report.total, house.report.stored, house.report.already) == (5, 5, 3)


def test_a_chunk_waits_for_nobody_for_long(make: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prelabeling_module, "_CHUNK_WAIT_S", 0.1)
    house, is_stored = make(3), threading.Event()
    house.label_studio.before_import = is_stored.set

    def slowly(tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        for number, pair in enumerate(house.predict(tasks)):
            assert number < 2 or is_stored.wait(WAIT_S)
            yield pair

    house.run(slowly)
    assert_each_once(house)
    assert sum(house.label_studio.imports) == 3
    assert len(house.label_studio.imports) > 1


@pytest.mark.parametrize("faults", [["500"], ["stored 500"], ["502", "stored 500", "500"], ["500"] * 4])
def test_an_import_without_an_answer_is_settled_by_asking(make: MakeHouse, faults: list[str]) -> None:
    house = make(250)
    house.label_studio.faults.extend(faults)
    house.run()
    assert_each_once(house)
    assert (house.report.stored, house.report.already) == (250, 0)
    assert all("asked what it has stored" in remark for remark in house.remarks)
    assert len(house.remarks) == len(faults)


def test_what_is_seen_stored_is_waited_for_no_longer(make: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing_module, "_SURELY_STORED_S", 60.0)
    monkeypatch.setattr(storing_module, "_SURELY_STORED_EACH_S", 0.05)
    house = make(200)
    house.label_studio.faults.append("stored 500")
    started_at = time.monotonic()
    house.run()
    assert time.monotonic() - started_at < WAIT_S
    assert_each_once(house)
    assert (house.report.stored, house.report.already) == (200, 0)
    (remark,) = house.remarks
    assert remark.endswith(". Label Studio is asked what it has stored, for 70 s at most")


def test_what_could_not_be_sent_waits_for_label_studio_and_no_longer(
    make: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio ends just before an import, and is back a moment later."""
    monkeypatch.setattr(storing_module, "_SURELY_STORED_S", 60.0)
    house = make(3)
    end_before_an_import(house, monkeypatch, back_after_s=0.3)
    started_at = time.monotonic()
    house.run()
    assert time.monotonic() - started_at < WAIT_S
    assert_each_once(house)
    assert (house.report.stored, house.report.already) == (3, 0)
    away, back = house.remarks
    assert "connection refused" in away
    assert back == "Label Studio answers again: going on"


def test_stopped_before_what_could_not_be_sent_nothing_is_sent(
    make: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(3)
    end_before_an_import(house, monkeypatch, back_after_s=None)
    house.on_end = house.stop.set
    with pytest.raises(StudioUnreachedError, match="connection refused"):
        house.run()
    assert (house.methods().count("POST"), house.report.stored) == (0, 0)


def end_before_an_import(house: House, monkeypatch: pytest.MonkeyPatch, *, back_after_s: float | None) -> None:
    """Have nobody at Label Studio's address after the last question before the first import."""
    studio = house.project.studio
    url, ask, has_ended = studio.url, studio.label_config, threading.Event()

    def ask_and_end(project: int) -> str:
        label_config = ask(project)
        if not has_ended.is_set():
            has_ended.set()
            studio.endpoint.url = "http://127.0.0.1:1"
            house.on_end()
            if back_after_s is not None:
                threading.Timer(back_after_s, setattr, (studio.endpoint, "url", url)).start()
        return label_config

    monkeypatch.setattr(studio, "label_config", ask_and_end)


def test_stopped_after_an_import_without_an_answer_nothing_is_sent_again(
    make: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing_module, "_SURELY_STORED_S", 60.0)
    house = make(3)
    house.label_studio.faults.append("500")  # and Label Studio may be storing it still
    house.on_remark = house.stop.set
    with pytest.raises(UnknownOutcomeError, match="500"):
        house.run()
    assert house.methods().count("POST") == 1
    assert house.report.stored == 0


def test_what_another_client_stores_meanwhile_is_mended(make: MakeHouse) -> None:
    house = make(5)
    house.label_studio.store(2, OTHER)
    house.label_studio.faults.append("twice")
    house.run()
    assert house.label_studio.held() == {1: [VERSION], 2: [OTHER, VERSION], 3: [VERSION], 4: [VERSION], 5: [VERSION]}
    assert {held["id"] for task in house.label_studio.predictions.values() for held in task} == set(range(1, 7))


def test_label_studio_is_waited_for(make: MakeHouse) -> None:
    house = make(3)
    house.label_studio.before_import = lambda: setattr(house.label_studio, "away", 4)
    house.run()
    assert_each_once(house)
    away, back = house.remarks
    assert "answers 502" in away
    assert "10 minutes at most" in away
    assert back == "Label Studio answers again: going on"


def test_what_failed_for_label_studio_was_away_is_tried_again(make: MakeHouse) -> None:
    house = make(4)
    house.fail(2, is_passing=True, times=2)
    house.fail(3)
    house.run()
    assert_each_once(house, 3)
    assert Counter(house.predicted) == {1: 1, 2: 3, 3: 1, 4: 1}
    assert [failure.task_id for failure in house.report.failures] == [3]
    assert (house.report.done, house.advanced, house.report.predicted) == (4, 4, 3)


def test_what_always_fails_so_is_a_failure_in_the_end(make: MakeHouse) -> None:
    house = make(2)
    house.fail(2, is_passing=True, times=100)
    house.run()
    assert [failure.task_id for failure in house.report.failures] == [2]
    assert house.report.stored == 1


def test_a_task_that_was_deleted_meanwhile_spoils_no_other(make: MakeHouse) -> None:
    house = make(9)
    house.label_studio.before_import = lambda: house.label_studio.delete(5)
    house.run()
    assert_each_once(house)
    (failure,) = house.report.failures
    assert (failure.task_id, failure.kind) == (5, "rejected")
    assert (house.report.predicted, house.report.stored) == (9, 8)


def test_other_labels_stop_it(make: MakeHouse) -> None:
    house = make(500)
    house.version_of["<View>other</View>"] = OLD

    def change() -> None:
        if house.label_studio.imports:
            house.label_studio.label_config = "<View>other</View>"

    house.label_studio.before_import = change
    with pytest.raises(LabelingConfigError, match="labels changed meanwhile"):
        house.run()
    assert house.label_studio.imports == [200, 200]
    assert house.report.stored == 400


def test_other_labels_of_the_same_version_do_not(make: MakeHouse) -> None:
    house = make(3)
    house.version_of["<View>more</View>"] = VERSION
    house.label_studio.label_config = "<View>more</View>"
    house.run()
    assert_each_once(house)


def test_a_refused_token_ends_it(make: MakeHouse) -> None:
    house = make(500)
    house.label_studio.faults.extend(["", "401"])
    with pytest.raises(StudioRefusedError, match="refuses the token"):
        house.run()
    assert house.report.stored == 200


def test_stopped_it_stores_what_is_ready(make: MakeHouse) -> None:
    house = make(1000)

    def stopping(tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        for number, pair in enumerate(house.predict(tasks)):
            if number == 230:
                while not house.label_studio.imports:
                    time.sleep(0.01)
                house.stop.set()
            yield pair

    house.run(stopping)
    assert 200 <= house.report.stored <= 400
    assert Counter(len(held) for held in house.label_studio.held().values()) == {
        0: 1000 - house.report.stored,
        1: house.report.stored,
    }


def test_an_error_of_whoever_predicts_comes_out_after_what_is_ready_is_stored(make: MakeHouse) -> None:
    house = make(10)

    def breaking(tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        yield from itertools.islice(house.predict(tasks), 4)
        raise RuntimeError("the cluster is gone")

    with pytest.raises(RuntimeError, match="the cluster is gone"):
        house.run(breaking)
    assert house.report.stored == 4


def test_older_versions_of_this_backend_go(make: MakeHouse) -> None:
    house = make(4)
    for task_id in (1, 2, 3):
        house.label_studio.store(task_id, OLD)
        house.label_studio.store(task_id, OTHER)
    house.fail(3)
    house.work.run(Selection(), house.predict, replaces_older=True)
    assert house.report.deleted == 2
    assert house.label_studio.held() == {1: [OTHER, VERSION], 2: [OTHER, VERSION], 3: [OTHER, OLD], 4: [VERSION]}


def test_older_versions_go_at_once_where_nobody_needs_them(make: MakeHouse) -> None:
    house = make(3)
    for task_id in (1, 2):
        house.label_studio.store(task_id, OLD)
    house.work.run(Selection(), house.predict, replaces_older=True)
    assert house.report.deleted == 2
    assert_each_once(house)
    assert [request.path for request in house.server.requests if request.method == "DELETE"] == [
        f"/api/projects/{PROJECT}/model-versions/"
    ]
