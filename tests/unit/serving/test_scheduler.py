"""Whose turn it is: each project and each host has its share, whoever came first."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import pytest

from tests.fakes.clock import Clock
from yolo_backend.serving import scheduler as scheduler_module
from yolo_backend.serving.scheduler import Scheduler, Slot

LIMIT = 8


class Task:
    """Work that hangs, or is done when the test says so."""

    def __init__(self, office: Office, project: str, host: str) -> None:
        self.office, self.project, self.host = office, project, host
        self.is_wanted = True
        self.is_dropped = False

    def begin(self) -> bool:
        return self.is_wanted

    def run(self, slot: Slot) -> None:
        self.office.at_work[self] = slot
        self.office.begun[self.project] += 1

    def drop(self) -> None:
        self.is_dropped = True


class Office:
    """A scheduler whose work begins at once, and ends by `finish`."""

    def __init__(self) -> None:
        self.at_work: dict[Task, Slot] = {}
        self.begun: Counter[str] = Counter()
        self.runs: deque[partial[None]] = deque()
        self.scheduler = Scheduler(self._submit)

    def _submit(self, run: Callable[[], None]) -> None:
        assert isinstance(run, partial)
        self.runs.append(run)

    def add(self, project: str, count: int, host: str = "images", limit: int = LIMIT) -> list[Task]:
        tasks = [Task(self, project, host) for _ in range(count)]
        for task in tasks:
            self.scheduler.add(project, host, task, limit)
        self.scheduler.resume()
        return tasks

    def running(self) -> Counter[str]:
        """How many of each project have a slot."""
        return Counter(queue_name for queue_name, queue in self._queues() for _ in range(queue.running))

    def _queues(self) -> list[tuple[str, scheduler_module._Queue]]:
        return [(str(project), queue) for project, queue in self.scheduler._queues.items()]

    def finish(self, project: str, count: int = 1) -> int:
        """End so much work of a project; how much ended. What is begun by that waits in `runs`."""
        ended = 0
        for _ in range(count):
            run = next((run for run in self.runs if _project_of(run) == project), None)
            if run is None:
                break
            self.runs.remove(run)
            run()
            ended += 1
        return ended


def _project_of(run: partial[None]) -> str:
    return str(run.args[0].project)


@pytest.fixture
def office() -> Office:
    return Office()


def test_alone_a_project_has_all_slots(office: Office) -> None:
    office.add("a", 20)
    assert office.running() == {"a": LIMIT}
    assert office.finish("a", 20) == 20
    assert office.running() == {}


def test_a_project_has_no_more_than_its_limit_though_slots_are_free(office: Office) -> None:
    office.add("large", 1, host="fast")
    office.add("small", 20, limit=LIMIT // 2)
    assert office.running() == {"large": 1, "small": LIMIT // 2}


def test_who_comes_second_has_a_share_though_the_first_hangs(office: Office) -> None:
    office.add("hangs", 100)
    office.add("b", 100)
    assert office.running() == {"hangs": LIMIT, "b": LIMIT // 2}
    assert office.finish("b", 100) == 100
    office.add("c", 3)
    assert office.running() == {"hangs": LIMIT, "c": 3}


def test_those_side_by_side_share_equally(office: Office) -> None:
    office.add("a", 100)
    office.add("b", 100)
    for _ in range(LIMIT):
        office.finish("a")
    assert office.running()["a"] == office.running()["b"] == LIMIT // 2


def test_many_that_hang_are_bounded_and_the_next_still_has_a_slot(office: Office) -> None:
    for number in range(50):
        office.add(f"hangs {number}", 10, host=f"host {number}")
    slots = sum(office.running().values())
    assert slots <= LIMIT * (1 + 2 * 4.5)  # ln 50 + 0.58
    office.add("b", 5, host="fast")
    assert office.running()["b"] >= 1
    assert office.finish("b", 5) == 5


def test_a_host_that_hangs_does_not_keep_its_own_projects_other_hosts(office: Office) -> None:
    office.add("a", 100, host="hangs")
    office.add("a", 100, host="fast")
    on_fast = [run for run in office.runs if run.args[0].host == "fast"]
    assert len(on_fast) == LIMIT // 2
    done = 0
    while on_fast:
        run = on_fast.pop()
        office.runs.remove(run)
        run()
        done += 1
        on_fast = [each for each in office.runs if each.args[0].host == "fast"]
    assert done == 100


def test_a_bucket_behind_a_redirect_counts_as_itself(office: Office) -> None:
    """Both are asked for at Label Studio; one of them lies in a bucket that hangs."""
    office.add("a", LIMIT, host="s3://slow")
    office.add("a", 50, host="s3://fast")
    for run in list(office.runs):
        slot = run.args[0]
        slot.talks_to("studio")
        slot.talks_to("slow.example" if slot.host == "studio" and slot._named == "s3://slow" else "fast.example")
    assert office.scheduler._running_on == {"slow.example": LIMIT, "fast.example": LIMIT // 2}
    office.add("b", 50, host="s3://fast")
    assert office.running()["b"] >= 1


def test_an_upload_on_the_disk_does_not_hide_the_host_of_a_tasks_first_image(office: Office) -> None:
    """Else those that wait for Label Studio would count for the disk, of which none waits."""
    office.add("a", LIMIT, host="studio")
    office.add("b", LIMIT, host="/data/upload/7")
    for run in office.runs:
        run.args[0].talks_to("studio")
        run.args[0].talks_to("/data/upload/7")
    on_disk = sum(run.args[0].project == "b" for run in office.runs)
    assert office.scheduler._running_on == {"studio": LIMIT, "/data/upload/7": on_disk}
    for project in ("a", "b"):
        office.finish(project)
    office.add("c", 1, host="studio")
    assert {run.args[0].host for run in office.runs if run.args[0].project == "c"} == {"studio"}


def test_what_nobody_wants_any_more_takes_no_slot(office: Office) -> None:
    tasks = office.add("a", 20)
    for task in tasks[:18]:
        task.is_wanted = False
    assert office.finish("a", 20) == 10  # the eight that had a slot, and the last two
    assert office.scheduler.waiting()[0] == 0


def test_a_project_that_is_held_begins_nothing_until_then(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(scheduler_module, "time", clock)
    office.add("a", 10)
    office.scheduler.hold("a", clock.now_s + 5)
    office.finish("a", 8)
    assert office.running() == {}
    office.add("b", 1)
    assert office.running() == {"b": 1}
    clock.now_s += 6
    office.scheduler.resume()
    assert office.running() == {"a": 2, "b": 1}


def test_its_queue_has_a_length_and_an_age(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(scheduler_module, "time", clock)
    assert office.scheduler.waiting() == (0, 0.0)
    office.add("a", 10)
    clock.now_s += 7
    assert office.scheduler.waiting() == (2, 7.0)
    office.scheduler.add("a", "images", Task(office, "a", "images"), LIMIT, is_first=True)  # one that is tried again
    assert office.scheduler.waiting() == (3, 7.0)


def test_work_that_cannot_be_handed_to_a_thread_any_more_is_dropped() -> None:
    def submit(run: Callable[[], None]) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    office = Office()
    office.scheduler = Scheduler(submit)
    tasks = office.add("a", 3)
    assert all(task.is_dropped for task in tasks)
    assert office.running() == {}


def test_work_that_raises_gives_its_slot_back(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Task):
        def run(self, slot: Slot) -> None:
            raise RuntimeError("nobody thought of that")

    for _ in range(3):
        office.scheduler.add("a", "images", Bad(office, "a", "images"), 1)
    office.scheduler.resume()
    assert office.finish("a", 10) == 3
    assert caplog.text.count("work failed") == 3


def test_the_bound_of_hosts_that_are_remembered(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_HOSTS_KEPT", 3)
    for number in range(10):
        office.add("a", 1, host=f"s3://{number}", limit=20)
    for run in list(office.runs):
        run.args[0].talks_to("bucket")
    assert len(office.scheduler._leads_to) == 3


@pytest.mark.parametrize(("projects", "hosts", "limit"), [(1, 100, 16), (4, 300, 128), (32, 40, 16), (100, 40, 16)])
def test_however_many_hang_slots_are_bounded(office: Office, projects: int, hosts: int, limit: int) -> None:
    for number in range(projects):
        for host in range(hosts):
            office.scheduler.add(f"{number}", f"{number}.{host}", Task(office, f"{number}", "hangs"), limit)
        office.scheduler.resume()
    assert limit <= len(office.runs) <= limit * 2 * (1 + math.log(projects)) + 2 * projects
