"""What commands are doing, told to the server's page through a file of each in MODEL_DIR."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from yolo_backend.files import write_json

log = logging.getLogger(__name__)

_FOLDER = "commands"
_TELL_EACH_S = 2.0
_ENDED_AFTER_S = 30.0  # without a word: it was killed
_FORGET_AFTER_S = 86_400.0

HowFar = Callable[[], tuple[int, int | None]]


class CommandWork(msgspec.Struct, frozen=True):
    """A command at work: how many of how many are done, None if that isn't known yet. Times are times of day."""

    command: str
    project: str
    began_at: float
    at: float
    done: int = 0
    total: int | None = None


@contextmanager
def telling_the_page(model_dir: Path, command: str, project: str, how_far: HowFar) -> Iterator[None]:
    """Tell servers with this MODEL_DIR now and then how far the command is. It goes on all the same if that fails."""
    host = re.sub(r"[^\w-]+", "_", socket.gethostname())[:60]
    path = model_dir / _FOLDER / f"{host}-{os.getpid()}.json"
    began_at, is_over = time.time(), threading.Event()

    def tell() -> None:
        while True:
            done, total = how_far()
            try:
                write_json(path, CommandWork(command, project, began_at, time.time(), done, total))
            except OSError as error:
                log.info("The server's page isn't told of this command: %s", error)
                return
            if is_over.wait(_TELL_EACH_S):
                return

    thread = threading.Thread(target=tell, name="tell the page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(_TELL_EACH_S)
        with suppress(OSError):
            path.unlink()


def work_of_commands(model_dir: Path) -> list[CommandWork]:
    """What commands with this MODEL_DIR are doing, what began last first."""
    now = time.time()
    found = []
    for path in (model_dir / _FOLDER).glob("*.json"):
        try:
            work = msgspec.json.decode(path.read_bytes(), type=CommandWork)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        if now < work.at + _ENDED_AFTER_S:
            found.append(work)
        elif now > work.at + _FORGET_AFTER_S:
            with suppress(OSError):  # another user's, perhaps
                path.unlink()
    return sorted(found, key=lambda work: -work.began_at)
