"""All commands, and what becomes of their errors: one line that says what to do, and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import requests
import typer

from yolo_backend.cli.check import check
from yolo_backend.cli.common import UNUSABLE, CommandError, err
from yolo_backend.cli.connect import connect
from yolo_backend.cli.prelabel import prelabel
from yolo_backend.cli.register import register
from yolo_backend.cli.sample import sample
from yolo_backend.cli.tasks import tasks
from yolo_backend.detection.weights import WeightsError
from yolo_backend.images.errors import ImageError
from yolo_backend.labeling import LabelingConfigError
from yolo_backend.prelabeling.pictures import PictureError
from yolo_backend.ray_workers import ClusterError
from yolo_backend.registering.finding import FindError
from yolo_backend.registering.label_files import LabelFileError
from yolo_backend.registering.registration import RegisterError
from yolo_backend.settings import SettingsError
from yolo_backend.storing import explain
from yolo_backend.studio import StudioError

_ROOT = Path(__file__).resolve().parent.parent.parent

app = typer.Typer(
    name="python -m yolo_backend",
    help="The YOLO backend for Label Studio, and what is done around it.",
    epilog="Settings come from the environment or `.env`, as the server's do: `LABEL_STUDIO_URL`, "
    "`LABEL_STUDIO_API_KEY`, `MODEL_NAME`. Exit codes: 0 all is well, 1 some of it failed, 2 it couldn't be done.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def serve(context: typer.Context) -> None:
    """Start the server: `python _wsgi.py`, with its flags."""
    os.execv(sys.executable, [sys.executable, str(_ROOT / "_wsgi.py"), *context.args])  # noqa: S606


app.command()(check)
app.command()(connect)
app.command()(prelabel)
app.command()(register)
app.command()(sample)
app.command()(tasks)


@app.callback()
def _read_common_options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more, on standard error.")] = False,
) -> None:
    # What goes wrong, a command tells by itself.
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL, format="%(levelname)s %(message)s")


def main() -> None:
    """Run a command."""
    try:
        app()
    except (
        ClusterError,
        CommandError,
        SettingsError,
        LabelingConfigError,
        WeightsError,
        ImageError,
        FindError,
        LabelFileError,
        PictureError,
        RegisterError,
    ) as error:
        _fail(str(error))
    except (StudioError, requests.Timeout) as error:
        _fail(explain(error))


def _fail(message: str) -> None:
    err.print(message, style="red", markup=False, soft_wrap=True)
    sys.exit(UNUSABLE)
