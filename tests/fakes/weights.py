"""Weights whose files say nothing, and whose models are a test's own."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import Detections, Letterboxed, WeightsInfo
from yolo_backend.detection.detector import Detecting
from yolo_backend.detection.pool import ModelPool, Tell
from yolo_backend.detection.weights import WeightsFile, read_weights_file


class FakeShelf:
    """A file of a few bytes for any name that is asked for, in its own folder; for a project's where one was put."""

    def __init__(self) -> None:
        self.makes = True
        self._lock = threading.Lock()
        self.folder = Path(tempfile.mkdtemp(prefix="weights-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def missing(self, name: str) -> str | None:
        return f"there is no {name}" if "/" in name and not (self.folder / name).exists() else None

    def put(self, name: str, content: str) -> None:
        """The weights of a project, as whoever promotes them puts them there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(content)
        path.with_suffix(".new").replace(path)

    def find(self, name: str) -> Path:
        path = self.folder / name
        with self._lock:  # a file that is seen while another thread writes it would be one that changes
            if self.makes and not path.exists():
                path.write_text(name)
        return path


def fake_catalog(load: Callable[[str], Detecting], shelf: FakeShelf | None = None, **options: Any) -> Catalog:
    """Weights of any name, with the models that `load` makes of it; options are those of the pool."""

    def load_file(file: WeightsFile, tell: Tell) -> Detecting:
        engine = load(file.name)
        engine.info = replace(engine.info, fingerprint=file.fingerprint, thresholds=file.thresholds)
        return engine

    return Catalog(shelf or FakeShelf(), ModelPool(load_file, **{"max_models": 1, "batch_size": 4} | options))


class Models:
    """A catalog and its pool, asked by names."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._shelf = FakeShelf()

    def info(self, name: str) -> WeightsInfo:
        return self.catalog.info(name)

    def wait_for_info(self, name: str, timeout_s: float) -> WeightsInfo:
        return self.catalog.wait_for_info(name, timeout_s)

    def load(self, name: str) -> None:
        self.catalog.pool.load(self._fingerprint(name))

    def letterbox(self, name: str, image: NDArray[np.uint8]) -> Letterboxed:
        return self.catalog.pool.letterbox(self._fingerprint(name), image)

    def detect(self, name: str, *args: Any) -> Detections:
        return self.catalog.pool.detect(self._fingerprint(name), *args)

    def detect_all(self, name: str, *args: Any) -> list[Detections]:
        return self.catalog.pool.detect_all(self._fingerprint(name), *args)

    def down_reason(self, name: str) -> str | None:
        return self.catalog.pool.down_reason(self._fingerprint(name))

    def close(self) -> None:
        self.catalog.close()

    def _fingerprint(self, name: str) -> str:
        file = read_weights_file(name, self._shelf.find(name))
        self.catalog.pool.serve(file)
        return file.fingerprint
