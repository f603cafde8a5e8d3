"""Each task is predicted once, whoever asks for it, and each result leaves in one way only."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.fakes.clock import Clock
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure, FailureLog
from yolo_backend.protocol import Prediction, Task
from yolo_backend.serving import jobs as jobs_module
from yolo_backend.serving import ledger as ledger_module
from yolo_backend.serving import outage as outage_module
from yolo_backend.serving import scheduler as scheduler_module
from yolo_backend.serving.jobs import Job, JobKey, Jobs, TooManyJobsError
from yolo_backend.serving.progress import Progress
from yolo_backend.serving.scheduler import Scheduler
from yolo_backend.serving.tickets import Ask, Ticket, TicketState, tickets_of

KEY = JobKey("http://studio", "7", "yolo26n-3f9a1c2e")
WAIT_S = 10


def task(task_id: Any, image: str = "image.jpg") -> Task:
    return {"id": task_id, "data": {"image": image}}


def tasks(*task_ids: Any) -> list[Task]:
    return [task(task_id) for task_id in task_ids]


def prediction(number: Any) -> Prediction:
    return {"result": [], "score": number, "model_version": KEY.model_version}


def predict(task: Task) -> Prediction | Failure:
    return prediction(task["id"])


def scores(predictions: list[Prediction | None]) -> list[Any]:
    return [each and each["score"] for each in predictions]


def never() -> bool:
    return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (jobs_module, ledger_module, outage_module, scheduler_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


def alone(predict: Callable[[Task], Any]) -> Callable[[Task, Any], Any]:
    """For a job, which says where the task is worked on, too."""
    return lambda task, slot: predict(task)


class Work:
    """Takes what jobs submit, and runs it when the test says so; what was predicted, in order."""

    def __init__(self) -> None:
        self.submitted: deque[Callable[[], None]] = deque()
        self.predicted: list[Any] = []

    def predict(self, task: Task) -> Prediction | Failure:
        self.predicted.append(task["id"])
        return predict(task)

    def job(self, key: JobKey = KEY, parallel: int = 2, predict: Callable[[Task], Any] | None = None) -> Job:
        return Job(
            key,
            alone(predict or self.predict),
            Scheduler(self.submitted.append),
            parallel=parallel,
            failures=FailureLog(),
        )

    def run(self, count: int = 1_000_000) -> None:
        while self.submitted and count:
            self.submitted.popleft()()
            count -= 1


@pytest.fixture
def work() -> Work:
    return Work()


def ready(job: Job, task: Task) -> Prediction | None:
    ticket = job.ledger.known(ticket_of(task))
    return ticket.prediction if ticket and ticket.state is TicketState.READY else None


def ticket_of(task: Task) -> Ticket:
    return tickets_of([task])[0]


def lend(job: Job, limit: int) -> list[Ticket]:
    """What goes into an import."""
    return list(job.ledger.lend_for_import(limit).tickets)


def lent(job: Job) -> list[Ticket]:
    """What was given away and isn't known to have arrived."""
    return [ticket for lease in job.ledger.leases() for ticket in lease.tickets]


def end_leases(job: Job) -> None:
    """Label Studio doesn't hold what it was given."""
    for lease in job.ledger.leases():
        job.ledger.end(lease)


def kept(job: Job) -> list[Ticket]:
    return list(job.ledger._ready)


def arrived(job: Job, tickets: list[Ticket]) -> None:
    """Label Studio says that it holds these."""
    task_ids = [ticket.task_id for ticket in tickets if ticket.task_id is not None]
    job.ledger.learn(task_ids, task_ids, 0.0)


def answer(job: Job, ask: Ask) -> list[Any]:
    given = scores(job.answer(ask, float("inf")))
    job.leave(ask)
    return given


# Asking


@pytest.mark.parametrize("task_ids", [[], [1], [3, 1, 2], [2, None, "4", 5, True, 1.5]])
def test_one_entry_for_each_task_in_order(work: Work, task_ids: list[Any]) -> None:
    job = work.job()
    ask = job.ask(tickets_of(tasks(*task_ids)))
    work.run()
    assert job.wait(ask, time.monotonic() + WAIT_S, never)
    assert answer(job, ask) == task_ids
    assert work.predicted == task_ids


def test_an_empty_task_is_worked_on_too(work: Work) -> None:
    job = work.job(predict=lambda task: prediction(0))
    ask = job.ask(tickets_of([{}, {}]))
    work.run()
    assert ask.is_settled.is_set()
    assert answer(job, ask) == [0, 0]


def test_tasks_of_one_id_in_one_request_get_an_entry_each(work: Work) -> None:
    job = work.job()
    ask = job.ask(tickets_of([*tasks(1, 2, 1, 1), task(1, "another.jpg")]))
    work.run()
    assert answer(job, ask) == [1, 2, 1, 1, 1]
    assert [ticket.task_id for ticket in lent(job)] == [1, 2]


def test_what_could_not_be_delivered_later_is_dropped_with_its_request(work: Work) -> None:
    job = work.job(parallel=1)
    ask = job.ask(tickets_of(tasks(1, None, None, 2, 2)))
    assert job.leave(ask) == 2  # the tasks 1 and 2
    work.run()
    assert work.predicted == [1, 2]


def test_a_request_waits_no_longer_than_its_deadline(work: Work) -> None:
    job = work.job()
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    work.run(1)
    assert job.wait(ask, time.monotonic() + 0.05, never)
    assert answer(job, ask) == [1, None, None]


def test_a_client_that_hangs_up_leaves_its_results_for_the_push(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_LOOK_FOR_CLIENT_S", 0.01)
    job = work.job()
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    work.run(1)
    assert lend(job, 10) == []  # it is still waiting
    assert not job.wait(ask, float("inf"), lambda: True)
    assert job.leave(ask) == 2
    work.run()
    assert [ticket.task_id for ticket in lend(job, 2)] == [1, 2]
    assert [ticket.task_id for ticket in lend(job, 2)] == [3]


def test_who_asks_again_joins_the_work(work: Work) -> None:
    job = work.job(parallel=1)
    first, second = job.ask(tickets_of(tasks(1, 2, 3))), job.ask(tickets_of(tasks(3, 4, 1)))
    work.run()
    assert work.predicted == [1, 2, 3, 4]
    assert answer(job, second) == [3, 4, 1]
    assert answer(job, first) == [None, 2, None]


def test_changed_data_is_predicted_anew(work: Work) -> None:
    job = work.job(parallel=1)
    first = job.ask(tickets_of([task(1, "old.jpg"), task(2, "old.jpg")]))
    work.run(1)
    second = job.ask(tickets_of([task(1, "new.jpg"), task(2, "new.jpg")]))
    work.run()
    assert Counter(work.predicted) == {1: 2, 2: 2} or Counter(work.predicted) == {1: 2, 2: 1}
    assert answer(job, second) == [1, 2]
    assert answer(job, first) == [None, None]
    assert job.ledger.size == 2


def test_what_is_not_answered_soon_takes_less_memory(work: Work, clock: Clock) -> None:
    long = {"result": 100 * [{"type": "rectanglelabels", "score": 0.5}], "score": 0.5, "model_version": "v"}
    job = work.job(predict=lambda task: long)
    ask = job.ask(tickets_of(tasks(1)))
    work.run()
    (ticket,) = kept(job)
    whole_bytes = len(ticket.packed)
    job.ledger.compress()
    assert len(ticket.packed) == whole_bytes
    clock.sleep(10)
    for _ in range(2):
        job.ledger.compress()
        assert len(ticket.packed) < whole_bytes / 4
        assert ticket.prediction == long
    assert job.answer(ask, float("inf")) == [long]


def test_what_was_answered_is_given_again_only_after_a_while(work: Work, clock: Clock) -> None:
    job = work.job()
    ask = job.ask(tickets_of(tasks(*range(100))))
    work.run()
    assert answer(job, ask) == list(range(100))
    (lease,) = job.ledger.leases()
    assert lease.ends_at == clock.now_s + 65  # it is stored within 60 s and 0.05 s each
    assert answer(job, job.ask(tickets_of(tasks(1, 2)))) == [None, None]
    job.ledger.end(lease)
    assert answer(job, job.ask(tickets_of(tasks(1, 2)))) == [1, 2]
    assert len(work.predicted) == 100


def test_what_was_just_pushed_is_not_taken_on_again(work: Work, clock: Clock) -> None:
    """Label Studio picks a click's tasks first, and sends them when a push in between may have stored some of them."""
    job = work.job()
    job.leave(job.ask(tickets_of(tasks(1, 2))))
    work.run()
    job.ledger.tell_imported(lend(job, 1))
    again = job.ask(tickets_of([*tasks(1, 2), task(1, "another.jpg")]))
    work.run()
    assert answer(job, again) == [None, 2, 1]  # other data is another task
    assert work.predicted == [1, 2, 1]
    clock.now_s += 10  # by now, who asks for it doesn't hold it
    later = job.ask(tickets_of(tasks(1)))
    work.run()
    assert answer(job, later) == [1]
    assert work.predicted == [1, 2, 1, 1]


def test_more_tasks_than_are_kept(
    monkeypatch: pytest.MonkeyPatch, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs_module, "_MAX_TASKS", 4)
    jobs = Jobs()
    job, ask = jobs.ask(KEY, tasks(1, 2, 3, 4, 5, 6), work.job)
    other_key = JobKey("http://studio", "8", KEY.model_version)
    other_job, other_ask = jobs.ask(other_key, tasks(1, 2), lambda: work.job(other_key))
    work.run()
    assert answer(job, ask) == [1, 2, 3, 4, None, None]
    assert answer(other_job, other_ask) == [None, None]
    job.ledger.tell_imported(lent(job))
    job, ask = jobs.ask(KEY, tasks(5, 6), work.job)
    work.run()
    assert answer(job, ask) == [5, 6]


def ask_for_project(jobs: Jobs, work: Work, name: str) -> tuple[Job, Ask]:
    key = JobKey(KEY.studio_url, name, KEY.model_version)
    return jobs.ask(key, tasks(1, 2), lambda: work.job(key))


def test_of_too_many_projects_the_oldest_that_is_done_gives_way(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_MAX_JOBS", 2)
    jobs = Jobs()
    asked = []
    for name in "123":
        asked.append(ask_for_project(jobs, work, name))
        if name == "2":  # the first one is still at work
            work.submitted.rotate(-2)
            work.run(2)
            answer(*asked[1])
    work.run()
    assert [job.ledger.is_empty for job, _ in asked] == [False, True, False]
    assert [answer(job, ask) for job, ask in (asked[0], asked[2])] == [[1, 2]] * 2


def test_of_too_many_projects_at_work_the_next_is_refused(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_MAX_JOBS", 1)
    jobs = Jobs()
    asked = []
    for name in "12":
        asked.append(ask_for_project(jobs, work, name))
    with pytest.raises(TooManyJobsError):
        ask_for_project(jobs, work, "3")
    work.run()
    assert [answer(job, ask) for job, ask in asked] == [[1, 2]] * 2


def test_tasks_without_an_id_that_nobody_waits_for_take_no_room(work: Work) -> None:
    job = work.job()
    for _ in range(3):
        ask = job.ask(tickets_of(tasks(*[None] * 50)))
        assert job.ledger.size == 50
        job.leave(ask)
        assert job.ledger.size == 0
    work.run()
    assert len(work.predicted) <= 2 * 3  # those that were begun
    assert job.ledger.is_empty


def test_a_thread_that_cannot_be_started_costs_nothing(work: Work) -> None:
    """The executor queues the work all the same, and another of its threads does it."""

    def submit(run: Callable[[], None]) -> None:
        work.submitted.append(run)
        raise RuntimeError("can't start new thread")

    job = Job(KEY, alone(predict), Scheduler(submit), parallel=2, failures=FailureLog())
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    work.run()
    assert answer(job, ask) == [1, 2, 3]
    assert job.ledger.is_at_rest


def test_work_that_wants_to_end_the_process_fails(work: Work) -> None:
    def leave(task: Task) -> Prediction:
        raise SystemExit

    job = work.job(predict=leave)
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run()
    assert ask.is_settled.is_set()
    assert answer(job, ask) == [None, None]
    assert job.ledger.is_empty


def test_another_version_casts_doubt_and_takes_nothing(work: Work) -> None:
    """Whoever asks may be anybody: what is void, Label Studio says."""
    jobs = Jobs()
    old, old_ask = jobs.ask(KEY, tasks(1, 2, 3), lambda: work.job(parallel=1))
    assert not old.is_superseded
    key = JobKey(KEY.studio_url, KEY.project, "yolo26n-ffffffff")
    new, new_ask = jobs.ask(key, tasks(1, 2, 3), lambda: work.job(key, parallel=1))
    assert (old.is_superseded, new.is_superseded) == (True, False)
    work.run()
    assert answer(new, new_ask) == answer(old, old_ask) == [1, 2, 3]


@pytest.mark.parametrize(
    "other",
    [JobKey("http://other", "7", "v2"), JobKey("http://studio", "8", "v2"), JobKey("http://studio", "", "v2")],
    ids=["another Label Studio", "another project", "no project"],
)
def test_another_project_casts_no_doubt(work: Work, other: JobKey) -> None:
    jobs = Jobs()
    asked = [jobs.ask(key, tasks(1, 2, 3), lambda key=key: work.job(key)) for key in (KEY, other)]  # type: ignore[misc]
    if not other.project:  # of those that don't say their project, one may be anybody's
        other = JobKey(other.studio_url, "", "v3")
        asked.append(jobs.ask(other, tasks(1, 2, 3), lambda: work.job(other)))
    assert not any(job.is_superseded for job, _ in asked)
    work.run()
    assert [answer(job, ask) for job, ask in asked] == [[1, 2, 3]] * len(asked)


def test_a_project_of_another_time_with_the_same_id_has_a_job_of_its_own(work: Work) -> None:
    """It may have had weights of its own: what is void for the one would take the other's tasks with it."""
    jobs = Jobs()
    keys = [replace(KEY, sent_as=sent) for sent in ("7.1700000000", "7.1800000000")]
    (one, one_ask), (other, other_ask) = (jobs.ask(key, tasks(1, 2), lambda: work.job(KEY)) for key in keys)
    assert one is not other
    one.give_up("the project's labels changed", TicketState.PENDING, TicketState.READY)
    work.run()
    assert answer(one, one_ask) == [None, None]
    assert answer(other, other_ask) == [1, 2]


def test_jobs_side_by_side_take_turns() -> None:
    order: list[str] = []
    gate = threading.Event()

    def predict_for(name: str) -> Callable[[Task], Prediction]:
        def predict(task: Task) -> Prediction:
            assert gate.wait(WAIT_S)
            order.append(name)
            return prediction(1)

        return predict

    jobs = Jobs()
    with ThreadPoolExecutor(2) as pool:
        asked = []
        scheduler = Scheduler(pool.submit)
        for name in "ab":
            key = JobKey("", name, "v")
            job = Job(key, alone(predict_for(name)), scheduler, parallel=2, failures=FailureLog())
            asked.append(jobs.ask(key, tasks(*range(50)), lambda job=job: job))  # type: ignore[misc]
        gate.set()
        for job, ask in asked:
            assert job.wait(ask, time.monotonic() + WAIT_S, never)
    assert "b" in order[:5]
    assert "a" in order[50:60]


def test_an_answer_of_nothing_does_not_wait_for_the_door(work: Work) -> None:
    job = work.job()
    job.leave(job.ask(tickets_of(tasks(1, 2))))
    work.run()
    assert job.door.enter_to_import()
    lease = job.ledger.lend_for_import(10, job.door.import_over)
    job.ledger.send(lease)
    job.ledger.sent(lease)
    job.ledger.set_adrift(lease)  # nobody knows what became of it
    ask = job.ask(tickets_of(tasks(1, 2)))
    assert ask.is_settled.is_set()
    began = time.monotonic()
    assert job.answer(ask, began + 5) == [None, None]
    assert time.monotonic() - began < 2


def test_a_job_that_cannot_be_delivered_asks_nothing_of_anybody(work: Work) -> None:
    jobs = Jobs()

    def deliver(job: Job) -> None:
        raise RuntimeError("can't start new thread")

    def start() -> Job:
        return Job(
            KEY, alone(predict), Scheduler(work.submitted.append), parallel=2, failures=FailureLog(), deliver=deliver
        )

    with pytest.raises(RuntimeError):
        jobs.ask(KEY, tasks(1, 2), start)
    job = jobs.find(KEY)
    assert job is not None
    assert not job.is_delivered
    work.run()
    assert job.ledger.is_idle


# What needs no work


def recall_all_but(*task_ids: int) -> Callable[[Task], Prediction | None]:
    return lambda task: None if task["id"] in task_ids else prediction(task["id"])


def test_what_is_recalled_is_ready_at_once(work: Work) -> None:
    jobs = Jobs()
    job, ask = jobs.ask(KEY, tasks(3, None, 1, 2), work.job, recall_all_but())
    assert ask.is_settled.is_set()
    assert answer(job, ask) == [3, None, 1, 2]
    assert not work.submitted
    progress = job.progress()
    assert (progress.asked, progress.predicted, progress.answered) == (4, 4, 4)
    assert job.ledger.size == 3  # the nameless one is gone


def test_what_is_not_recalled_is_worked_on(work: Work) -> None:
    jobs = Jobs()
    job, ask = jobs.ask(KEY, tasks(1, 2, 3, 4, 4), work.job, recall_all_but(2, 4))
    assert not ask.is_settled.is_set()
    assert [ticket.task_id for ticket in kept(job)] == [1, 3]
    work.run()
    assert work.predicted == [2, 4, 4]
    assert answer(job, ask) == [1, 2, 3, 4, 4]


def test_what_is_recalled_is_delivered_once_like_all_else(work: Work) -> None:
    jobs = Jobs()
    job, first = jobs.ask(KEY, tasks(1, 2), work.job, recall_all_but())
    job.leave(first)  # they have gone
    assert [ticket.task_id for ticket in lend(job, 1)] == [1]
    _, second = jobs.ask(KEY, tasks(1, 2), work.job, recall_all_but())
    assert answer(job, second) == [None, 2]
    assert not job.ledger.claim_alone(ticket_of(task(2)), prediction("alone"))


def test_what_the_job_has_already_is_not_recalled(work: Work) -> None:
    jobs = Jobs()
    job, first = jobs.ask(KEY, tasks(1, 2), work.job)
    work.run()
    recalled: list[Any] = []

    def recall(task: Task) -> Prediction | None:
        recalled.append(task["id"])
        return prediction("recalled")

    _, second = jobs.ask(KEY, tasks(1, 2, 3), work.job, recall)
    assert recalled == [3]
    assert answer(job, second) == [1, 2, "recalled"]
    assert answer(job, first) == [None, None]


def test_recalling_holds_up_the_other_tasks_for_a_moment_only(work: Work, clock: Clock) -> None:
    def recall(task: Task) -> Prediction | None:
        clock.sleep(0.2)
        return prediction("recalled")

    job, ask = Jobs().ask(KEY, tasks(*range(10)), work.job, recall)
    work.run()
    given = answer(job, ask)
    assert given == ["recalled"] * 3 + list(range(3, 10))


def test_recalled_tasks_take_room_too(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_MAX_TASKS", 2)
    job, ask = Jobs().ask(KEY, tasks(1, 2, 3), work.job, recall_all_but())
    assert answer(job, ask) == [1, 2, None]


# Lone requests


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_lone_request_takes_a_task_over(work: Work, done: int) -> None:
    """Waiting, running, and ready ones."""
    job = work.job(parallel=1)
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run(done)
    number = 2
    assert scores([ready(job, task(number))]) == [2 if done == 2 else None]
    assert job.ledger.claim_alone(ticket_of(task(number)), prediction("alone"))
    work.run()
    assert ask.is_settled.is_set()
    assert answer(job, ask) == [1, None]
    assert lend(job, 10) == []
    assert not job.ledger.claim_alone(ticket_of(task(number)), prediction("alone"))


def test_a_lone_request_takes_over_what_is_running(work: Work) -> None:
    job = work.job(
        parallel=1, predict=lambda task: prediction(job.ledger.claim_alone(ticket_of(task), prediction("alone")))
    )
    ask = job.ask(tickets_of(tasks(1)))
    work.run()
    assert answer(job, ask) == [None]
    (ticket,) = lent(job)
    assert (ticket.state, *scores([ticket.prediction])) == (TicketState.LEASED, "alone")
    assert job.progress().predicted == 1


def test_a_lone_request_gets_nothing_of_what_is_pushed(work: Work) -> None:
    job = work.job()
    job.leave(job.ask(tickets_of(tasks(1))))
    work.run()
    assert lend(job, 1)
    assert ready(job, task(1)) is None
    assert not job.ledger.claim_alone(ticket_of(task(1)), prediction("alone"))


def test_a_lone_request_of_changed_data_or_another_task_is_not_the_jobs(work: Work) -> None:
    job = work.job()
    job.ask(tickets_of(tasks(1)))
    work.run()
    for other in (task(1, "new.jpg"), task(2), task(None)):
        assert ready(job, other) is None
        assert job.ledger.claim_alone(ticket_of(other), prediction("alone"))


# Predictions that go wrong


@pytest.mark.parametrize(
    "wrong",
    [RuntimeError("no"), object(), {"result": [object()]}],
    ids=["raises", "an object", "not JSON"],
)
def test_a_wrong_prediction_fails_alone(work: Work, caplog: pytest.LogCaptureFixture, wrong: Any) -> None:
    def predict_two_wrong(task: Task) -> Any:
        if task["id"] != 2:
            return predict(task)
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    job = work.job(predict=predict_two_wrong)
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    work.run()
    assert answer(job, ask) == [1, None, 3]
    assert caplog.text.count("Task 2 is not predicted") >= 1
    progress = job.progress()
    assert (progress.predicted, progress.failed) == (2, 1)
    assert job.ledger.size == 2


def failure(task_id: int, reason: str = "404 Not Found") -> Failure:
    return Failure("7", task_id, FailureKind.HTTP_ERROR, reason)


def test_a_failed_task_is_asked_for_again_by_the_next_click(work: Work) -> None:
    fails = [True]
    job = work.job(predict=lambda task: failure(task["id"]) if fails[0] else predict(task))
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run()
    assert answer(job, ask) == [None, None]
    fails[0] = False
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run()
    assert answer(job, ask) == [1, 2]


@pytest.mark.parametrize("is_given_up", [False, True])
def test_failures_of_work_that_nobody_waits_for_have_a_line_each(
    work: Work, caplog: pytest.LogCaptureFixture, is_given_up: bool
) -> None:
    job = work.job(parallel=2, predict=lambda task: failure(task["id"]))
    job.leave(job.ask(tickets_of(tasks(1, 2, 3))))
    if is_given_up:
        job.give_up("enough", TicketState.PENDING, is_begun=False)
    work.run()
    expected = [1, 2] if is_given_up else [1, 2, 3]
    given_up = ["Project 7: 1 tasks are left to the next click: enough"] if is_given_up else []
    assert [record.getMessage() for record in caplog.records] == [
        *given_up,
        f"Project 7: none of {len(expected)} tasks is predicted, for one cause: 404 Not Found",
        *(f"Task {task_id} is not predicted: 404 Not Found" for task_id in expected),
    ]


# Label Studio is away


def passing(task: Task) -> Failure:
    return Failure("7", task["id"], FailureKind.LABEL_STUDIO, "doesn't answer", is_passing=True)


def test_work_waits_while_label_studio_is_away(work: Work, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    is_away = [True]
    job = work.job(predict=lambda task: passing(task) if is_away[0] else work.predict(task))
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    tries = []
    for second in range(150):
        clock.now_s += 1
        job.resume()
        if work.submitted:
            tries.append(second)
        work.run()
    assert tries == [0, 2, 6, 14, 30, 62, 122]
    assert not ask.is_settled.is_set()
    assert job.progress().last_error
    assert (job.progress().waiting, job.progress().failed) == (3, 0)
    assert len(caplog.records) == 1
    is_away[0] = False
    clock.now_s += 61
    job.resume()
    work.run()
    assert answer(job, ask) == [1, 2, 3]
    assert sorted(work.predicted) == [1, 2, 3]
    assert job.progress().last_error is None


def test_a_request_does_not_wait_long_for_a_label_studio_that_is_away(
    work: Work, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_LOOK_FOR_CLIENT_S", 0.01)
    job = work.job(predict=passing)
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run()
    clock.now_s += 2 * jobs_module._AWAY_PATIENCE_S
    assert job.wait(ask, float("inf"), never)
    assert job.leave(ask) == 2


def test_work_that_waits_for_label_studio_does_not_outlive_the_process(work: Work, clock: Clock) -> None:
    job = work.job(predict=passing)
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    work.run()
    job.stop()
    assert ask.is_settled.is_set()
    clock.now_s += 61
    job.resume()
    assert not work.submitted
    assert answer(job, ask) == [None] * 3
    assert job.has_stopped()


# Stopping, and the end


def test_stopping_finishes_what_runs_and_starts_nothing(work: Work) -> None:
    jobs = Jobs()
    job, ask = jobs.ask(KEY, tasks(1, 2, 3, 4), work.job)
    jobs.stop()
    assert not job.has_stopped()
    work.run()
    assert ask.is_settled.is_set()
    _, late = jobs.ask(KEY, tasks(3, 4, 5), work.job)
    assert late.is_settled.is_set()
    assert answer(job, late) == [None] * 3
    assert answer(job, ask) == [1, 2, None, None]
    other = JobKey("http://studio", "8", "v")
    other_job, other_ask = jobs.ask(other, tasks(1), lambda: work.job(other))
    assert answer(other_job, other_ask) == [None]
    assert not work.submitted
    assert job.has_stopped()
    assert other_job.has_stopped()


def test_threads_that_take_no_more_work() -> None:
    with ThreadPoolExecutor(1) as pool:
        pass
    job = Job(KEY, alone(predict), Scheduler(pool.submit), parallel=2, failures=FailureLog())
    ask = job.ask(tickets_of(tasks(1, 2, 3)))
    assert ask.is_settled.is_set()
    assert answer(job, ask) == [None] * 3
    assert job.ledger.is_empty


def test_a_job_ends_when_all_is_delivered(work: Work) -> None:
    jobs = Jobs()
    job, ask = jobs.ask(KEY, tasks(1, 2), work.job)
    assert not jobs.finish(job, if_empty=True)
    work.run()
    answer(job, ask)
    assert not jobs.finish(job, if_empty=True)
    arrived(job, lent(job))
    assert jobs.finish(job, if_empty=True)
    assert jobs.all() == []
    assert jobs.find(KEY) is job  # which knows for some minutes what was delivered
    (finished,) = jobs.progress()
    assert finished.finished_at is not None


def test_results_that_nobody_wants_in_a_day_are_forgotten(work: Work, clock: Clock) -> None:
    job = work.job()
    job.leave(job.ask(tickets_of(tasks(1, 2))))
    work.run()
    clock.now_s += 86_000
    job.expire()
    assert job.ledger.size == 2
    clock.now_s += 500
    job.expire()
    assert job.ledger.is_empty


def test_results_are_forgotten_in_a_day_also_where_each_push_fails(work: Work, clock: Clock) -> None:
    job = work.job()
    job.leave(job.ask(tickets_of(tasks(1, 2))))
    work.run()
    for _ in range(25):
        clock.now_s += 3600
        lend(job, 10)
        end_leases(job)
        job.expire()
    assert job.ledger.is_empty


def test_answers_that_nobody_can_ask_about_are_forgotten_too(work: Work, clock: Clock) -> None:
    job = work.job()
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run()
    answer(job, ask)
    clock.now_s += 2 * 86_500
    job.expire()
    assert job.ledger.is_empty


def test_a_request_of_what_is_no_task_leaves_nothing_behind(work: Work) -> None:
    job = work.job()
    with pytest.raises(AttributeError):
        job.ask(tickets_of([task(1), cast(Task, None)]))
    work.run()
    assert [ticket.task_id for ticket in lend(job, 10)] in ([1], [])
    job.give_up("enough", *TicketState)
    assert job.ledger.is_empty


def test_other_projects_need_not_wait_while_a_large_job_is_finished(
    work: Work, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_AT_ONCE", 10)
    jobs, job = Jobs(), work.job()
    _, ask = jobs.ask(KEY, tasks(*range(1, 51)), lambda: job)
    work.run()
    job.leave(ask)
    others_wait: list[bool] = []
    monkeypatch.setattr(clock, "sleep", lambda _: others_wait.append(jobs._lock.locked()))
    assert jobs.finish(job)
    assert others_wait == [False] * 5
    assert job.ledger.size == 0


# Progress


def numbers(progress: Progress) -> dict[str, int]:
    names = ("asked", "waiting", "running", "predicted", "failed", "answered", "pushed", "kept")
    return {name: number for name in names if (number := getattr(progress, name))}


def test_a_project_keeps_its_door_while_work_on_another_version_of_it_is_known(work: Work, clock: Clock) -> None:
    jobs = Jobs()
    newer, other = replace(KEY, model_version="newer-1"), replace(KEY, project="other")
    door = jobs.door(KEY)
    jobs.of(KEY, work.job)
    kept = jobs.of(newer, work.job)
    clock.now_s += 400
    assert jobs.of(newer, work.job) is kept
    jobs.of(other, work.job)
    assert (jobs.find(KEY), jobs.find(newer)) == (None, kept)
    assert jobs.door(newer) is jobs.door(KEY) is door
    clock.now_s += 400
    jobs.of(other, work.job)
    jobs.of(replace(KEY, project="one more"), work.job)
    assert jobs.find(newer) is None
    assert jobs.door(KEY) is not door


def test_the_rate_is_that_of_the_last_minute(work: Work, clock: Clock) -> None:
    job = work.job()
    job.ask(tickets_of(tasks(*range(1, 10))))
    for pause_s in (120, 1, 0):
        work.run(2)
        clock.now_s += pause_s
    assert job.progress().rate_per_s == 4


def test_the_numbers_add_up(work: Work, clock: Clock) -> None:
    job = work.job(predict=lambda task: failure(task["id"]) if task["id"] == 2 else predict(task))
    ask = job.ask(tickets_of(tasks(1, 2, 3, 4, 5, 6)))
    assert numbers(job.progress()) == {"asked": 6, "waiting": 4, "running": 2}
    work.run(1)
    clock.now_s += 1
    work.run(2)
    progress = job.progress()
    assert numbers(progress) == {"asked": 6, "waiting": 1, "running": 2, "predicted": 2, "failed": 1, "kept": 2}
    assert progress.rate_per_s == 3
    assert progress.left_s == pytest.approx(1 / 3)
    assert answer(job, ask) == [1, None, 3, None, None, None]
    work.run()
    assert numbers(job.progress()) == {"asked": 6, "predicted": 5, "failed": 1, "answered": 2, "kept": 3}
    assert job.progress().rate_per_s == 0
    job.ledger.tell_imported(lend(job, 2))
    assert numbers(job.progress()) == {"asked": 6, "predicted": 5, "failed": 1, "answered": 2, "pushed": 2, "kept": 1}
    assert job.ledger.claim_alone(ticket_of(task(6)), prediction("alone"))
    assert numbers(job.progress()) == {"asked": 6, "predicted": 5, "failed": 1, "answered": 3, "pushed": 2}


def test_an_answer_that_was_lost_counts_once(work: Work, clock: Clock) -> None:
    job = work.job()
    ask = job.ask(tickets_of(tasks(1, 2)))
    work.run()
    answer(job, ask)
    end_leases(job)
    assert answer(job, job.ask(tickets_of(tasks(1)))) == [1]
    end_leases(job)
    job.ledger.tell_imported(lend(job, 2))
    progress = job.progress()
    assert progress.predicted == progress.answered + progress.pushed == 2


def test_the_last_jobs_that_finished_are_shown(work: Work) -> None:
    jobs = Jobs()
    for number in range(15):
        key = JobKey("", str(number), "v")
        job, ask = jobs.ask(key, [], lambda key=key: work.job(key))  # type: ignore[misc]
        job.leave(ask)
        jobs.finish(job)
    assert [progress.project for progress in jobs.progress()] == [str(number) for number in range(14, 4, -1)]


# Many threads


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_many_requests_at_once_predict_and_claim_each_task_once(pool: ThreadPoolExecutor) -> None:
    predicted: Counter[int] = Counter()

    def predict_slowly(task: Task) -> Prediction:
        predicted[task["id"]] += 1
        time.sleep(0.001)
        return prediction(task["id"])

    jobs = Jobs()
    together = threading.Barrier(8)

    def start() -> Job:
        return Job(KEY, alone(predict_slowly), Scheduler(pool.submit), parallel=8, failures=FailureLog())

    def request(number: int) -> list[Any]:
        together.wait(WAIT_S)
        mine = tasks(*range(200)) if number % 2 else tasks(*range(199, -1, -1))
        job, ask = jobs.ask(KEY, mine, start)
        assert job.wait(ask, time.monotonic() + WAIT_S, never)
        return answer(job, ask)

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(request, range(8)))
    given = Counter(score for each in answers for score in each if score is not None)
    assert given == Counter(range(200))
    assert predicted == Counter(range(200))
    (job,) = jobs.all()
    arrived(job, lent(job))
    assert jobs.finish(job, if_empty=True)
