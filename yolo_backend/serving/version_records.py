"""What each `model_version` is, written down when it first serves: nobody can read it from the version itself."""

from __future__ import annotations

import logging
import re
import threading
import time
from hashlib import sha256
from pathlib import Path

import msgspec

from yolo_backend.files import write_json
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.settings import Settings

log = logging.getLogger(__name__)

_FOLDER = "versions"
_MOST = 1000  # the oldest go
_MAX_NAME = 150  # of a file; for any other version it is its digest


class VersionControl(msgspec.Struct, frozen=True):
    """How a control was served: `thresholds` are of its labels, `fingerprint` is the weights' SHA-256."""

    from_name: str
    weights: str
    fingerprint: str
    image_size: tuple[int, int]
    thresholds: dict[str, float]


class VersionRecord(msgspec.Struct, frozen=True):
    """A `model_version`: since when it was served (seconds since 1970), and how."""

    model_version: str
    since: float
    iou_threshold: float
    controls: list[VersionControl]


class VersionRecords:
    """The versions that servers and commands with this MODEL_DIR have served. For any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.model_dir / _FOLDER
        self._noted: set[str] = set()
        self._lock = threading.Lock()

    def note(self, plan: ProjectPlan) -> None:
        """Write down what the plan's version is, once. It serves all the same where that can't be written."""
        version = plan.model_version
        if version in self._noted or plan.is_untrained:
            return
        with self._lock:
            if version in self._noted:
                return
            self._noted.add(version)
        try:
            path = self._path(version)
            if not path.exists():
                write_json(path, self._record(plan))
                self._forget_oldest()
        except OSError as error:
            log.info("What %s is can't be written down in %s: %s", version, self._folder, error.strerror)

    def find(self, model_version: str) -> VersionRecord | None:
        """What a version is; None if it isn't known here, or its file can't be read."""
        try:
            found = msgspec.json.decode(self._path(model_version).read_bytes(), type=VersionRecord)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return found if found.model_version == model_version else None

    def _path(self, model_version: str) -> Path:
        is_name = re.fullmatch(rf"\w[\w.+-]{{0,{_MAX_NAME}}}", model_version, re.ASCII)
        return self._folder / f"{model_version if is_name else sha256(model_version.encode()).hexdigest()}.json"

    def _record(self, plan: ProjectPlan) -> VersionRecord:
        controls = [
            VersionControl(
                served.control.from_name,
                served.weights_name,
                served.weights.fingerprint,
                served.weights.image_size,
                {label.label: label.threshold for label in served.served_labels},
            )
            for served in plan.controls
        ]
        return VersionRecord(plan.model_version, time.time(), self._settings.model_iou_threshold, controls)

    def _forget_oldest(self) -> None:
        files = list(self._folder.glob("*.json"))
        if len(files) > _MOST:
            for path in sorted(files, key=lambda path: path.stat().st_mtime)[: len(files) - _MOST]:
                path.unlink(missing_ok=True)
