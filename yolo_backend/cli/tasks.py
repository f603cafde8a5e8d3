"""`tasks`: what is in a project."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from yolo_backend.cli.common import (
    AsJson,
    ProjectName,
    Token,
    Url,
    find_project,
    open_studio,
    out,
    print_json,
    read_settings,
)
from yolo_backend.cli.selecting import (
    Limit,
    MaxScore,
    MinScore,
    ModelVersion,
    Newest,
    WithoutAnnotations,
    WithoutPredictions,
)
from yolo_backend.label_studio.listing import TaskRow, task_rows
from yolo_backend.label_studio.selection import Selection


def tasks(
    *,
    project_name: ProjectName,
    without_predictions: WithoutPredictions = False,
    without_annotations: WithoutAnnotations = False,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    model_version: ModelVersion = None,
    newest: Newest = False,
    limit: Limit = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List a project's tasks: image, predictions, score, annotations.

    The score is that of the newest prediction, which is the mean of its boxes' scores.

    What is not predicted yet:

        yolo-backend tasks --project 7 --without-predictions

    The fifty newest tasks that the model was unsure of, for a spreadsheet:

        yolo-backend tasks --project "Blood cells" --max-score 0.5 --newest --limit 50 --csv > unsure.csv
    """
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    project = find_project(open_studio(read_settings(url, token)), project_name)
    selection = Selection(
        without_predictions=without_predictions,
        without_annotations=without_annotations,
        min_score=min_score,
        max_score=max_score,
        model_version=model_version,
        newest_first=newest,
        limit=limit,
    )
    rows = task_rows(project, selection)
    if as_json:
        print_json([asdict(row) for row in rows])
    elif as_csv:
        _print_csv(rows)
    else:
        _print_table(rows, project.title)


def _print_csv(rows: Iterable[TaskRow]) -> None:
    writer = csv.DictWriter(sys.stdout, [column.name for column in fields(TaskRow)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)


def _print_table(rows: Iterable[TaskRow], title: str) -> None:
    # A file's name, a version and a day fit into 80 columns; what is longer is folded, for its end tells it apart.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for name in ("id", "file", "predic-\ntions", "version", "score", "annota-\ntions", "created"):
        is_number = name not in {"file", "version", "created"}
        table.add_column(
            name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number or name == "created"
        )
    for row in rows:
        score = "" if row.score is None else f"{row.score:.2f}"
        counts = str(row.predictions), str(row.annotations)
        created = row.created_at[:10]
        table.add_row(
            str(row.id), escape(row.file), counts[0], escape(row.model_version or ""), score, counts[1], created
        )
    if table.row_count:
        out.print(table)
    out.print(f"{table.row_count:,} {'task' if table.row_count == 1 else 'tasks'} of {title}", markup=False)
