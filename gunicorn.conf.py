"""What `gunicorn _wsgi:app` reads in this folder: its workers read the weights as they start, and not when asked."""

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Called in each worker once it has the application, by `--preload` from before the fork."""
    if begin_loading := getattr(worker.wsgi, "extensions", {}).get("begin_loading"):
        begin_loading()
