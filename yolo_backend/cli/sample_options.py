"""The options of `sample`: how to choose, and what becomes of the chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_HOW = "How to choose"
_THEN = "What becomes of the chosen"

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folders, globs, images, addresses, lists of images or addresses, or - for standard input: of these, "
        "what isn't registered yet.",
        show_default="the project's tasks without annotations",
    ),
]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many to choose.")]
StrategyName = Annotated[
    Literal["uncertainty", "random"],
    typer.Option(help="The most uncertain; or any, to compare with.", rich_help_panel=_HOW),
]
MeasureName = Annotated[
    Literal["least-confidence", "margin", "entropy", "threshold"],
    typer.Option(
        help="How uncertain a box is by its score; threshold: how near it is to its score threshold.",
        rich_help_panel=_HOW,
    ),
]
AggregateName = Annotated[
    Literal["max", "mean", "sum"],
    typer.Option(help="How to combine the boxes of an image.", rich_help_panel=_HOW),
]
Floor = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Look at boxes that score above this, below the thresholds, too.", rich_help_panel=_HOW
    ),
]
Empty = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Uncertainty of an image without boxes.",
        show_default="one box at the --floor",
        rich_help_panel=_HOW,
    ),
]
Diverse = Annotated[
    bool,
    typer.Option(
        "--diverse",
        help="Among more of the most uncertain, choose the least similar.",
        rich_help_panel=_HOW,
    ),
]
Seed = Annotated[int, typer.Option(help="With another one, --strategy random chooses others.", rich_help_panel=_HOW)]
ToRegister = Annotated[
    bool,
    typer.Option(
        "--register",
        help="Register the chosen with their predictions, and write data.uncertainty.",
        rich_help_panel=_THEN,
    ),
]
How = Annotated[
    Literal["upload", "local-files"],
    typer.Option(
        help="What becomes of files; local-files: an address below LOCAL_FILES_DOCUMENT_ROOT.",
        rich_help_panel=_THEN,
    ),
]
ControlName = Annotated[
    str | None,
    typer.Option("--control", help="The control of these images, where there are several.", rich_help_panel=_THEN),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        file_okay=False,
        help="Write a histogram and a contact sheet into this folder.",
        rich_help_panel=_THEN,
    ),
]
