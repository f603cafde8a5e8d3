"""What no answer took reaches Label Studio once: against a small Label Studio of our own, with a clock of our own."""

from __future__ import annotations

import itertools
import json
import logging
import random
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

import pytest
import requests

from tests.fakes.clock import Clock, RealClock
from tests.fakes.importing_label_studio import PROJECT, TOKEN, LabelStudio
from tests.harness.http_server import StartServer, reply
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure, FailureLog
from yolo_backend.label_studio import connections as studio_connections
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, StudioRejectedError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.protocol import Prediction, Task
from yolo_backend.serving import delivery as delivery_module
from yolo_backend.serving import door as door_module
from yolo_backend.serving import jobs as jobs_module
from yolo_backend.serving import ledger as ledger_module
from yolo_backend.serving import scheduler as scheduler_module
from yolo_backend.serving.delivery import Delivery, Destination
from yolo_backend.serving.jobs import Job, JobKey, Jobs
from yolo_backend.serving.scheduler import Scheduler
from yolo_backend.serving.tickets import Ask, TicketState, tickets_of

VERSION = "yolo26n-3f9a1c2e"

REFUSED = {401, 403, 404}
WAIT_S = 10


class Work:
    """Takes what a job submits, to be run when the test says so."""

    def __init__(self) -> None:
        self.submitted: deque[Callable[[], None]] = deque()

    def submit(self, run: Callable[[], None]) -> None:
        self.submitted.append(run)

    def run(self, count: int = 1_000_000) -> None:
        while self.submitted and count:
            self.submitted.popleft()()
            count -= 1


def task(task_id: int) -> Task:
    return {"id": task_id, "data": {"image": f"http://images/{task_id}.jpg"}}


def predict_at(task: Task, slot: Any) -> Prediction | Failure:
    return predict(task)


def predict(task: Task) -> Prediction | Failure:
    regions: list[Any] = [{"value": {"x": task["id"]}}]
    return {"result": regions, "score": 0.5, "model_version": VERSION}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (jobs_module, ledger_module, door_module, scheduler_module, delivery_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


class House:
    """A job of some tasks and its delivery to a small Label Studio over HTTP."""

    def __init__(
        self,
        clock: Clock,
        serve: StartServer,
        count: int,
        *,
        project: str = str(PROJECT),
        token: str | None = TOKEN,
        deleted: Sequence[int] = (),
    ) -> None:
        self.clock = clock
        self.label_studio = LabelStudio(clock, set(range(1, count + 1)) - set(deleted))
        self.server = self.label_studio.server = serve(self.label_studio)
        self.studio: Studio | None = Studio(self.server.url, token)
        self.work = Work()
        self.jobs = Jobs()
        self.failures = FailureLog()
        self.key = JobKey(self.server.url, project, VERSION)
        self.tasks = [task(task_id) for task_id in range(1, count + 1)]
        self.job, ask = self.ask()
        self.job.leave(ask)
        self.delivery = Delivery(
            self.job,
            self.jobs,
            Destination(self.key, lambda: self.studio),
            lambda config: config == "<View/>",
            self.failures,
        )

    def another(self, url: str) -> Studio:
        """Label Studio, had it been at this address all the time."""
        self.delivery._destination = Destination(replace(self.key, studio_url=url), lambda: self.studio)
        return Studio(url, TOKEN)

    def ask(self) -> tuple[Job, Ask]:
        return self.jobs.ask(self.key, self.tasks, lambda: self.job_of(self.key))

    def job_of(self, key: JobKey) -> Job:
        return Job(
            key, predict_at, Scheduler(self.work.submit), parallel=4, failures=self.failures, door=self.jobs.door(key)
        )

    def click(self) -> int:
        """What the next click's answer holds, which Label Studio stores."""
        job, ask = self.ask()
        self.work.run()
        answered = [each["id"] for each, given in zip(self.tasks, job.answer(ask, 0.0), strict=True) if given]
        job.leave(ask)
        self.label_studio.store(answered)
        return len(answered)

    def step(self, after_s: float = 0.0) -> list[str]:
        """What the delivery asks Label Studio for after so many seconds."""
        self.clock.now_s += after_s
        self.label_studio.calls.clear()
        self.delivery.step()
        return list(self.label_studio.calls)

    def states(self) -> Counter[TicketState]:
        return Counter(ticket.state for ticket in self.job.ledger._tickets.values())

    def assert_each_stored_once(self) -> None:
        self.clock.now_s += self.label_studio.later_s
        self.label_studio.catch_up()
        assert self.label_studio.stored == Counter(self.label_studio.tasks)
        assert self.jobs.finish(self.job, if_empty=True)


MakeHouse = Callable[..., House]


@pytest.fixture
def house(clock: Clock, serve: StartServer) -> MakeHouse:
    """Makes a job of so many tasks, all of them predicted and nobody waiting."""

    def make(count: int, **options: Any) -> House:
        made = House(clock, serve, count, **options)
        made.work.run()
        return made

    return make


def test_the_ledger_is_asked_before_each_push(house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "_CHUNK", 2)
    made = house(5)
    assert made.step() == ["tasks", "project", "import"] * 3
    made.assert_each_stored_once()
    first = made.server.requests[2]
    assert (first.method, first.path) == ("POST", f"/api/projects/{PROJECT}/import/predictions")
    assert first.headers["authorization"] == f"Token {TOKEN}"
    assert json.loads(first.body) == [
        {"task": each["id"], **cast(Prediction, predict(each))} for each in made.tasks[:2]
    ]
    assert made.jobs.progress()[0].pushed == 5


def test_what_label_studio_holds_already_is_not_pushed(house: MakeHouse) -> None:
    made = house(3)
    made.label_studio.store([1, 3])
    made.step()
    assert [each["task"] for each in json.loads(made.server.requests[-1].body)] == [2]
    made.assert_each_stored_once()


def test_few_results_wait_for_more_while_work_goes_on(house: MakeHouse, clock: Clock, serve: StartServer) -> None:
    made = House(clock, serve, 6)
    made.work.run(3)
    assert made.step() == []
    assert made.step(after_s=15) == []
    assert made.step(after_s=10) == ["tasks", "project", "import"]
    assert made.label_studio.stored == Counter([1, 2, 3])
    made.work.run()
    made.step()  # nothing is running any more
    made.assert_each_stored_once()


def test_what_a_click_waits_for_is_imported_while_it_waits(clock: Clock, serve: StartServer) -> None:
    """Label Studio stores it while the next images are predicted, so that little is left for the end."""
    made = House(clock, serve, 10)
    job, ask = made.ask()
    job.decide(ask, by_import=True)
    made.work.run(5)
    assert made.step(after_s=0.4) == []
    assert made.step(after_s=0.2) == ["tasks", "project", "import"]
    assert made.label_studio.stored.total() == 5
    made.work.run()
    made.step()
    job.leave(ask)
    made.assert_each_stored_once()


def test_little_is_left_for_the_import_that_a_click_waits_for_at_its_end(clock: Clock, serve: StartServer) -> None:
    """The last import begins when the last image is predicted, and the person waits for nothing else by then."""
    made = House(clock, serve, 100)
    job, ask = made.ask()
    job.decide(ask, by_import=True)
    made.work.run(66)
    assert made.step() == []  # more than half as many are still to be predicted
    made.work.run(1)
    assert made.step() == ["tasks", "project", "import"]
    assert made.label_studio.stored.total() == 67
    made.work.run(20)
    assert made.step(after_s=0.3) == []  # few are left, which make one import with these
    made.work.run()
    assert made.step() == ["tasks", "project", "import"]
    job.leave(ask)
    made.assert_each_stored_once()


def test_large_predictions_go_in_imports_of_bounded_size(house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand masks of a megabyte would be a gigabyte, held three times, and one request."""
    size_bytes = len(json.dumps(predict(task(1)), separators=(",", ":")))
    monkeypatch.setattr(ledger_module, "MAX_IMPORT_BYTES", 3 * size_bytes + 1)
    made = house(7)
    assert made.step() == ["tasks", "project", "import"] * 3
    sent = [len(json.loads(one.body)) for one in made.server.requests if one.path.endswith("import/predictions")]
    assert sent == [3, 3, 1]
    made.assert_each_stored_once()


def test_one_that_is_larger_goes_alone(house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_IMPORT_BYTES", 1)
    made = house(2)
    assert made.step() == ["tasks", "project", "import"] * 2
    made.assert_each_stored_once()


def test_a_waiting_request_gets_its_results_before_the_push(house: MakeHouse) -> None:
    made = house(3)
    job, ask = made.ask()
    assert made.step() == []
    assert [prediction is not None for prediction in job.answer(ask, 0.0)] == [True] * 3
    job.leave(ask)


@pytest.mark.parametrize("deleted", [[1], [5], [8], [2, 3], [1, 4, 8], list(range(1, 9))])
@pytest.mark.parametrize("drops_deleted", [False, True])
def test_deleted_tasks_spoil_nothing_but_their_own(
    house: MakeHouse, caplog: pytest.LogCaptureFixture, deleted: list[int], drops_deleted: bool
) -> None:
    made = house(8, deleted=deleted)
    made.label_studio.drops_deleted = drops_deleted
    made.step()
    made.assert_each_stored_once()
    rejected = [failure for failure in made.failures.last() if failure.kind == "rejected"]
    assert sorted(failure.task_id or 0 for failure in rejected) == deleted
    for task_id in range(1, 9):
        assert caplog.text.count(f"Task {task_id} is not predicted: ") == deleted.count(task_id)


@pytest.mark.parametrize("status", sorted(REFUSED))
@pytest.mark.parametrize("calls_before", [0, 1, 2])
def test_a_refusal_is_told_and_results_are_kept(
    house: MakeHouse, caplog: pytest.LogCaptureFixture, status: int, calls_before: int
) -> None:
    made = house(3)
    made.label_studio.faults.extend([""] * calls_before + [str(status)])
    assert len(made.step()) == calls_before + 1
    assert made.states() == {TicketState.READY: 3}
    last_error = made.job.progress().last_error
    assert last_error
    assert caplog.text.count(last_error) == 1
    assert TOKEN not in caplog.text
    assert [made.step(after_s=100), made.step(after_s=100)] == [[], []]
    assert made.step(after_s=101) == ["tasks", "project", "import"]
    assert made.job.progress().last_error is None
    made.assert_each_stored_once()


def test_what_is_kept_after_a_refusal_is_the_next_clicks(house: MakeHouse) -> None:
    made = house(3)
    made.label_studio.faults.append("403")
    made.step()
    assert made.click() == 3
    made.step(after_s=301)
    made.assert_each_stored_once()


def test_what_could_not_be_sent_is_the_next_clicks(house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio ends just before the import: nothing of it arrived, so it holds up nobody."""
    made = house(3)
    assert made.studio
    studio, ask = made.studio, made.studio.label_config

    def ask_and_end(project: int) -> str:
        label_config = ask(project)
        studio.endpoint.url = "http://127.0.0.1:1"
        return label_config

    monkeypatch.setattr(studio, "label_config", ask_and_end)
    assert made.step() == ["tasks", "project"]
    assert made.states() == {TicketState.READY: 3}
    assert "connection refused" in str(made.job.progress().last_error)
    assert made.job.ledger.leases() == []
    studio.endpoint.url = made.server.url
    assert made.click() == 3
    made.step(after_s=301)
    made.assert_each_stored_once()


def test_trouble_is_retried_with_growing_pauses(house: MakeHouse, caplog: pytest.LogCaptureFixture) -> None:
    made = house(3)
    made.label_studio.faults.extend(["502"] * 8)
    tries = []
    for second in range(300):
        if made.step(after_s=1):
            tries.append(second)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert caplog.text.count("results wait to be delivered") == 1
    made.assert_each_stored_once()


@pytest.mark.parametrize("fault", ["500", "after", "late"])
def test_an_import_of_unknown_outcome_is_not_repeated_before_it_is_known(house: MakeHouse, fault: str) -> None:
    made = house(3)
    made.label_studio.faults.extend(["", "", fault])
    assert made.step() == ["tasks", "project", "import"]
    for _ in range(11):
        assert "import" not in made.step(after_s=5)
    assert fault != "after" or not made.jobs.all()[0].ledger.leases()  # it is known as soon as it is seen
    made.step(after_s=10)
    made.step(after_s=10)
    made.assert_each_stored_once()


@pytest.mark.parametrize("fault", ["after", "late"])
def test_a_click_during_an_import_of_unknown_outcome(
    house: MakeHouse, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    made = house(3)
    made.label_studio.faults.extend(["", "", fault])
    asked: list[tuple[Job, Ask]] = []
    import_predictions = made.label_studio.import_predictions

    def asked_meanwhile(task_ids: Sequence[int]) -> tuple[int, Any]:
        if not asked:
            asked.append(made.ask())
        return import_predictions(task_ids)

    monkeypatch.setattr(made.label_studio, "import_predictions", asked_meanwhile)
    made.step()
    ((job, ask),) = asked
    made.label_studio.store([each["id"] for each, given in zip(made.tasks, job.answer(ask, 0.0), strict=True) if given])
    job.leave(ask)
    for _ in range(10):
        made.step(after_s=30)
    made.assert_each_stored_once()


@pytest.mark.parametrize("fault", ["500", "after", "late"])
def test_a_click_soon_after_an_import_of_unknown_outcome(house: MakeHouse, fault: str) -> None:
    made = house(3)
    made.label_studio.faults.extend(["", "", fault])
    made.step()
    made.clock.now_s += 2
    if not made.label_studio.stored:  # else it wouldn't ask
        made.click()
    for _ in range(10):
        made.step(after_s=30)
    made.assert_each_stored_once()


def test_nobody_at_the_address(house: MakeHouse) -> None:
    made = house(2)
    label_studio, made.studio = made.studio, made.another("http://127.0.0.1:9")
    assert made.step() == []
    assert "doesn't answer at http://127.0.0.1:9" in (made.job.progress().last_error or "")
    assert made.states() == {TicketState.READY: 2}
    made.studio = label_studio
    made.delivery._destination = Destination(made.key, lambda: made.studio)
    made.step(after_s=3)
    made.assert_each_stored_once()


def test_an_address_that_swallows_connections_is_told_in_short(
    house: MakeHouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(studio_connections, "_CONNECT_TIMEOUT_S", 0.2)
    made = house(2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        made.studio = made.another(f"http://127.0.0.1:{full.getsockname()[1]}")
        made.step()
    last_error = made.job.progress().last_error or ""
    assert "answer" in last_error
    assert "query" not in last_error + caplog.text
    assert len(last_error) < 200
    assert made.states() == {TicketState.READY: 2}


@pytest.mark.parametrize(
    "answer",
    [reply(b"<html>Back soon</html>"), reply(b"[]"), reply(b"{}"), reply(b"", 302, Location="/user/login/")],
    ids=["a page", "a list", "an empty object", "a redirect"],
)
def test_an_answer_that_is_not_label_studios_changes_nothing(house: MakeHouse, answer: Any) -> None:
    made = house(3)
    made.server.answer = answer
    made.step()
    assert made.states() == {TicketState.READY: 3}
    assert made.failures.last() == []
    assert made.job.progress().last_error
    made.server.answer = made.label_studio
    made.step(after_s=61)
    made.assert_each_stored_once()


@pytest.mark.parametrize("call", [1, 2])
def test_a_page_in_between_changes_nothing(house: MakeHouse, call: int) -> None:
    made = house(3)
    made.label_studio.faults.extend([""] * call + ["204"])
    made.step()
    assert made.states()[TicketState.GONE] == 0
    assert sum(made.states().values()) == 3
    made.step(after_s=61)
    made.step(after_s=61)
    made.assert_each_stored_once()


def test_changed_labels_void_what_is_left(house: MakeHouse, caplog: pytest.LogCaptureFixture) -> None:
    made = house(3)
    made.label_studio.label_config = "<View>other</View>"
    made.step()
    assert made.jobs.finish(made.job, if_empty=True)
    assert not made.label_studio.stored
    assert "3 tasks are left to the next click: the project's labels changed" in caplog.text


def test_one_that_breaks_label_studio_does_not_keep_the_others(house: MakeHouse) -> None:
    made = house(20)
    label_studio = made.label_studio

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST" and b'"task": 1,' in made.server.requests[-1].body:
            reply(b"", 500)(handler)
        else:
            label_studio(handler)

    made.server.answer = answer
    for _ in range(60):
        made.step(after_s=130)
    assert made.label_studio.stored == Counter(range(2, 21))
    assert made.states().total() == 1


def test_a_version_in_doubt_is_void_only_if_label_studio_says_so(house: MakeHouse, clock: Clock) -> None:
    made = house(3)
    made.job.ledger.end(made.job.ledger.lend_for_import(3))  # so that only the doubt makes it ask
    made.job.is_superseded = True
    assert made.step()[0] == "project"
    made.assert_each_stored_once()


def test_work_on_labels_that_are_no_more_ends(clock: Clock, serve: StartServer) -> None:
    made = House(clock, serve, 9)
    made.work.run(1)
    made.label_studio.label_config = "<View>other</View>"
    made.job.is_superseded = True
    assert made.step() == ["project"]
    made.work.run()
    made.step(after_s=100)
    assert made.jobs.finish(made.job, if_empty=True)
    assert not made.label_studio.stored


def test_another_label_studio_gets_nothing(house: MakeHouse, serve: StartServer) -> None:
    """One that introduced itself for the same project after the work began."""
    made = house(3)
    other = serve(reply(b'{"tasks": [], "label_config": "<View/>", "created": 3}'))
    made.studio = Studio(other.url, TOKEN)
    made.step(after_s=100)
    assert other.requests == []
    assert made.job.progress().kept == 3
    assert "another Label Studio" in (made.job.progress().last_error or "")


def test_a_proxy_that_takes_only_small_bodies(house: MakeHouse, serve: StartServer) -> None:
    made = house(40)
    label_studio = made.label_studio

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST" and int(handler.headers["Content-Length"]) > 1000:
            reply(b"<html>413 Request Entity Too Large</html>", 413)(handler)
        else:
            label_studio(handler)

    made.server.answer = answer
    made.step()
    made.assert_each_stored_once()


def test_a_chunk_that_is_too_much_for_label_studio_is_made_smaller(
    house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = house(40)
    label_studio = made.label_studio

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST" and int(handler.headers["Content-Length"]) > 1000:
            reply(b"", 500)(handler)
        else:
            label_studio(handler)

    made.server.answer = answer
    for _ in range(30):
        made.step(after_s=70)
    made.assert_each_stored_once()


@pytest.mark.parametrize(
    "options", [{"token": None}, {"project": ""}, {"project": "seven"}], ids=["no token", "no project", "no number"]
)
def test_where_nothing_can_be_pushed_the_next_click_gets_it(house: MakeHouse, options: dict[str, Any]) -> None:
    made = house(3, **options)
    assert [made.step(after_s=100) for _ in range(5)] == [[]] * 5
    assert made.job.progress().last_error
    assert made.job.progress().kept == 3
    assert made.click() == 3
    assert made.server.requests == []
    made.step(after_s=1)
    assert made.states() == {TicketState.LEASED: 3}  # it can't be asked, so for a while its answer may be lost
    made.step(after_s=100)
    made.assert_each_stored_once()


def test_a_token_that_comes_later_is_used(house: MakeHouse) -> None:
    made = house(3, token=None)
    made.step()
    made.studio = Studio(made.server.url, TOKEN)
    made.step(after_s=1)
    assert made.job.progress().last_error is None
    made.assert_each_stored_once()


def test_answers_that_are_stored_are_forgotten_at_once(house: MakeHouse) -> None:
    made = house(3)
    assert made.click() == 3
    assert made.step(after_s=1) == ["tasks"]
    made.assert_each_stored_once()


def test_an_answer_that_label_studio_never_got_is_pushed(house: MakeHouse, caplog: pytest.LogCaptureFixture) -> None:
    made = house(3)
    job, ask = made.ask()
    job.answer(ask, 0.0)
    job.leave(ask)
    for _ in range(10):
        made.step(after_s=5)
    assert made.states() == {TicketState.LEASED: 3}  # it may be storing them
    for _ in range(20):
        made.step(after_s=5)
    assert "hasn't stored 3 predictions of the backend's answer" in caplog.text
    made.assert_each_stored_once()


def test_an_answer_for_a_deleted_task_is_not_waited_for(house: MakeHouse) -> None:
    made = house(3)
    made.label_studio.delete(2)
    made.click()
    for _ in range(40):
        made.step(after_s=5)
    made.assert_each_stored_once()


# Draining, and the thread


def test_draining_pushes_what_is_ready_at_once(clock: Clock, serve: StartServer) -> None:
    made = House(clock, serve, 9)
    made.work.run(2)
    made.label_studio.faults.append("503")
    made.step(after_s=25)
    made.jobs.stop()
    assert made.step() == ["tasks", "project", "import"]  # without the pause, though four are running still
    made.work.run()
    assert made.step() == ["tasks", "project", "import"]  # without the pause
    assert made.label_studio.stored == Counter(range(1, 7))
    assert made.job.has_stopped()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery_module, "_RETRY_AFTER_S", (0.01, 0.02))


def real_house(serve: StartServer, count: int) -> House:
    made = House(cast(Clock, RealClock()), serve, count)
    made.delivery.start()
    return made


@pytest.mark.usefixtures("fast")
def test_the_thread_ends_with_the_job(serve: StartServer) -> None:
    made = real_house(serve, 3)
    made.work.run()
    made.delivery._thread.join(WAIT_S)
    assert not made.delivery._thread.is_alive()
    assert made.jobs.all() == []
    assert made.label_studio.stored == Counter(made.label_studio.tasks)
    (progress,) = made.jobs.progress()
    assert progress.finished_at is not None
    assert (progress.asked, progress.predicted, progress.pushed, progress.kept) == (3, 3, 3, 0)


@pytest.mark.usefixtures("fast")
def test_the_thread_outlives_an_error_of_its_own(
    serve: StartServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = House(cast(Clock, RealClock()), serve, 3)
    errors = deque([RuntimeError("something nobody thought of")])

    def is_current(label_config: str) -> bool:
        if errors:
            raise errors.popleft()
        return True

    monkeypatch.setattr(made.delivery, "_is_current", is_current)
    made.delivery.start()
    made.work.run()
    made.delivery._thread.join(WAIT_S)
    assert made.label_studio.stored == Counter(made.label_studio.tasks)
    assert caplog.text.count("delivering failed") == 1


@pytest.mark.usefixtures("fast")
def test_the_thread_ends_when_the_process_stops_though_label_studio_is_away(serve: StartServer) -> None:
    made = House(cast(Clock, RealClock()), serve, 6)
    made.studio = Studio("http://127.0.0.1:9", TOKEN)
    made.delivery.start()
    made.work.run(2)
    made.jobs.stop()
    made.work.run()
    made.delivery._thread.join(WAIT_S)
    assert made.jobs.all() == []


@pytest.mark.usefixtures("fast")
def test_the_last_task_that_ends_while_the_process_stops_is_pushed(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = House(cast(Clock, RealClock()), serve, 1)
    made.jobs.stop()
    has_stopped = made.job.has_stopped

    def ends_just_now() -> bool:
        made.work.run()
        return has_stopped()

    monkeypatch.setattr(made.job, "has_stopped", ends_just_now)
    made.delivery.start()
    made.delivery._thread.join(WAIT_S)
    assert made.label_studio.stored == Counter([1])


# Whatever happens, in any order


class FaultyStudio(Studio):
    """Our client of the small Label Studio, without HTTP; before each call, something else happens."""

    def __init__(self, label_studio: LabelStudio, happen: Callable[[], None]) -> None:
        super().__init__("http://studio", TOKEN)
        self._label_studio = label_studio
        self._happen = happen

    def label_config(self, project: int) -> str:
        self._happen()
        return str(self._read(self._label_studio.get_project())["label_config"])

    def tasks_holding(
        self, project: int, model_version: str, task_ids: Sequence[int], timeout_s: float | None = None
    ) -> set[int]:
        if not task_ids:
            return set()
        self._happen()
        return {held["id"] for held in self._read(self._label_studio.get_tasks(task_ids))["tasks"]}

    def import_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        self._happen()
        answer = self._label_studio.import_predictions([prediction["task"] for prediction in predictions])
        self._happen()
        return int(self._read(answer)["created"])

    def _read(self, answer: tuple[int, Any]) -> dict[str, Any]:
        status, body = answer
        if status == 0:
            raise requests.ReadTimeout
        if status == 400:
            raise StudioRejectedError("Label Studio answers 400")
        if status in REFUSED:
            raise StudioRefusedError("Label Studio refuses the token")
        if status >= 300:
            raise StudioError(f"Label Studio answers {status}")
        return dict(body)


TASKS = 6
FAULTS: list[list[str]] = [
    [],
    ["500"],
    ["403"],
    ["", "500"],
    *(["", "", last] for last in ("500", "after", "late", "403")),
]


class Storm:
    """Clicks, work, and deliveries to a Label Studio with faults, in an order that the dice say."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.dice = random.Random(seed)
        self.trace: list[str] = []
        self.clock = clock
        self.label_studio = LabelStudio(
            clock,
            set(range(1, TASKS + 1)),
            drops_deleted=self.dice.random() < 0.5,
            later_s=self.dice.choice([3.0, 50.0]),
        )
        self.studio = FaultyStudio(self.label_studio, self._something_happens)
        self.happenings: deque[str] = deque()
        self.key = JobKey("http://studio", str(PROJECT), VERSION)
        self.jobs = Jobs()
        self.deliveries: dict[Job, Delivery] = {}
        self.work = Work()
        self.failing: set[int] = set()
        self.predicted: Counter[int] = Counter()
        self.clicks: deque[tuple[Job, Ask, list[int]]] = deque()
        self.picked: deque[list[int]] = deque()
        self.was_refused = False

    def blow(self, steps: int) -> None:
        for _ in range(steps):
            self._do(self.dice.choice(HAPPENINGS + ALSO))
            assert max(self.label_studio.stored.values(), default=0) <= 1, self.trace
            if not self.was_refused:  # else a lost answer counts as stored
                # A deleted task may have been picked before, and is sent as one that holds nothing.
                assert max((self.predicted[each] for each in self.label_studio.tasks), default=0) <= 1, self.trace

    def calm_down(self) -> None:
        """Label Studio works again: what was asked for arrives, and a last click brings what failed."""
        self.failing.clear()
        asked_for = {task_id for job in self.jobs.all() for task_id in job.ledger._tickets}
        self.picked.clear()
        while self.clicks:
            self.answer()
        self._deliver_for(600)
        assert self.jobs.all() == [], self.trace
        assert self.was_refused or not asked_for & set(self._unheld()), self.trace
        self.click()
        self.work.run()
        self.answer()
        self._deliver_for(100)
        assert self.label_studio.stored == Counter(self.label_studio.tasks), self.trace
        assert self.jobs.all() == [], self.trace

    def _do(self, what: str) -> None:
        self.trace.append(what)
        getattr(self, what)()

    def _something_happens(self) -> None:
        if self.happenings:
            self._do(self.happenings.popleft())

    def _predict(self, task: Task) -> Prediction | Failure:
        task_id = int(task["id"])
        if task_id in self.failing:
            self.failing.discard(task_id)
            return Failure(str(PROJECT), task_id, FailureKind.HTTP_ERROR, "404 Not Found")
        self.predicted[task_id] += 1
        return predict(task)

    def _start_job(self) -> Job:
        failures = FailureLog()
        return Job(
            self.key,
            lambda task, slot: self._predict(task),
            Scheduler(self.work.submit),
            parallel=2,
            failures=failures,
            door=self.jobs.door(self.key),
            deliver=self._start_delivery,
        )

    def _start_delivery(self, job: Job) -> None:
        destination = Destination(self.key, lambda: self.studio)
        self.deliveries[job] = Delivery(job, self.jobs, destination, lambda config: True, FailureLog())

    def _unheld(self) -> list[int]:
        self.label_studio.catch_up()
        return [task_id for task_id in sorted(self.label_studio.tasks) if not self.label_studio.stored[task_id]]

    def _deliver_for(self, seconds: int) -> None:
        for _ in range(seconds // 10):
            self.work.run()
            self.clock.now_s += 10
            self._deliver([], [])

    # What people and Label Studio do

    def click(self) -> None:
        self.pick()
        self.send()

    def pick(self) -> None:
        """Label Studio picks the tasks of a click first, and sends them later."""
        if task_ids := self._unheld():
            self.picked.append(task_ids)

    def send(self) -> None:
        """As a request does: what may have arrived meanwhile, Label Studio is asked for before an answer brings it."""
        if not self.picked:
            return
        task_ids = self.picked.popleft()
        asked = [task(task_id) for task_id in task_ids]
        job = self.jobs.of(self.key, self._start_job)
        self._learn(job, job.ledger.doubtful(tickets_of(asked)))
        job, ask = self.jobs.ask(self.key, asked, self._start_job)
        if self.dice.random() < 0.8:  # else it goes on to wonder whether Label Studio can answer
            job.decide(ask, by_import=self.dice.random() < 0.6)
        self.clicks.append((job, ask, task_ids))

    def open_a_task(self) -> None:
        """One person's, whom Label Studio gives what it holds, or else what we answer."""
        if not (task_ids := self._unheld()):
            return
        asked = task(self.dice.choice(task_ids))
        (fresh,) = tickets_of([asked])
        job = self.jobs.of(self.key, self._start_job)
        self._learn(job, doubtful := job.ledger.doubtful([fresh]))
        if job.ledger.claim_alone(fresh, cast(Prediction, predict(asked)), is_asked=bool(doubtful)):
            self.label_studio.store([asked["id"]], self.dice.choice([0.0, 0.5]))

    def _learn(self, job: Job, task_ids: Sequence[int]) -> None:
        self.label_studio.catch_up()
        job.ledger.learn(task_ids, {each for each in task_ids if self.label_studio.stored[each]}, self.clock.now_s)

    def answer(self, *, stored_after_s: float = 0.0, is_lost: bool = False) -> None:
        if self.clicks:
            job, ask, task_ids = self.clicks.popleft()
            answered = [task_id for task_id, given in zip(task_ids, job.answer(ask, 0.0), strict=True) if given]
            job.leave(ask)
            if not is_lost:
                self.label_studio.store(answered, stored_after_s)

    def answer_slowly(self) -> None:
        self.answer(stored_after_s=4.0)

    def lose_an_answer(self) -> None:
        self.answer(is_lost=True)

    def hang_up(self) -> None:
        if self.clicks:
            job, ask, _ = self.clicks.popleft()
            job.leave(ask)

    def a_task(self) -> None:
        self.work.run(1)

    def all_tasks(self) -> None:
        self.work.run()

    def delete_a_task(self) -> None:
        if self.dice.random() < 0.2:
            self.label_studio.delete(self.dice.randint(1, TASKS))

    def a_failure(self) -> None:
        self.failing.add(self.dice.randint(1, TASKS))

    def time_passes(self) -> None:
        seconds = self.dice.choice([0.5, 3.0, 7.0, 25.0, 70.0, 400.0])
        self.clock.now_s += seconds
        if seconds > 25.0:  # so long it doesn't take to send what was picked
            self.picked.clear()

    # What the backend does

    def deliver(self) -> None:
        self._deliver(self.dice.choice(FAULTS), self.dice.choices([*HAPPENINGS, "nothing"], k=4))

    def nothing(self) -> None:
        pass

    def _deliver(self, faults: list[str], happenings: list[str]) -> None:
        self.was_refused |= "403" in faults
        self.trace.append(f"faults {faults}")
        self.label_studio.faults = deque(faults)
        self.happenings = deque(happenings)
        for job, delivery in list(self.deliveries.items()):
            delivery.step()
            if self.jobs.finish(job, if_empty=True):
                del self.deliveries[job]
        self.label_studio.faults.clear()
        self.happenings.clear()


CLICKS = ["click", "pick", "send", "open_a_task"]
HAPPENINGS = [*CLICKS, "answer", "answer_slowly", "lose_an_answer", "hang_up", "a_task", "all_tasks"]
ALSO = ["delete_a_task", "a_failure", "time_passes", "deliver", "deliver"]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_each_task_is_stored_once_whatever_happens(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(delivery_module, "_CHUNK", seed + 2)
    for number in range(400):
        storm = Storm(clock, 1000 * seed + number)
        storm.blow(steps=40)
        storm.calm_down()
