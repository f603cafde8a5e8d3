"""`fit` behind the webhook: whose is called, what became of it, and what is told of that."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from yolo_backend import request_ids
from yolo_backend.base import LabelStudioMLBase
from yolo_backend.errors import UserError
from yolo_backend.fit_hook import START_TRAINING, placeholder, trains
from yolo_backend.server.fitting import FitRunner, Training, why_ignored

WAIT_S = 10


class Base(LabelStudioMLBase):
    """As YoloBackend is one."""

    def predict(self, tasks: list[Any], context: dict[str, Any] | None = None, **kwargs: Any) -> Any: ...

    @placeholder
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        raise AssertionError("it isn't called")


class Inherits(Base):
    pass


class Overrides(Base):
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class OfMixin(Overrides, Inherits):
    pass


class Mixin:
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class WithMixin(Mixin, Base):
    pass


class MixinTooLate(Base, Mixin):
    pass


class Again(Overrides):
    fit = Base.fit


class NotCallable(Overrides):
    fit = None  # type: ignore[assignment]


class Calls(Base):
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        super().fit(event, data, **kwargs)


class Wraps(Base):
    pass


def _wrapping(self: Base, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...


Wraps.fit = functools.wraps(Base.fit)(_wrapping)  # type: ignore[method-assign]


class Plain:
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class Static:
    @staticmethod
    def fit(event: str, data: dict[str, Any], **kwargs: Any) -> None:
        pass


class Assigned(Base):
    pass


Assigned.fit = lambda self, event, data, **kwargs: None  # type: ignore[method-assign]


class OfLabelStudioMl:
    """Whose base class has a `fit` that does nothing, too."""

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...


OfLabelStudioMl.__module__ = "label_studio_ml.model"


class InheritsTheirs(OfLabelStudioMl):
    pass


class OverridesTheirs(OfLabelStudioMl):
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    "backend_class",
    [
        Overrides,
        OfMixin,
        WithMixin,
        Calls,
        Wraps,
        Plain,
        Static,
        Assigned,
        OverridesTheirs,
        lambda **kwargs: Inherits(),
    ],
)
def test_a_class_with_a_fit_of_its_own_trains(backend_class: Any) -> None:
    assert trains(backend_class)


@pytest.mark.parametrize(
    "backend_class", [Base, Inherits, MixinTooLate, Again, NotCallable, LabelStudioMLBase, object, InheritsTheirs]
)
def test_a_class_that_inherits_one_that_does_nothing_does_not(backend_class: Any) -> None:
    assert not trains(backend_class)


# What is told


class Trainer:
    """Does what the event's `run` does."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id, self.label_config = project_id, label_config

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any:
        return data["run"]()


def told_when(runner: FitRunner, *states: str) -> list[Training]:
    ends_at = time.monotonic() + WAIT_S
    while [each.state for each in runner.told()] != list(states):
        assert time.monotonic() < ends_at, runner.told()
        time.sleep(0.01)
    return runner.told()


def start(runner: FitRunner, run: Callable[[], Any], project: Any = 7, event: str = START_TRAINING) -> None:
    runner.start(event, {"project": {"id": project}, "run": run})


def raises(error: BaseException) -> Callable[[], NoReturn]:
    def run() -> NoReturn:
        raise error

    return run


def test_a_training_is_told_from_its_click_to_its_end() -> None:
    runner = FitRunner(lambda: Trainer)
    gates = [threading.Event(), threading.Event()]
    before = time.time()
    start(runner, lambda: gates[0].wait(WAIT_S))
    [running] = told_when(runner, "running")
    assert (running.project, running.event, running.reason, running.ended_at) == ("7", START_TRAINING, None, None)
    assert before <= running.asked_at <= time.time()
    start(runner, lambda: gates[1].wait(WAIT_S))  # a second click while one runs waits for it
    told_when(runner, "waiting")
    gates[0].set()
    told_when(runner, "running")
    gates[1].set()
    [done] = told_when(runner, "done")
    assert done.ended_at
    assert done.asked_at <= done.ended_at <= time.time()


class _SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no annotations\nof this project"), "RuntimeError: no annotations"),
        (ValueError(), "ValueError"),
        (KeyError("label"), "KeyError: 'label'"),
        (MemoryError(), "MemoryError"),
        (_SpeechlessError(), "_SpeechlessError"),
        (UserError("Weights x.pt can't be loaded"), "Weights x.pt can't be loaded"),
        (SystemExit(2), "it ended by sys.exit(2)"),
        (SystemExit("no GPU"), "it ended by sys.exit('no GPU')"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (
            RuntimeError("401 for url: http://me:secret@host:8080/api/tasks?token=secret was answered"),
            "RuntimeError: 401 for url: http://host:8080/api/tasks?... was answered",
        ),
        (RuntimeError("Token 0123456789abcdef0123456789abcdef01234567 refused"), "RuntimeError: Token ... refused"),
        (RuntimeError("in 0123456789abcdef0123456789abcdef01234567"), "RuntimeError: in ..."),
        (RuntimeError("Bearer eyJhbGciOi.eyJ0b2tlbi.c2ln-bmF0 is old"), "RuntimeError: Bearer ... is old"),
        (RuntimeError("password=hunter2 is wrong"), "RuntimeError: password=... is wrong"),
        (
            RuntimeError({"password": "hunter2", "token": "abc", "user": "me"}),
            "RuntimeError: {'password': '...', 'token': '...', 'user': 'me'}",
        ),
        (RuntimeError('{"api_key": "abc123"}'), 'RuntimeError: {"api_key": "..."}'),
        (RuntimeError("aws_secret_access_key = AKIA123"), "RuntimeError: aws_secret_access_key = ..."),
        (UserError("password: hunter2 of the bucket"), "password: ... of the bucket"),
        (RuntimeError("\nmissing"), "RuntimeError: missing"),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 183 + "..."),
    ],
)
def test_what_went_wrong_is_told_in_a_line_without_secrets(error: BaseException, reason: str) -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, raises(error))
    [failed] = told_when(runner, "failed")
    assert failed.reason == reason
    assert failed.ended_at


@pytest.mark.parametrize("code", [0, None])
def test_a_script_that_ends_well_by_exit_has_ended_well(code: int | None) -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, lambda: sys.exit(code))
    told_when(runner, "done")


class _Ends(BaseException):
    """As a `sys.exit` is one, raised wherever somebody looks at an error."""


class _EndsInStrError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class _EndsInStrUserError(UserError):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class _EndsInRepr:
    def __repr__(self) -> str:
        raise SystemExit(3)


class _Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__name__":
            raise _Ends
        return super().__getattribute__(name)


class _EndsInNameError(Exception, metaclass=_Nameless):
    pass


class _EndsInCodeError(SystemExit):
    def __getattribute__(self, name: str) -> Any:
        if name == "code":
            raise _Ends
        return super().__getattribute__(name)


class _EndsInBoolError(SystemExit):
    class _Code:
        def __eq__(self, other: object) -> bool:
            raise _Ends

        __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(self._Code())


_SAYS_NOTHING = "it can't say why"
_ENDS = [
    (SystemExit(2), "it ended by sys.exit(2)"),
    (SystemExit(["no", "GPU"]), "it ended by sys.exit(['no', 'GPU'])"),  # which isn't hashable
    (SystemExit(_EndsInRepr()), _SAYS_NOTHING),
    (_EndsInBoolError(), _SAYS_NOTHING),
    (_EndsInCodeError(), _SAYS_NOTHING),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (GeneratorExit(), "GeneratorExit"),
    (_Ends(), "_Ends"),
    (_SpeechlessError(), "_SpeechlessError"),
    (_EndsInStrError(), "_EndsInStrError"),
    (_EndsInStrUserError(), _SAYS_NOTHING),
    (_EndsInNameError(), _SAYS_NOTHING),
]


@pytest.mark.parametrize(("error", "reason"), _ENDS, ids=[reason for _, reason in _ENDS])
def test_however_one_ends_it_is_told_and_the_next_is_run(
    error: BaseException, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, raises(error))
    [failed] = told_when(runner, "failed")
    assert failed.reason == reason
    assert [record.getMessage() for record in caplog.records] == ["Project 7: fit failed on START_TRAINING"]
    ran = threading.Event()
    start(runner, ran.set)
    assert ran.wait(WAIT_S)
    told_when(runner, "done")


class _EndsInClass(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__mro__":
            raise SystemExit(3)
        return super().__getattribute__(name)


@pytest.mark.parametrize("where", ["import", "constructor", "looking at the class"])
def test_a_class_that_ends_the_process_costs_an_event(where: str, caplog: pytest.LogCaptureFixture) -> None:
    class EndsInConstructor(Trainer):
        def __init__(self, **kwargs: Any) -> None:
            raise SystemExit(3)

    class EndsWhenLookedAt(Trainer, metaclass=_EndsInClass):
        pass

    def load() -> Any:
        if classes:
            return classes.pop()
        raise SystemExit(3)

    classes: list[Any] = {"import": [], "constructor": [EndsInConstructor]}.get(where, [EndsWhenLookedAt])
    runner = FitRunner(load)
    start(runner, lambda: None)
    [failed] = told_when(runner, "failed")
    assert failed.reason == "it ended by sys.exit(3)"
    classes.append(Trainer)
    start(runner, lambda: None)
    told_when(runner, "done")


class _EndsInLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit(3)


def test_a_log_that_ends_the_process_costs_an_event() -> None:
    """A handler of a `fit`'s own, that a training framework brings."""
    runner, handler = FitRunner(lambda: Trainer), _EndsInLog()
    logging.getLogger("yolo_backend.server.fitting").addHandler(handler)
    try:
        start(runner, raises(ValueError("no labels")))
        [failed] = told_when(runner, "failed")
        assert failed.reason == "ValueError: no labels"
    finally:
        logging.getLogger("yolo_backend.server.fitting").removeHandler(handler)
    start(runner, lambda: None)
    told_when(runner, "done")


def test_an_exit_of_0_is_no_failure_and_the_next_is_run() -> None:
    runner = FitRunner(lambda: Trainer)
    ran = threading.Event()
    start(runner, raises(SystemExit(0)))
    start(runner, ran.set)
    assert ran.wait(WAIT_S)
    told_when(runner, "done")


def test_each_project_is_told_of_and_the_newest_first() -> None:
    runner = FitRunner(lambda: Trainer)
    for project in (7, 8, 9):
        start(runner, lambda: None, project)
        time.sleep(0.01)
    assert [training.project for training in told_when(runner, "done", "done", "done")] == ["9", "8", "7"]


def test_of_other_events_only_a_failure_is_told_until_the_next_goes_well() -> None:
    runner = FitRunner(lambda: Trainer)
    start(runner, lambda: None, event="ANNOTATION_CREATED")
    start(runner, raises(ValueError("no labels")), event="ANNOTATION_UPDATED")
    [failed] = told_when(runner, "failed")
    assert (failed.event, failed.reason) == ("ANNOTATION_UPDATED", "ValueError: no labels")
    start(runner, lambda: None)
    told_when(runner, "done", "failed")
    start(runner, lambda: None, event="ANNOTATION_UPDATED")
    assert told_when(runner, "done")[0].event == START_TRAINING


def test_what_comes_when_too_many_wait_is_dropped_and_told(caplog: pytest.LogCaptureFixture) -> None:
    runner = FitRunner(lambda: Trainer)
    gate = threading.Event()
    start(runner, lambda: gate.wait(WAIT_S), event="ANNOTATION_CREATED")
    for _ in range(101):
        start(runner, lambda: None, event="ANNOTATION_CREATED")
    start(runner, lambda: None)
    [first, _] = told_when(runner, "dropped", "dropped")
    assert (first.event, first.reason) == (START_TRAINING, "fit is 100 events behind")
    gate.set()


# How many run, and wait


class Gates:
    """Runs of `fit` that are noted as they begin, and end when they are let go."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()
        self._open = threading.Semaphore(0)

    def run(self, name: Any) -> Callable[[], None]:
        def run() -> None:
            with self._lock:
                self.began.append(name)
                self.running += 1
                self.most_running = max(self.most_running, self.running)
            assert self._open.acquire(timeout=WAIT_S)
            with self._lock:
                self.running -= 1

        return run

    def let_go(self, runs: int = 1) -> None:
        self._open.release(runs)

    def come(self, began: int) -> None:
        """Wait until so many began."""
        ends_at = time.monotonic() + WAIT_S
        while len(self.began) < began:
            assert time.monotonic() < ends_at, self.began
            time.sleep(0.01)

    def wait_until(self, began: int) -> list[Any]:
        """The names of those that began, once there are so many."""
        self.come(began)
        time.sleep(0.05)  # for one more than there should be
        return list(self.began)


def fit_threads() -> int:
    return sum(thread.name.startswith("fit") for thread in threading.enumerate())


def wait_until_no_thread() -> None:
    ends_at = time.monotonic() + WAIT_S
    while fit_threads():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def test_names_that_anybody_posts_start_few_threads_and_hold_little(caplog: pytest.LogCaptureFixture) -> None:
    wait_until_no_thread()  # of the tests before
    runner, gates = FitRunner(lambda: Trainer), Gates()
    for project in range(5000):
        start(runner, gates.run(project), project)
        gates.come(min(project + 1, 4))  # one after the other, or their order isn't sure
    assert gates.wait_until(4) == [0, 1, 2, 3]
    assert fit_threads() == 4
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 4900
    assert warnings[0] == ("Project 100: START_TRAINING is dropped because fit is behind in 100 other projects already")
    told = runner.told()
    assert [(each.project, each.state, each.reason) for each in told] == [
        (str(project), "dropped", "fit is behind in 100 other projects already") for project in range(4999, 4949, -1)
    ]
    assert all(each.ended_at for each in told)
    start(runner, gates.run("a second"), 99)  # one of those that wait may wait for more
    for began in range(5, 11):
        gates.let_go()
        gates.come(began)
    assert gates.began == [*range(10)]
    gates.let_go(95)  # four at once: which of them is noted first isn't sure
    ran = gates.wait_until(101)
    assert sorted(name for name in ran if name != "a second") == [*range(100)]
    assert ran.index("a second") > ran.index(99)
    assert gates.most_running == 4
    wait_until_no_thread()
    start(runner, gates.run("the next"), 5000)  # there is room again
    gates.let_go()
    assert gates.wait_until(102)[-1] == "the next"


def test_projects_take_turns_and_each_keeps_its_order() -> None:
    runner, gates, others = FitRunner(lambda: Trainer), Gates(), Gates()
    for project in ("long 1", "long 2", "long 3"):  # which leave one thread
        start(runner, others.run(project), project)
    others.wait_until(3)
    for number in range(3):
        start(runner, gates.run(("a", number)), "a")
    for number in range(2):
        start(runner, gates.run(("b", number)), "b")
    start(runner, gates.run(("c", 0)), "c")
    gates.let_go(6)
    assert gates.wait_until(6) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("a", 2)]
    assert gates.most_running == 1
    others.let_go(3)


def test_the_events_of_a_project_run_one_at_a_time_though_threads_are_idle() -> None:
    runner, gates = FitRunner(lambda: Trainer), Gates()
    for number in range(50):
        start(runner, gates.run(number))
    gates.wait_until(1)
    gates.let_go(50)
    assert gates.wait_until(50) == list(range(50))
    assert gates.most_running == 1


def test_a_thread_that_can_not_be_started_costs_no_project_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FitRunner(lambda: Trainer)
    ran: list[int] = []

    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            start(runner, lambda: ran.append(1))
    start(runner, lambda: ran.append(2))
    told_when(runner, "done")
    assert ran == [1, 2]


def test_a_class_that_turns_out_not_to_train_is_told_when_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    is_imported = threading.Event()

    def load() -> Any:
        assert is_imported.wait(WAIT_S)
        return Inherits

    runner = FitRunner(load)
    start(runner, lambda: None)
    told_when(runner, "running")
    is_imported.set()
    [ignored] = told_when(runner, "ignored")
    assert ignored.reason == why_ignored("Inherits")
    assert "fit failed" not in caplog.text


def test_each_training_is_a_part_of_the_request_that_asked_for_it() -> None:
    runner, gate = FitRunner(lambda: Trainer), threading.Event()
    seen: list[str] = []

    def run() -> None:
        assert gate.wait(WAIT_S)
        seen.append(request_ids.current())

    for request_id in ("one", "two"):
        with request_ids.working_for(request_id):
            start(runner, run, event=f"START_{request_id}")
    gate.set()
    ends_at = time.monotonic() + WAIT_S
    while len(seen) < 2:
        assert time.monotonic() < ends_at
        time.sleep(0.01)
    assert seen == ["one", "two"]


def test_a_class_that_can_not_be_imported_is_told() -> None:
    def load() -> NoReturn:
        raise UserError("The class Mine can't be imported (NameError): see the backend's log")

    runner = FitRunner(load)
    start(runner, lambda: None)
    [failed] = told_when(runner, "failed")
    assert failed.reason == "The class Mine can't be imported (NameError): see the backend's log"


def test_what_is_ignored_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    runner = FitRunner(lambda: Inherits)
    with caplog.at_level(logging.DEBUG, logger="yolo_backend.server.fitting"):
        for project in range(3):
            for event in ("ANNOTATION_CREATED", START_TRAINING, "TASKS_CREATED"):
                runner.ignore(event, {"project": {"id": project}}, why_ignored("Inherits"))
    reason = (
        "Nothing is trained: the class Inherits doesn't train. Set TRAINING=on or override its fit, see "
        "docs/training.md, and restart the backend"
    )
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", f"Project 0: ANNOTATION_CREATED is ignored: {reason}"),
        ("WARNING", f"Project 0: START_TRAINING is ignored: {reason}"),
    ]
    assert [(each.project, each.event, each.state) for each in runner.told()] == [
        (str(project), START_TRAINING, "ignored") for project in (2, 1, 0)
    ]


@pytest.mark.parametrize("project", [None, 5, "5", [], {}, {"id": None}, {"id": "x" * 10_000}, {"id": [1]}])
def test_a_project_of_any_shape_is_told(project: Any) -> None:
    runner = FitRunner(lambda: Trainer)
    runner.start("E" * 10_000, {"project": project, "run": raises(ValueError("x"))})
    [failed] = told_when(runner, "failed")
    assert len(failed.project) <= 60
    assert failed.event == "E" * 60


def test_of_thousands_of_projects_the_last_are_told() -> None:
    runner = FitRunner(lambda: Inherits)
    for project in range(500):
        runner.ignore(START_TRAINING, {"project": project}, "why")
    assert {each.project for each in runner.told()} == {str(project) for project in range(450, 500)}


def test_what_a_person_reads_names_the_remedy_before_it_is_cut() -> None:
    assert len(why_ignored("A" * 5000)) < 240
