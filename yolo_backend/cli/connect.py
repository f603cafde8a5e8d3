"""`connect`: a first project, connected to the backend."""

from __future__ import annotations

from typing import Annotated

import typer

from yolo_backend.cli.common import CommandError, Token, Url, check_backend_url, out, read_settings, remark


def connect(
    *,
    url: Url = None,
    token: Token = None,
    backend_url: Annotated[
        str, typer.Option("--backend-url", help="The backend as Label Studio reaches it.", envvar="BACKEND_URL")
    ] = "http://ml-backend:9090",
    title: Annotated[
        str, typer.Option("--project", "-p", help="The project's title.", envvar="PROJECT_TITLE")
    ] = "YOLO",
    public_url: Annotated[
        str,
        typer.Option(
            help="Label Studio as a person's browser reaches it, for the closing line.",
            envvar="LABEL_STUDIO_PUBLIC_URL",
            show_default=False,
        ),
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each of the two to come up.", min=0)] = 300,
) -> None:
    """Make a first project for the model's classes, and connect it to the backend.

    It waits for both; a project of this title is left as it is, and connected where it isn't.

    **Example**

        yolo-backend connect --backend-url http://localhost:9090 --project "Nuts and bolts"
    """
    from yolo_backend.connecting.connect import ConnectError, connect_first_project

    check_backend_url(backend_url)
    settings = read_settings(url, token)
    try:
        ready = connect_first_project(
            settings, backend_url, title, public_url=public_url or None, timeout_s=timeout, told=remark
        )
    except ConnectError as error:
        raise CommandError(f"Not connected: {error}") from None
    out.print(ready, markup=False, soft_wrap=True)
