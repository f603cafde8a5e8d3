"""All commands, and what becomes of their errors: one line that says what to do, and an exit code."""

from __future__ import annotations

import errno
import importlib
import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from yolo_backend import __version__
from yolo_backend.errors import UserError

# Each is a function of this name in a module of this name, which is imported when it is asked for: with what they
# stand on they take a second, for which nobody who mistypes a name should wait.
COMMANDS = {
    "serve": "Start the server; `serve --help` lists its flags.",
    "check": "Try each link from here to a prediction in Label Studio, and print a tick or the fix.",
    "connect": "Make a first project for the model's classes, and connect it to the backend.",
    "models": "List what was trained for a project, promote a run, or roll back to the model before.",
    "prelabel": "Predict a whole project: every task without a prediction by the current weights and settings.",
    "register": "Register images as tasks; those that are there already are left out.",
    "sample": "Choose what to label next: the images that the detector is least sure of.",
    "train": "Train a model on a project's submitted work, and let it serve if it is better than what does.",
    "tasks": "List a project's tasks: image, predictions, score, annotations.",
    "versions": "List the versions of a project's predictions: how many, how new, of which weights and thresholds.",
}
# What isn't a fault of ours: a full disk, a quota, a folder without rights, a read-only one.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})
_OPTIONS: dict[str, dict[str, Any]] = {
    # Its flags are the server's own, and so is its help.
    "serve": {
        "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
        "add_help_option": False,
    },
}


class _LazyCommand(TyperCommand):
    """A name and a line of help; the command itself takes over when it is run."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return _load(str(self.name)).make_context(info_name, args, parent=parent, **extra)


class _Commands(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: _LazyCommand(name, help=text, rich_markup_mode="markdown") for name, text in COMMANDS.items()
        }


app = typer.Typer(
    cls=_Commands,
    name="yolo-backend",
    help="The YOLO backend for Label Studio, and what is done around it.",
    epilog="Settings come from the environment or `.env`, as the server's do: `LABEL_STUDIO_URL`, "
    "`LABEL_STUDIO_API_KEY`, `MODEL_NAME`. Exit codes: 0 all is well, 1 some of it failed, 2 it couldn't be done.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _load(name: str) -> Any:
    """The command of this name."""
    function = getattr(importlib.import_module(f"yolo_backend.cli.{name}"), name)
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    alone.command(name, **_OPTIONS.get(name, {}))(function)
    return typer.main.get_command(alone)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"yolo-backend {__version__}")
        raise typer.Exit


@app.callback()
def _read_common_options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more, on standard error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand == "serve":  # its log is its own
        return
    # What goes wrong, a command tells by itself.
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL, format="%(levelname)s %(message)s")


def main() -> None:
    """Run a command."""
    try:
        app(prog_name="yolo-backend")
    except UserError as error:
        _fail(str(error))
    except OSError as error:  # those of requests are among them
        from requests import Timeout

        from yolo_backend.label_studio.errors import explain

        if isinstance(error, Timeout):
            _fail(explain(error))
        if error.errno not in _DISK_ERRORS:
            raise
        where = f"{error.filename} can't be used" if error.filename else "A file couldn't be written"
        _fail(f"{where}: {error.strerror}: make room, or give the right to it, and run the command again")


def _fail(message: str) -> None:
    from yolo_backend.cli.common import UNUSABLE, err

    err.print(message, style="red", markup=False, soft_wrap=True)
    sys.exit(UNUSABLE)
