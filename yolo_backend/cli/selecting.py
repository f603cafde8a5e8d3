"""The options that say which tasks of a project are meant."""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Which tasks"

WithoutPredictions = Annotated[
    bool, typer.Option("--without-predictions", help="Only tasks without a prediction.", rich_help_panel=_PANEL)
]
WithoutAnnotations = Annotated[
    bool, typer.Option("--without-annotations", help="Only tasks that nobody has labelled.", rich_help_panel=_PANEL)
]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        min=0,
        max=1,
        help="Only tasks whose newest prediction scores this or more.",
        rich_help_panel=_PANEL,
    ),
]
MaxScore = Annotated[
    float | None,
    typer.Option(
        "--max-score",
        min=0,
        max=1,
        help="Only tasks whose newest prediction scores this or less.",
        rich_help_panel=_PANEL,
    ),
]
ModelVersion = Annotated[
    str | None,
    typer.Option(
        "--model-version",
        help="Take the score of the newest prediction of this version.",
        show_default="of any version",
        rich_help_panel=_PANEL,
    ),
]
Newest = Annotated[bool, typer.Option("--newest", help="The newest tasks first.", rich_help_panel=_PANEL)]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many tasks.", rich_help_panel=_PANEL)]
