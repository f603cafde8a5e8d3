"""Exported models, each made once: kept by what they were made of, and checked before they are used."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from yolo_backend.child_processes import python_command, python_environment
from yolo_backend.detection.weights import file_fingerprint

log = logging.getLogger(__name__)

FORMATS = {"onnx": "onnx", "openvino": "onnx", "tensorrt": "engine"}
EXPORTED_BATCH = 16  # the largest, where a format has to be told
_SUFFIXES = {"onnx": ".onnx", "engine": ".engine"}
_PACKAGES = {
    "onnx": ("ultralytics-opencv-headless", "torch", "onnx", "onnxslim"),
    "engine": ("ultralytics-opencv-headless", "torch", "onnx", "tensorrt"),
}
_RECIPE = 2  # of the exporter; another number for one that makes other files
_TIMEOUT_S = 540.0  # loading has ten minutes
_KEPT = 20


class ExportError(Exception):
    """An export that couldn't be made; the message says why, in one line."""


@dataclass(frozen=True)
class ExportOptions:
    """What decides about an export: the weights' fingerprint, and what is made of them for which device.

    `max_detections` is what weights without NMS give at most.
    """

    fingerprint: str
    format: str
    device: str
    max_detections: int

    @property
    def key(self) -> str:
        """The same for the same export, by the same versions of what makes it."""
        packages = {package: version(package) for package in _PACKAGES[self.format]}
        ingredients = {**asdict(self), **packages, "device": _name_of(self.device), "recipe": _RECIPE}
        return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


class Exports:
    """The exports of a folder, for any number of processes. A file's name says what it is of and what it holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()  # the exporter has a working folder of its own

    def find(self, options: ExportOptions) -> Path | None:
        """The export, if it is there and whole; a broken one is removed."""
        for path in self._folder.glob(f"*-{options.key}-*{_SUFFIXES[options.format]}"):
            if path.stem.endswith(f"-{file_fingerprint(path)[:16]}"):
                with suppress(OSError):  # a folder that is only to be read from
                    path.touch()
                return path
            log.warning("The export %s is broken: it is made anew", path.name)
            path.unlink(missing_ok=True)
        return None

    def hand_over(self, options: ExportOptions, to: ExportOptions) -> None:
        """Let an export, if there is one, be that of other weights, which have the same network. Raises OSError."""
        if path := self.find(options):
            path.rename(path.with_name(path.name.replace(options.key, to.key)))

    def make(self, weights: Path, options: ExportOptions) -> Path:
        """Export the weights, or wait for the process that does so already. Raises ExportError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{options.key}.lock", timeout=_TIMEOUT_S):
                return self.find(options) or self._make(weights, options)
        except OSError as error:  # also of the lock
            raise ExportError(f"MODEL_DIR: {error.strerror or error}: {self._folder}") from None

    def _make(self, weights: Path, options: ExportOptions) -> Path:
        log.info("%s: exporting to %s, once", weights.name, options.format)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="making-") as folder:
            made = Path(folder, f"model{_SUFFIXES[options.format]}")
            # The file may be replaced while the exporter starts, which takes seconds.
            own = Path(shutil.copy(weights, Path(folder, f"original{weights.suffix}")))
            if file_fingerprint(own) != options.fingerprint:
                raise ExportError("the weights were replaced by others meanwhile")
            _run_exporter(own, made, options)
            name = f"{weights.stem}-{options.key}-{file_fingerprint(made)[:16]}{made.suffix}"
            path = self._folder / name
            made.replace(path)
        log.info("%s: exported in %.0f s", path.name, time.monotonic() - began)
        self._remove_old()
        return path

    def _remove_old(self) -> None:
        """Of many exports, those not used for longest go, and what a process left behind that was ended meanwhile."""
        for folder in self._folder.glob("making-*"):
            if time.time() - folder.stat().st_mtime > 2 * _TIMEOUT_S:
                shutil.rmtree(folder, ignore_errors=True)
        exports = [path for path in self._folder.iterdir() if path.suffix in _SUFFIXES.values()]
        for path in sorted(exports, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            path.unlink(missing_ok=True)


def _run_exporter(weights: Path, made: Path, options: ExportOptions) -> None:
    # In a process of its own: exporting takes memory that a process doesn't give back, and may crash.
    command = [*python_command("yolo_backend.detection.exporting"), str(weights.resolve()), str(made)]
    command += [options.format, options.device, str(options.max_detections)]
    try:
        done = subprocess.run(  # noqa: S603  our own command line
            command,
            env=python_environment(),
            cwd=made.parent,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"exporting took longer than {_TIMEOUT_S:g} s") from None
    if done.returncode or not made.is_file():
        log.debug("The exporter said: %s%s", done.stdout, done.stderr)
        lines = done.stderr.strip().splitlines()
        raise ExportError(f"exporting failed: {lines[-1][:300] if lines else f'exit status {done.returncode}'}")


def _name_of(device: str) -> str:
    """What a GPU's own export is tied to: the kind of GPU."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)
