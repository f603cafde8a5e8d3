"""The trainings that people start by the button: one at a time for all processes with this MODEL_DIR."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from pydantic import SecretStr

from yolo_backend.errors import UserError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.messages import first_line
from yolo_backend.protocol import project_key
from yolo_backend.serving.request import default_predictor
from yolo_backend.settings import Settings
from yolo_backend.training import launch
from yolo_backend.training.asked import Asked, AskedTrainings
from yolo_backend.training.lock import Holder, TrainingBusyError, TrainingLock, was_cut_off
from yolo_backend.training.records import Options, Run, are_judged_alike, are_of_several_kinds
from yolo_backend.training.registry import ProjectModels, Registry
from yolo_backend.training.run import CUT_OFF, end_cut_off

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_LOOK_AFTER_FAULT_S = 60.0  # such as a full disk: each look starts a process
_CUT_OFF_IN_A_ROW = 2  # a run that ends its process each time would do so forever
_SHOWN_RUNS = 20
_MAX_WAITING = 100  # a webhook may name any project

Start = Callable[[int, Options, Settings], launch.Training]


class TrainingAskError(UserError):
    """A training that can't be asked for; the message says what to do."""


@dataclass(frozen=True)
class ProjectTrainings:
    """What was trained for a project: its last runs, the newest first, and the one that is `promoted`, if any.

    `running` is the run under way, `asked` what waits to begin, or couldn't.
    """

    project_id: str
    runs: Sequence[Run]
    promoted: str | None
    running: Run | None = None
    asked: Asked | None = None

    @property
    def last_at(self) -> float:
        """When something was done or asked last, as a time of day."""
        return max([run.began_at for run in self.runs] + ([self.asked.at] if self.asked else []), default=0.0)

    @property
    def ended(self) -> Run | None:
        """The last run that is over."""
        return next((run for run in self.runs if run.is_over), None)

    @property
    def serving(self) -> Run | None:
        """The run whose model serves, if it is one of these."""
        return next((run for run in self.runs if run.run == self.promoted), None)

    @property
    def is_of_several_kinds(self) -> bool:
        """Returns True if the scores of these runs can't all be compared."""
        return are_of_several_kinds(self.runs)

    @property
    def compared(self) -> Sequence[Run]:
        """The runs with a score that can be compared with that of what serves, or else with that of the latest."""
        judged = [run for run in self.runs if run.map50 is not None]
        first = self.serving if self.serving and self.serving.result else next(iter(judged), None)
        return [run for run in judged if first and are_judged_alike(run.kind, first.kind)]

    def state_of(self, run: Run) -> str:
        """The state of one of these runs, as people and programs read it."""
        return "cut off" if not run.is_over and run is not self.running else run.state

    def outcome_of(self, run: Run) -> str:
        """What came of one of these runs, as the page says it. What was judged may have failed afterwards."""
        if run is self.running:
            return "under way"
        if run.state != "ended" or run.result is None:
            return self.state_of(run)
        return "promoted" if run.result.promoted else "kept aside" if run.verdict == "aside" else "refused"


class Trainings:
    """Takes what people ask for, and runs it when no other training runs; what waits survives a restart.

    Whoever asks for a project that waits already asks for the same training. Who asks while it runs gets one more.
    """

    def __init__(self, settings: Settings, studios: Studios, start: Start = launch.start) -> None:
        self._settings = settings
        self._studios = studios
        self._start = start
        self._asked = AskedTrainings(settings.model_dir)
        self._lock = TrainingLock(settings.model_dir)
        self._registry = Registry(settings.model_dir)
        self._wake = threading.Event()
        self._begun = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waits_told: set[str] = set()

    def begin(self) -> None:
        """Start the thread that runs them, unless it was started before: in the process that serves."""
        with self._begun:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="trainings", daemon=True)
                self._thread.start()

    def ask(self, project: str) -> None:
        """Ask for a training of the project that Label Studio calls by its id and time of creation: "7.1699...".

        Raises TrainingAskError.
        """
        studio = self._studios.of_project(project)
        key = project_key(studio.url, project) if studio else None
        if studio is None or studio.token is None or key is None:
            raise TrainingAskError(
                "Nothing is trained, because it isn't known which Label Studio asks: set LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY, or press Validate and Save in Settings > Model, and then Start Training"
            )
        if len(self._asked.waiting()) >= _MAX_WAITING:
            raise TrainingAskError(
                f"No training is asked for, because {_MAX_WAITING} projects wait for theirs already: press Start "
                "Training again later"
            )
        try:
            self._asked.ask(key, project)
        except OSError as error:
            raise TrainingAskError(
                f"Nothing is trained, because MODEL_DIR can't be written to ({error.strerror}): let the backend's user "
                f"write there, and have room ({self._settings.model_dir.resolve()})"
            ) from None
        self.begin()
        self._wake.set()

    def _watch(self) -> None:
        self._ask_for_what_was_cut_off()
        while True:
            pause_s = _LOOK_EVERY_S
            try:
                for asked in self._asked.waiting():
                    if self._lock.holder() is not None or self._train(asked):
                        break  # what waits may be another by now
            except OSError as error:
                pause_s = _LOOK_AFTER_FAULT_S
                log.error("MODEL_DIR can't be used (%s): the trainings that were asked for wait", first_line(error))
            except Exception:  # a fault of ours
                pause_s = _LOOK_AFTER_FAULT_S
                log.exception("The trainings that were asked for can't be started")
            self._wake.wait(pause_s)
            self._wake.clear()

    def _train(self, asked: Asked) -> bool:
        """Train what was asked for, to its end. Returns True if it began. Raises OSError."""
        studio = self._studios.of_project(asked.project or self._studios.sent_as(asked.key))
        if studio is None or studio.token is None:
            if asked.key not in self._waits_told:
                self._waits_told.add(asked.key)
                log.warning(
                    "Project %s: its training waits until Label Studio introduces itself: open Settings > Model",
                    asked.project_id,
                )
            return False
        try:
            training = self._start(asked.project_id, self._options(), _for_studio(self._settings, studio))
        except launch.TrainingStartError as error:
            if not error.is_busy:  # else another process was quicker, and this one is asked for still
                log.error("Project %s: the training can't begin: %s", asked.project_id, error)
                self._asked.refuse(asked, str(error))
            return False
        self._asked.begun(asked)
        log.info("Project %s: run %s begins", asked.project_id, training.run().run)
        _log_end(asked.project_id, training.wait())
        return True

    def _options(self) -> Options:
        return Options(base=self._settings.model_names[0], minutes=self._settings.train_minutes, by_button=True)

    def _ask_for_what_was_cut_off(self) -> None:
        """Ask anew for runs whose process died with the backend, or the machine; not for one that always does.

        One of the command isn't begun anew: its options were a person's, and that person isn't here.
        """
        try:
            for models in self._registry.projects():
                if any(not run.is_over for run in models.runs(1)):
                    with self._lock.held(models.key):
                        if run := self._run_to_begin_anew(models):
                            self._asked.ask(models.key)
                            log.warning("Run %s of project %s was cut off: it is begun anew", run.run, models.key)
                        end_cut_off(models)  # what is told of it is true from now on
        except TrainingBusyError:
            log.info("Another training runs: trainings that were cut off are looked for at the next start")
        except OSError as error:
            log.error("It can't be seen which trainings were cut off: %s", first_line(error))

    def _run_to_begin_anew(self, models: ProjectModels) -> Run | None:
        """The last run, if it was cut off and is to be asked for again. The lock is held. Raises OSError."""
        runs = models.runs(_CUT_OFF_IN_A_ROW)
        if not runs:  # it was removed meanwhile
            return None
        last = runs[0]
        if last.is_over or not (last.options and last.options.by_button):
            return None
        if self._asked.of_project(models.key) or models.promoted() == last.run:
            return None
        in_a_row = takewhile(lambda run: not run.is_over or run.failure == CUT_OFF, runs)
        return last if len(list(in_a_row)) < _CUT_OFF_IN_A_ROW else None


def trainings_of(model_dir: Path) -> list[ProjectTrainings]:
    """What was trained in a MODEL_DIR for each project, and what is asked for; the last trained first."""
    holder = None
    with suppress(OSError):  # a folder that is only to be read from
        holder = TrainingLock(model_dir).holder()
    asked = AskedTrainings(model_dir)
    found = []
    for models in Registry(model_dir).projects():
        with suppress(OSError):  # one that somebody removes meanwhile, or that can't be read
            found.append(_of_project(models, holder, asked))
    return sorted(found, key=lambda each: each.last_at, reverse=True)


def _of_project(models: ProjectModels, holder: Holder | None, asked: AskedTrainings) -> ProjectTrainings:
    runs = models.runs(_SHOWN_RUNS)
    running = next((run for run in runs if not run.is_over and not was_cut_off(run, holder)), None)
    return ProjectTrainings(
        models.key.partition("-")[0], runs, models.promoted(), running, asked.of_project(models.key)
    )


@lru_cache(maxsize=1)
def default_trainings() -> Trainings:
    """Those of this process, made when they are first needed, with the settings of its predictor."""
    predictor = default_predictor()
    return Trainings(predictor.settings, predictor.studios)


def _for_studio(settings: Settings, studio: Studio) -> Settings:
    """The settings of a training for a project of this Label Studio, which may have introduced itself."""
    return settings.model_copy(
        update={"label_studio_url": studio.url, "label_studio_api_key": SecretStr(studio.token or "")}
    )


def _log_end(project_id: int, run: Run) -> None:
    if run.result and not run.failure:
        log.warning("Project %s: run %s ended: %s", project_id, run.run, run.result.reason)
    else:
        log.error("Project %s: run %s: %s", project_id, run.run, run.failure)
