"""`check`: the connection doctor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from yolo_backend.cli.common import (
    FAILED,
    AsJson,
    CommandError,
    Token,
    Url,
    check_backend_url,
    err,
    find_project,
    out,
    print_json,
    read_settings,
)
from yolo_backend.doctor.findings import BrokenLinkError, Finding, LinkState
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.studio import Studio

_MARKS = {
    LinkState.OK: ("✓", "green"),
    LinkState.REMARK: ("!", "yellow"),
    LinkState.WRONG: ("✗", "red"),
    LinkState.NOT_TRIED: ("-", ""),
}
_CHECK_WIDTH = 13


def check(
    *,
    url: Url = None,
    token: Token = None,
    project_name: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            help="The project: its number, its title, or its page's address.",
            show_default="the only one",
            rich_help_panel="Where",
        ),
    ] = None,
    backend_url: Annotated[
        str | None,
        typer.Option(
            "--backend-url",
            help="The backend's address, as it is reached from here and from Label Studio.",
            envvar="BACKEND_URL",
            show_default="the connected model's",
            rich_help_panel="Where",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try each link from here to a prediction in Label Studio, and print a tick or the fix.

    Nothing in Label Studio is changed. Exit codes: 0 all is well, 1 something is wrong, 2 it couldn't be tried.

    **Examples**

        yolo-backend check --project "Nuts and bolts"

        yolo-backend check -p 7 --backend-url http://localhost:9090 --json

        docker compose run --rm ml-backend check
    """
    from yolo_backend.doctor.examination import examine

    if backend_url is not None:
        check_backend_url(backend_url)
    settings = read_settings(url, token)
    if not settings.label_studio_url:
        raise CommandError("Set LABEL_STUDIO_URL (or --url): it is needed to reach Label Studio")
    key = settings.label_studio_api_key
    studio = Studio(settings.label_studio_url, key.get_secret_value() if key else None)

    def find(studio: Studio) -> Project:
        try:
            return find_project(studio, project_name or "")
        except CommandError as error:
            raise BrokenLinkError(
                str(error), "Name one that the token's user sees on Label Studio's first page."
            ) from None

    findings = examine(settings, studio, find_project=find if project_name else None, backend_url=backend_url)
    told = []
    for finding in _with_spinner(findings):
        told.append(finding)
        if not as_json:
            out.print(_line(finding))
    if as_json:
        print_json([asdict(finding) for finding in told])
    if any(finding.state is LinkState.WRONG for finding in told):
        raise typer.Exit(FAILED)


def _with_spinner(findings: Iterator[Finding]) -> Iterator[Finding]:
    while True:
        with err.status("Trying the next link"):
            finding = next(findings, None)
        if finding is None:
            return
        yield finding


def _line(finding: Finding) -> Table:
    mark, style = _MARKS[finding.state]
    line = Table.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(width=_CHECK_WIDTH)
    line.add_column(overflow="fold")
    not_tried = "not tried: " if finding.state is LinkState.NOT_TRIED else ""
    line.add_row(Text(mark, style), Text(finding.check), Text(_printable(not_tried + finding.detail)))
    if finding.fix:
        line.add_row("", "", Text(f"→ {_printable(finding.fix)}", style))
    return line


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
