"""`serve`: the server."""

from __future__ import annotations

import typer


def serve(context: typer.Context) -> None:
    """Start the server; `serve --help` lists its flags."""
    from yolo_backend.server.startup import serve as start

    start(context.args)
