"""`models`: what was trained for a project, and which of it serves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from yolo_backend.cli.common import (
    AsJson,
    CommandError,
    ProjectName,
    Token,
    Url,
    find_project,
    open_studio,
    out,
    print_json,
    read_settings,
)
from yolo_backend.label_studio.projects import Project
from yolo_backend.protocol import project_key
from yolo_backend.settings import Settings
from yolo_backend.training.lock import Holder, TrainingLock, was_cut_off
from yolo_backend.training.records import Comparison, Run, are_of_several_kinds
from yolo_backend.training.registry import ProjectModels, Registry

_SOON = "A running server names the new model_version within seconds; the next Retrieve Predictions predicts anew"


def models(
    *,
    project_name: ProjectName,
    promote: Annotated[
        str | None,
        typer.Option("--promote", metavar="RUN", help="Let this run's model serve the project.", show_default=False),
    ] = None,
    roll_back: Annotated[
        bool,
        typer.Option("--roll-back", help="Go back to the previous model, or after the first to the untrained one."),
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List what was trained for a project, promote a run, or roll back to the model before.

    Servers with the same `MODEL_DIR` switch by themselves, without a restart.

    What there is, and why each was promoted or not:

        yolo-backend models --project 7

    One that was kept aside, because there were too few images to judge it:

        yolo-backend models --project 7 --promote 3
    """
    if promote is not None and roll_back:
        raise typer.BadParameter("choose one of --promote and --roll-back")
    settings = read_settings(url, token)
    project = find_project(open_studio(settings), project_name)
    found = models_of(project, settings)
    done = None
    if promote is not None:
        found.promote(promote)
        done = f"Run {promote} serves {project.title} from now on"
    elif roll_back:
        before = found.roll_back()
        done = f"{f'Run {before}' if before else settings.model_name} serves {project.title} again"
    if as_json:
        print_json(_as_json(project, found, TrainingLock(settings.model_dir).holder()))
        return
    if done:
        out.print(f"{done}. {_SOON}.", markup=False, soft_wrap=True)
    else:
        _print(project, found, settings)


def models_of(project: Project, settings: Settings) -> ProjectModels:
    """What was trained for this project. Raises CommandError where it isn't known when it was created."""
    key = project_key(project.studio.url, project.sent_as)
    if key is None:
        raise CommandError(f"Label Studio doesn't say when project {project.id} was created: update Label Studio")
    return Registry(settings.model_dir).project(key)


def _as_json(project: Project, found: ProjectModels, holder: Holder | None) -> dict[str, Any]:
    serves = found.promoted()
    return {
        "project": project.id,
        "folder": str(found.folder),
        "serves": serves,
        "runs": [
            {
                **{name: value for name, value in msgspec.to_builtins(run).items() if name != "project"},
                "serves": run.run == serves,
                "cut_off": was_cut_off(run, holder),
                "has_weights": found.weights_of(run.run) is not None,
            }
            for run in found.runs()
        ],
    }


def _print(project: Project, found: ProjectModels, settings: Settings) -> None:
    runs, serves = found.runs(), found.promoted()
    if runs:
        out.print(_table(runs, serves, TrainingLock(settings.model_dir).holder()))
    what = {None: f"no trained model, but {settings.model_name}", "": f"{found.file}, which is of no run"}
    line = f"{project.title} is served by {what.get(serves, f'run {serves}')}"
    if not runs:
        line += (
            f": nothing was trained for it in {found.model_dir}, as `yolo-backend train --project {project.id}` does"
        )
    out.print(line, markup=False, soft_wrap=True)


def _table(runs: Sequence[Run], serves: str | None, holder: Holder | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    kinds = [("kind", "left")] if are_of_several_kinds(runs) else []
    for name, justify in (("run", "right"), *kinds, ("began", "left"), ("images", "right"), ("mAP50", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("verdict", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for run in runs:
        result = run.result
        images = f"{result.images.train} + {result.images.val}" if result else ""
        score = _told(result.map50) if result else ""
        verdict = "serves" if run.run == serves else _verdict(run, holder)
        began = datetime.fromtimestamp(run.began_at).astimezone().strftime("%Y-%m-%d %H:%M")
        reason = run.failure or (result.reason if result else "; ".join(run.remarks))
        table.add_row(run.run, *([run.shown_kind] if kinds else []), began, images, score, verdict, escape(reason))
    return table


def _told(score: Comparison) -> str:
    """The candidate's score, after that of the model that served."""
    both = [f"{each:.3f}" for each in (score.current, score.candidate) if each is not None]
    return " → ".join(both) if score.candidate is not None else ""


def _verdict(run: Run, holder: Holder | None) -> str:
    if was_cut_off(run, holder):
        return "cut off"
    words = {"promote": "promoted", "refuse": "refused", "aside": "kept aside"}
    return words[run.verdict] if run.verdict else run.state
