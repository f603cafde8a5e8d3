"""`versions`: whose predictions a project holds, and what each `model_version` is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.markup import escape
from rich.table import Table

from yolo_backend.cli.common import (
    AsJson,
    ProjectName,
    Token,
    Url,
    err,
    find_project,
    open_studio,
    out,
    print_json,
    read_settings,
    remark,
)
from yolo_backend.detection.weights import WeightsError
from yolo_backend.label_studio.projects import HeldVersion, Project
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.prelabeling.model_versions import is_own
from yolo_backend.serving.request import Predictor
from yolo_backend.serving.version_records import VersionRecord, VersionRecords
from yolo_backend.settings import Settings

_SHOWN_LABELS = 4


def versions(*, project_name: ProjectName, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List the versions of a project's predictions: how many, how new, of which weights and thresholds.

    A `model_version` is a name and a digest of all that decides about the boxes. What it stands for is known where it
    was served with the same `MODEL_DIR`.

        yolo-backend versions --project 7
    """
    settings = read_settings(url, token)
    project = find_project(open_studio(settings), project_name)
    held = project.held_versions()
    serves = _serving(project, settings)
    records = VersionRecords(settings)
    known = {each: records.find(each) for each in [*(one.model_version for one in held), *([serves] if serves else [])]}
    if as_json:
        print_json(_as_json(held, serves, known))
        return
    if held:
        out.print(_table(held, serves, known))
    else:
        out.print(f"{project.title} holds no predictions", markup=False, soft_wrap=True)
    if serves and serves not in {one.model_version for one in held}:
        out.print(
            f"{serves} serves now, and no task holds it yet: {what_it_is(serves, known[serves])}",
            markup=False,
            soft_wrap=True,
        )


def _serving(project: Project, settings: Settings) -> str | None:
    """The version that a click would get now; None, told in a line, where nothing can be served."""
    predictor = Predictor(settings)
    try:
        with err.status("Reading the weights"):
            plan = predictor.plan(project.label_config, None, project=project.sent_as)
        return None if plan.is_untrained else plan.model_version
    except (LabelingConfigError, WeightsError) as error:
        remark(f"What serves now isn't known: {error}")
        return None
    finally:
        predictor.close()


def _table(held: Sequence[HeldVersion], serves: str | None, known: dict[str, VersionRecord | None]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("version", overflow="fold")
    table.add_column("predic-\ntions", justify="right", no_wrap=True)
    table.add_column("newest", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for one in held:
        what = what_it_is(one.model_version, known[one.model_version])
        now = "serves now; " if one.model_version == serves else ""
        table.add_row(escape(one.model_version), f"{one.predictions:,}", one.newest_at[:10], escape(now + what))
    return table


def what_it_is(version: str, record: VersionRecord | None) -> str:
    """What a version was made of, as far as that is written down."""
    if record is None:
        return "this backend's, of before or elsewhere" if is_own(version) else "another system's"
    parts = []
    for control in record.controls:
        thresholds = control.thresholds
        same = set(thresholds.values())
        shown = f"{same.pop():g}" if len(same) == 1 else _shown(thresholds)
        pixels = max(control.image_size)
        parts.append(f"{Path(control.weights).name} ({control.fingerprint[:8]}) at {pixels} px, above {shown}")
    if record.iou_threshold != Settings.model_fields["model_iou_threshold"].default:
        parts.append(f"IoU {record.iou_threshold:g}")
    since = datetime.fromtimestamp(record.since).astimezone()
    return f"{', '.join(dict.fromkeys(parts))}; since {since:%Y-%m-%d %H:%M}"


def _shown(thresholds: dict[str, float]) -> str:
    shown = [f"{label} {threshold:g}" for label, threshold in list(thresholds.items())[:_SHOWN_LABELS]]
    more = len(thresholds) - len(shown)
    return ", ".join(shown) + (f" and {more} more labels" if more else "") if shown else "no label's threshold"


def _as_json(held: Sequence[HeldVersion], serves: str | None, known: dict[str, VersionRecord | None]) -> dict[str, Any]:
    return {
        "serves": serves,
        "versions": [
            {
                "model_version": one.model_version,
                "predictions": one.predictions,
                "newest_at": one.newest_at,
                "is_own": is_own(one.model_version),
                "served": msgspec.to_builtins(known[one.model_version]),
            }
            for one in held
        ],
    }
