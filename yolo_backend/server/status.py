"""The status page: what is served, what is under way, and what failed; a page for people, JSON for programs."""

from __future__ import annotations

import hashlib
import time
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from yolo_backend.detection.detections import Runtime, WeightsInfo
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.fit_hook import START_TRAINING
from yolo_backend.labels.plans import LABELLED_IMAGES, ProjectPlan, ServedControl
from yolo_backend.messages import Trouble
from yolo_backend.server.fitting import Training
from yolo_backend.server.titles import ProjectTitle
from yolo_backend.serving.command_work import CommandWork
from yolo_backend.serving.progress import Progress
from yolo_backend.serving.remarks import Remark
from yolo_backend.training.history import HistoryPoint, draw_history
from yolo_backend.training.records import Run
from yolo_backend.training.report import label_tags
from yolo_backend.training.things import things_of
from yolo_backend.training.trainings import ProjectTrainings

ModelState = Literal["UP", "LOADING", "DOWN", "STOPPING"]

_MAX_SHOWN = 50
_MAX_TASKS = 8
_MAX_TEXT, _MAX_SENTENCE = 240, 2000
_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_STYLE = Markup((Path(__file__).parent / "templates" / "status.css").read_text(encoding="utf-8"))  # noqa: S704  ours
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; "
    f"style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}


@dataclass(frozen=True)
class ModelStatus:
    """The default weights; `weights` is None while they are read, or with the `reason` why they can't be had.

    If MODEL_NAME lists several, `others` are the second and all after it, by their names, and the state is that of all.
    """

    name: str
    state: ModelState
    weights: WeightsInfo | None = None
    reason: str | None = None
    others: Mapping[str, WeightsInfo | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ProjectStatus:
    """A project that connected, or the `reason` why it couldn't. `seen_at` is the time of day of its last `/setup`.

    `sent_as` is what Label Studio calls it, with the time when it was created.
    """

    project: str
    plan: ProjectPlan | None
    seen_at: float
    reason: str | None = None
    sent_as: str | None = None


@dataclass(frozen=True)
class TrainingStatus:
    """What became of what was asked of `fit`, the newest first; `trains` is None while the class isn't imported."""

    told: Sequence[Training] = ()
    trains: bool | None = None


@dataclass(frozen=True)
class Status:
    """All that the page shows: projects, work and failures as they are to be listed; times are times of day.

    `titles` are those that are known, by project, and `runtimes`, by the fingerprint of the weights; `refused` says of
    new files of weights why they don't serve, `uploads` why uploads can't be read from the disk.
    """

    model_class: str
    version: str
    model: ModelStatus
    started_at: float
    projects: Sequence[ProjectStatus] = ()
    titles: Mapping[str, ProjectTitle] = field(default_factory=dict)
    work: Sequence[Progress] = ()
    commands: Sequence[CommandWork] = ()
    failures: Sequence[Failure] = ()
    remarks: Sequence[Remark] = ()
    training: TrainingStatus = TrainingStatus()
    workers: int = 1
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    refused: Sequence[str] = ()
    uploads: Trouble | None = None
    training_is_on: bool = False
    trainings: Sequence[ProjectTrainings] = ()
    at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class FailureGroup:
    """The failures of one kind and reason; `tasks`, `address` and `last_at` are those of the newest."""

    kind: FailureKind
    reason: str
    advice: str
    count: int
    projects: tuple[str, ...]
    tasks: tuple[int, ...]
    address: str | None
    last_at: float


def wants_page(accept: str | None) -> bool:
    """Returns True if an `Accept` header asks for HTML rather than for JSON; `*/*` or none, as from curl, doesn't."""
    accepted = parse_accept_header(accept, MIMEAccept)
    return accepted.best_match(["application/json", "text/html"]) == "text/html"


def render_page(status: Status, *, refreshes: bool = True) -> str:
    """The page. It loads itself again, unless told not to."""
    busy = (
        any(progress.waiting or progress.running for progress in status.work)
        or bool(status.commands)
        or any(
            item.running or (status.training_is_on and item.asked and not item.asked.refused)
            for item in status.trainings
        )
    )
    return _TEMPLATE.render(
        status=status,
        groups=group_failures(status.failures),
        refresh_s=5 if busy else 30,
        refreshes=refreshes,
        style=_STYLE,
        max_shown=_MAX_SHOWN,
        ago=lambda at: f"{_span(status.at - at)} ago",
        span=_span,
        titles=status.titles,
        iso=_iso,
        start_training=START_TRAINING,
        training_fact=_training_fact(status),
        history=_history,
        label_tags=_label_tags,
        things_of=things_of,
        labelled_images=LABELLED_IMAGES,
    )


def as_json(status: Status) -> dict[str, Any]:
    """The same for programs."""
    others = [_weights_json(name, weights, status.runtimes) for name, weights in status.model.others.items()]
    return {
        "status": status.model.state,
        "reason": status.model.reason,
        "refused": list(status.refused[:_MAX_SHOWN]),
        "uploads": str(status.uploads) if status.uploads else None,
        "model_class": status.model_class,
        "version": status.version,
        "started_at": _iso(status.started_at),
        **_weights_json(status.model.name, status.model.weights, status.runtimes),
        **({"others": others} if others else {}),
        "projects": [_project_json(item, status.runtimes, status.titles.get(item.project)) for item in status.projects],
        "work": [_progress_json(progress) for progress in status.work],
        "commands": [
            msgspec.to_builtins(work) | {"began_at": _iso(work.began_at), "at": _iso(work.at)}
            for work in status.commands
        ],
        "training": _training_json(status),
        "trainings": [_trainings_json(each) for each in status.trainings],
        "remarks": [asdict(remark) | {"at": _iso(remark.at)} for remark in status.remarks],
        "failures": [asdict(group) | {"last_at": _iso(group.last_at)} for group in group_failures(status.failures)],
    }


def group_failures(failures: Iterable[Failure]) -> list[FailureGroup]:
    """Failures, the newest first, by kind and reason."""
    groups: dict[tuple[FailureKind, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.kind, failure.reason), []).append(failure)
    return [
        FailureGroup(
            kind=kind,
            reason=reason,
            advice=kind.advice,
            count=len(group),
            projects=tuple(dict.fromkeys(failure.project for failure in group if failure.project)),
            tasks=tuple(dict.fromkeys(failure.task_id for failure in group if failure.task_id is not None))[
                :_MAX_TASKS
            ],
            address=next((failure.address for failure in group if failure.address), None),
            last_at=group[0].at,
        )
        for (kind, reason), group in groups.items()
    ]


def _history(item: ProjectTrainings) -> Markup:
    """The score over the labelled images, of the runs that were judged by the same."""
    return draw_history(
        [
            HistoryPoint(run.run, result.images.train + result.images.val, run.map50, result.promoted)
            for run in reversed(item.compared)
            if (result := run.result) and run.map50 is not None
        ]
    )


def _label_tags(run: Run) -> Markup:
    """The thresholds of a run's model, as tags to be pasted: a line each, and whole."""
    scores = run.result.labels if run.result else {}
    thresholds = {name: score.threshold for name, score in scores.items() if score.threshold is not None}
    tags = label_tags(thresholds, things_of(run.kind))
    return Markup("\n").join(_printable(tag) for tag in tags.split("\n"))


def _training_fact(status: Status) -> str | None:
    if status.training.trains is not False:
        return None
    return (
        f"Start Training: the class {status.model_class} doesn't train; set TRAINING=on or override fit, see "
        "docs/training.md"
    )


def _training_json(status: Status) -> dict[str, Any]:
    return {
        "trains": status.training.trains,
        "remark": _training_fact(status),
        "told": [
            asdict(training)
            | {
                "asked_at": _iso(training.asked_at),
                "ended_at": None if training.ended_at is None else _iso(training.ended_at),
            }
            for training in status.training.told
        ],
    }


def _progress_json(progress: Progress) -> dict[str, Any]:
    told = asdict(progress)
    told["trouble"] = told.pop("last_error")  # as programs know it
    return told | {"finished_at": _iso(progress.finished_at) if progress.finished_at else None}


def _trainings_json(item: ProjectTrainings) -> dict[str, Any]:
    return {
        "project": item.project_id,
        "promoted": item.promoted,
        "asked_at": _iso(item.asked.at) if item.asked else None,
        "refused": item.asked.refused if item.asked else None,
        "running": item.running.run if item.running else None,
        "runs": [
            {
                "run": run.run,
                "state": item.state_of(run),
                "began_at": _iso(run.began_at),
                "ended_at": None if run.ended_at is None else _iso(run.ended_at),
                "progress": asdict(run.progress) | {"at": _iso(run.progress.at)} if run.progress else None,
                "failure": run.failure,
                "result": asdict(run.result) if run.result else None,
            }
            for run in item.runs
        ],
    }


def _weights_json(name: str, weights: WeightsInfo | None, runtimes: Mapping[str, Runtime]) -> dict[str, Any]:
    runtime = runtimes.get(weights.fingerprint) if weights else None
    return {
        "model": name,
        "task": weights.kind if weights else None,
        "device": runtime.device if runtime else None,
        "engine": runtime.engine if runtime else None,
        "image_size": list(weights.image_size) if weights else None,
        "classes": list(weights.class_names.values()) if weights else [],
        "remark": weights.remark if weights else None,
    }


def _project_json(item: ProjectStatus, runtimes: Mapping[str, Runtime], title: ProjectTitle | None) -> dict[str, Any]:
    return {
        "project": item.project,
        "title": title.title if title else None,
        "url": title.url if title else None,
        "model_version": item.plan.model_version if item.plan else None,
        "reason": item.reason,
        "seen_at": _iso(item.seen_at),
        "controls": [_control_json(served, runtimes) for served in item.plan.controls] if item.plan else [],
        "not_served": list(item.plan.not_served) if item.plan else [],
    }


def _control_json(served: ServedControl, runtimes: Mapping[str, Runtime]) -> dict[str, Any]:
    runtime = runtimes.get(served.weights.fingerprint)
    return {
        "from_name": served.control.from_name,
        "to_name": served.control.to_name,
        "model": served.shown_weights,
        "device": runtime.device if runtime else None,
        "engine": runtime.engine if runtime else None,
        "labels": [asdict(label) for label in served.served_labels],
        "labels_without_class": list(served.label_map.labels_without_class),
        # Each task says which these are.
        "classes_without_label": [] if served.control.labels_value else list(served.label_map.classes_without_label),
    }


class _Sentence(str):
    """A message that is shown whole only here."""


def _fit_for_page(value: Any) -> Any:
    """A stranger's text without control characters and halves of surrogate pairs, and of bounded length."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    most = _MAX_SENTENCE if isinstance(value, _Sentence) else _MAX_TEXT
    shown = value if len(value) <= most else value[: most - 1] + "…"
    return _printable(shown)


def _printable(text: str) -> str:
    return "".join("\N{REPLACEMENT CHARACTER}" if _turns_the_page(letter) else letter for letter in text)


def _turns_the_page(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cs"} or unicodedata.bidirectional(letter) in _DIRECTIONS


def _span(seconds: float) -> str:
    for unit, unit_s, below_s in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < below_s:
            return f"{max(0, seconds) // unit_s:.0f} {unit}"
    return f"{seconds // 86400:.0f} days"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


_ENVIRONMENT = Environment(
    loader=PackageLoader("yolo_backend.server"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_fit_for_page,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["sentence"] = _Sentence
_TEMPLATE = _ENVIRONMENT.get_template("status.html")
