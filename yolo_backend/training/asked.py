"""Which projects people asked a training for: a file each, so that a restart loses none and all processes see them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from yolo_backend.files import write_json
from yolo_backend.protocol import is_key

_FILE = "asked.json"


@dataclass(frozen=True)
class Asked:
    """That a training of the project with this key was asked for; `at` is the time of day.

    `project` is what Label Studio sends, such as "7.1699...": None where only the key is known. If it couldn't begin,
    `refused` says why, in a sentence that says what to do.
    """

    key: str
    project: str | None = None
    at: float = field(default_factory=time.time)
    refused: str | None = None

    @property
    def project_id(self) -> int:
        """The project's id in Label Studio."""
        return int(self.key.partition("-")[0])


class AskedTrainings:
    """Those of a MODEL_DIR. Whoever asks for one that waits already asks for the same."""

    def __init__(self, model_dir: Path) -> None:
        self._folder = model_dir / "trained"

    def ask(self, key: str, project: str | None = None) -> None:
        """Ask for a training of this project. Raises OSError."""
        write_json(self._file(key), Asked(key, project))

    def of_project(self, key: str) -> Asked | None:
        """What was asked for this project, and didn't begin yet."""
        return self._read(self._file(key))

    def waiting(self) -> list[Asked]:
        """Those that wait, the oldest first."""
        found = [asked for file in self._folder.glob(f"*/{_FILE}") if (asked := self._read(file))]
        return sorted((asked for asked in found if asked.refused is None), key=lambda asked: asked.at)

    def begun(self, asked: Asked) -> None:
        """It began: what is asked from now on is another one. Raises OSError."""
        if self._read(self._file(asked.key)) == asked:  # else somebody asked anew meanwhile
            self._file(asked.key).unlink(missing_ok=True)

    def refuse(self, asked: Asked, reason: str) -> None:
        """It couldn't begin, and isn't tried again until somebody asks anew. Raises OSError."""
        if self._read(self._file(asked.key)) == asked:
            write_json(self._file(asked.key), replace(asked, refused=reason))

    def _file(self, key: str) -> Path:
        return self._folder / key / _FILE

    def _read(self, file: Path) -> Asked | None:
        with suppress(OSError, ValueError):
            asked = msgspec.json.decode(file.read_bytes(), type=Asked)
            if is_key(asked.key) and file == self._file(asked.key):
                return asked
        return None
