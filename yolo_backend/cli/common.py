"""What the commands share: options, the project they are about, and how they tell what came out."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as ProgressTask
from rich.text import Text

from yolo_backend.errors import UserError
from yolo_backend.label_studio.projects import Project, open_project, projects_of, told_projects
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.messages import shortened
from yolo_backend.serving.command_work import telling_the_page
from yolo_backend.serving.project_predictor import Stream
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings, load_settings, split_web_address

# What a script reads goes to standard output; what a person is told meanwhile, and errors, don't.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

_LINE_EACH_S = 60.0

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130  # exit codes: some of it failed; it couldn't be done; Ctrl-C

Url = Annotated[
    str | None,
    typer.Option("--url", help="Label Studio's address.", show_default="LABEL_STUDIO_URL", rich_help_panel="Where"),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="A token of Label Studio's; others on this machine may see it here, so the environment is better.",
        show_default="LABEL_STUDIO_API_KEY",
        rich_help_panel="Where",
    ),
]
ProjectName = Annotated[
    str,
    typer.Option(
        "--project", "-p", help="The project: its number, its title, or its page's address.", rich_help_panel="Where"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Workers = Annotated[
    Literal["threads", "ray"],
    typer.Option(
        "--workers",
        help="Who detects: threads of this machine, or the nodes of a Ray cluster.",
        rich_help_panel="With what",
    ),
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="With ray: the cluster, such as ray-head:6379.",
        show_default="this machine alone",
        rich_help_panel="With what",
    ),
]


class CommandError(UserError):
    """The command can't be run as asked; the message says what to do."""


def read_settings(url: str | None = None, token: str | None = None) -> Settings:
    """The settings, with what the command line says instead. Raises SettingsError."""
    given = {"label_studio_url": url, "label_studio_api_key": token}
    settings = load_settings(**{name: value for name, value in given.items() if value})
    # These are of the Label Studio that the environment names, and this may be another one.
    return settings.model_copy(update={"label_studio_host": None, "label_studio_media_root": None}) if url else settings


def open_studio(settings: Settings) -> Studio:
    """The Label Studio that the settings name. Raises CommandError where they don't."""
    key = settings.label_studio_api_key
    if not settings.label_studio_url or not key:
        missing = "LABEL_STUDIO_API_KEY (or --token)" if settings.label_studio_url else "LABEL_STUDIO_URL (or --url)"
        raise CommandError(f"Set {missing}: it is needed to reach Label Studio")
    return Studio(settings.label_studio_url, key.get_secret_value())


def find_project(studio: Studio, name: str) -> Project:
    """The project of this number, page or title. Raises CommandError where there is none, or several."""
    name = name.strip()
    if match := re.fullmatch(r"https?://.*/projects/(\d{1,18})(?:[/?#].*)?|(\d{1,18})", name):
        return open_project(studio, int(match[1] or match[2]))
    found = [project for project in projects_of(studio) if project["title"] == name]
    if len(found) == 1:
        return open_project(studio, int(found[0]["id"]))
    if found:
        numbers = ", ".join(str(project["id"]) for project in found)
        raise CommandError(f'Several projects are called "{name}" ({numbers}): give the number')
    raise CommandError(f'No project is called "{shortened(name)}" for this token, {told_projects(studio)}')


def plan_of(project: Project, predictor: Predictor) -> ProjectPlan:
    """How the project is served; waits until the weights are read.

    Raises CommandError where nothing is trained yet, LabelingConfigError, WeightsError.
    """
    plan = predictor.plan(project.label_config, None, project=project.sent_as)
    if plan.is_untrained:
        raise CommandError(
            f"Nothing predicts {project.title} yet: none of its labels is a class of {predictor.settings.model_name}. "
            f"Label images, and run `yolo-backend train --project {project.id}`"
        )
    return plan


def progress_bar() -> Progress:
    """A bar on standard error, with the rate and the time left; it goes when all is done.

    Without a terminal it is a line a minute, for a log.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    if err.is_terminal:
        return Progress(*columns, console=err, transient=True)
    return _ProgressLines(*columns, console=err, disable=True, auto_refresh=False)


@contextmanager
def told_progress(settings: Settings, command: str, project: Project) -> Iterator[Progress]:
    """A progress bar whose first task is also on the page of servers with the same MODEL_DIR."""
    with progress_bar() as progress:

        def how_far() -> tuple[int, int | None]:
            if not progress.tasks:
                return 0, None
            first = progress.tasks[0]
            return int(first.completed), None if first.total is None else int(first.total)

        with telling_the_page(settings.model_dir, command, str(project.id), how_far):
            yield progress


class _ProgressLines(Progress):
    """Draws nothing, and tells of the task that goes on when the last line is old."""

    _told_at: float | None = None

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now
        if now < self._told_at + _LINE_EACH_S:
            return
        self._told_at = now
        task = self._tasks[task_id]
        total = "" if task.total is None else f" of {task.total:,.0f}"
        self.console.print(f"{task.description}: {task.completed:,.0f}{total}", markup=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: ProgressTask) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s", style="progress.data.speed")


def check_backend_url(url: str) -> None:
    """Raises CommandError for what is no address of a backend, or holds a login, which would be printed."""
    parts = split_web_address(url)
    if parts is None:
        raise CommandError("--backend-url should look like http://localhost:9090")
    if parts.username or parts.password:
        raise CommandError("--backend-url should hold no login: set BASIC_AUTH_USER and BASIC_AUTH_PASS")


def make_folder(folder: Path | None, option: str) -> None:
    """Make the folder that this option names, if it was given. Raises CommandError."""
    if not folder:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder} can't be made: {error.strerror}: name another {option}") from None
    try:
        # Now, and not after minutes of work; asked by doing it, for root and read-only file systems have own answers.
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CommandError(f"{folder} can't be written to: {error.strerror}: name another {option}") from None


def remark(text: str) -> None:
    """Tell a person what they should know meanwhile."""
    err.print(text, style="yellow", markup=False, soft_wrap=True)


def print_json(data: Any) -> None:
    """Print for a script: one JSON document, and nothing else, on standard output."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2), file=out.file)


def stream_by(predictor: Predictor, workers: str, address: str | None) -> Stream:
    """`Predictor.stream`, or what takes the same and does it by a cluster. Raises CommandError."""
    if workers == "ray":
        from yolo_backend.serving.ray_workers import stream_on_ray

        return partial(stream_on_ray, settings=predictor.settings, address=address)
    if address:
        raise CommandError("--address is that of a Ray cluster: add --workers ray")
    return predictor.stream


@contextmanager
def standard_output_for_scripts() -> Iterator[None]:
    """Keep standard output for what a script reads: Ray prints of its nodes there, from threads of its own."""
    out.file = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        out.file = None  # type: ignore[assignment]  # whatever standard output is then
