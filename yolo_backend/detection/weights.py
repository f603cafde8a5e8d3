"""Weights: where their file is, whether it looks like one, and its fingerprint."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from pathlib import Path

from yolo_backend.detection.contents import content_problem
from yolo_backend.detection.naming import DEMO, RELEASES, missing_problem, name_problem, shorten
from yolo_backend.errors import UserError
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

_DEMO_FILE = Path(__file__).parent.parent / "demo" / "demo.pt"
_OTHER_KINDS = r"^(sam|mobile|rtdetr|yolo_nas)|-(cls|sem|depth|reid|grayscale)"


class WeightsError(UserError):
    """Weights that can't be had or used; the message says what was tried and what to do."""


class WeightsFileError(WeightsError):
    """A file of weights that can't be used; where it is, adds whoever knows its path."""


def find_weights(name: str, model_root: Path, *, may_download: bool = False) -> Path:
    """The file of these weights: `demo`, a file of `model_root`, or an Ultralytics release, downloaded once.

    `name` is a bare file name, and only what the operator named may be downloaded: a .pt file is code, and anyone who
    edits a labeling config can write a `model_path`. Raises WeightsError.
    """
    if name == DEMO:
        return _check_file(_DEMO_FILE)
    if problem := name_problem(name, model_root, may_download=may_download):
        raise WeightsError(problem)
    path = model_root / name
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not may_download or path.is_symlink() or not _download(name, path):
            raise WeightsError(missing_problem(name, model_root, may_download=may_download)) from None
    except OSError as error:
        raise WeightsError(_unreadable(path, error)) from None
    return _check_file(path)


def file_fingerprint(path: Path) -> str:
    """The SHA-256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, path: Path) -> bool:
    """Download the release of this name; False where Ultralytics has none. Raises WeightsError."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        return False
    if name not in RELEASES and re.search(_OTHER_KINDS, name):
        raise WeightsError(
            f"Weights {name} of Ultralytics are of a kind that isn't served: name a YOLO for detection, segmentation, "
            "pose or OBB, such as yolo26n.pt"
        )
    folder = path.parent.resolve()
    log.info("Weights %s are not in %s: downloading the Ultralytics release", name, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        attempt_download_asset(path.resolve())
        reason = None if path.is_file() else "no file came"
    except Exception as error:  # Ultralytics raises ConnectionError, OSError, RuntimeError, ...
        log.debug("the download failed", exc_info=True)
        reason = shorten(first_line(error))
    if reason:
        raise WeightsError(
            f"Weights {name} are not in MODEL_ROOT, and downloading the Ultralytics release failed ({reason}): put the "
            f"file there, or use `{DEMO}` (MODEL_ROOT={folder})"
        )
    return True


def _check_file(path: Path) -> Path:
    """The path, if the file is worth a try. Raises WeightsError."""
    name = shorten(path.name)
    try:
        if not path.is_file():
            raise WeightsError(f"Weights {name} are a folder, not a file: name the file of weights itself ({path})")
        problem = content_problem(path)
    except OSError as error:
        raise WeightsError(_unreadable(path, error)) from None
    if problem:
        raise WeightsError(f"{name} {problem} ({path})")
    return path


def _unreadable(path: Path, error: OSError) -> str:
    remedy = "look whether its disk is whole"
    if isinstance(error, PermissionError):
        user = f"the server's user ({os.geteuid()})" if hasattr(os, "geteuid") else "the server's user"
        remedy = f"let {user} read the file and its folder, such as by chmod -R a+rX {path.parent}"
    elif error.errno in {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR}:
        remedy = "give it another name, in a folder of its own"
    return f"Weights {shorten(path.name)} can't be read ({error.strerror}): {remedy}"
