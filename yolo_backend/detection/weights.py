"""Weights: where their file is, whether it looks like one, and its fingerprint."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from pathlib import Path

from yolo_backend.errors import UserError
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

DEMO = "demo"
_DEMO_FILE = Path(__file__).parent.parent / "demo" / "demo.pt"
_SUFFIXES = (".pt", ".onnx")
_MIN_ONNX_BYTES = 128


class WeightsError(UserError):
    """Weights that can't be had or used; the message says what was tried and what to do."""


def find_weights(name: str, model_root: Path, *, may_download: bool = False) -> Path:
    """The file of these weights: `demo`, a file of `model_root`, or an Ultralytics release, downloaded once.

    `name` is a bare file name, and only what the operator named may be downloaded: a .pt file is code, and anyone who
    edits a labeling config can write a `model_path`. Raises WeightsError.
    """
    if name == DEMO:
        return _check_file(_DEMO_FILE)
    if Path(name).name != name or "\\" in name or Path(name).suffix not in _SUFFIXES:
        raise WeightsError(
            f'"{name}" is not the name of weights: expected {DEMO}, or a file name in MODEL_ROOT ending in .pt or .onnx'
        )
    path = model_root / name
    if not path.is_file():
        if not may_download:
            raise WeightsError(f"Weights {name} are not in {model_root.resolve()}: put the file there")
        _download(name, path)
    return _check_file(path)


def file_fingerprint(path: Path) -> str:
    """The SHA-256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, path: Path) -> None:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    missing = f"Weights {name} are not in {path.parent.resolve()}"
    if name not in GITHUB_ASSETS_NAMES:
        raise WeightsError(f"{missing}, and it is no name of an Ultralytics release: put the file there, or use `demo`")
    log.info("%s: downloading the Ultralytics release", missing)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        attempt_download_asset(path.resolve())
    except Exception as error:  # Ultralytics raises ConnectionError, OSError, RuntimeError, ...
        log.debug("the download failed", exc_info=True)
        raise WeightsError(_download_failed(missing, first_line(error))) from None
    if not path.is_file():
        raise WeightsError(_download_failed(missing, "no file came"))


def _download_failed(missing: str, reason: str) -> str:
    return f"{missing}, and downloading the Ultralytics release failed ({reason}): put the file there, or use `demo`"


def _check_file(path: Path) -> Path:
    try:
        looks_right = zipfile.is_zipfile(path) if path.suffix == ".pt" else path.stat().st_size >= _MIN_ONNX_BYTES
    except OSError as error:
        raise WeightsError(f"Weights {path} can't be read: {error.strerror}") from None
    if not looks_right:
        raise WeightsError(f"{path} is not a {path.suffix} file of weights: it is broken, or only half downloaded")
    return path
