"""Weights: where their file is, whether it looks like one, and its fingerprint, by which they are known."""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from yolo_backend.detection.contents import content_problem
from yolo_backend.detection.naming import DEMO, RELEASES, missing_problem, name_problem, shorten
from yolo_backend.detection.record import RECORD, read_record
from yolo_backend.errors import UserError
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

_DEMO_FILE = Path(__file__).parent.parent / "demo" / "demo.pt"
_ABANDONED_AFTER_S = 3600.0
_OTHER_KINDS = r"^(sam|mobile|rtdetr|yolo_nas)|-(sem|depth|reid|grayscale)"


class WeightsError(UserError):
    """Weights that can't be had or used; the message says what was tried and what to do."""


class DownloadError(WeightsError):
    """A release that can't be downloaded now; perhaps it can later."""


class WeightsFileError(WeightsError):
    """A file of weights that can't be used; where it is, adds whoever knows its path."""


@dataclass(frozen=True)
class WeightsFolder:
    """Where weights lie: MODEL_ROOT, into which those of a few names may be downloaded."""

    root: Path
    downloaded: tuple[str, ...] = ()

    def find(self, name: str) -> Path:
        """The file of these weights, as `find_weights` finds it. Raises WeightsError."""
        return find_weights(name, self.root, may_download=name in self.downloaded)

    def is_to_be_downloaded(self, name: str) -> bool:
        """Returns True if these weights are a release of Ultralytics that may be downloaded, and aren't here yet."""
        return name in self.downloaded and name in RELEASES and not os.path.lexists(self.root / name)

    def missing(self, name: str) -> str | None:
        """That there are no such weights, and what to do, where it is seen at a glance: without torch or network."""
        if name == DEMO:
            return None
        may_download = name in self.downloaded
        if problem := name_problem(name, self.root, may_download=may_download):
            return problem
        is_of_ultralytics = name in RELEASES or re.search(_OTHER_KINDS, name)
        if os.path.lexists(self.root / name) or (may_download and is_of_ultralytics):
            return None
        return missing_problem(name, self.root, may_download=may_download)


class WeightsReplacedError(WeightsError):
    """The file isn't the one any more that was asked for."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "These weights were replaced by others meanwhile: ask again")


Signature = tuple[int, ...]
"""By what a file is seen to be another one, written to, or given other rights: device, inode, size, times in ns."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights as it was when it was read: whoever reads it again may find another `fingerprint`.

    `thresholds` are those that a trained file holds, by class name.
    """

    name: str
    path: Path
    signature: Signature
    fingerprint: str
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def is_unchanged(self) -> bool:
        """Does it lie there still, as it was?"""
        try:
            return signature_of(self.path) == self.signature
        except OSError:
            return False


def find_weights(name: str, model_root: Path, *, may_download: bool = False) -> Path:
    """The file of these weights: `demo`, a file of `model_root`, or an Ultralytics release, downloaded once.

    `name` is a bare file name, and only what the operator named may be downloaded: a .pt file is code, and anyone who
    edits a labeling config can write a `model_path`. Raises WeightsError.
    """
    if name == DEMO:
        return check_file(_DEMO_FILE)
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
    return check_file(path)


def signature_of(path: Path) -> Signature:
    """How the file is told from another one, or from itself after a change. Raises OSError."""
    seen = path.stat()
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def read_weights_file(name: str, path: Path) -> WeightsFile:
    """The file as it is now. Raises WeightsError where it can't be read, or changes while it is."""
    try:
        signature = signature_of(path)
        fingerprint = file_fingerprint(path)
        thresholds = read_thresholds(path)
        if signature_of(path) != signature:
            raise WeightsReplacedError(f"Weights {shorten(name)} are being written: ask again")
    except OSError as error:
        raise WeightsError(_unreadable(path, error)) from None
    return WeightsFile(name, path, signature, fingerprint, thresholds)


def read_thresholds(path: Path) -> Mapping[str, float]:
    """The thresholds that a trained file holds, by class name; none for others. Raises WeightsError, OSError."""
    try:
        record = read_record(path)
    except ValueError as error:
        raise WeightsError(
            f"Weights {shorten(path.name)} hold a {RECORD} that can't be read ({first_line(error)}): promote the run "
            "again, or take a copy of them"
        ) from None
    return record.thresholds if record else {}


def file_fingerprint(path: Path) -> str:
    """The SHA-256 of the file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_publishable(path: Path, name: str, root: Path) -> None:
    """Can this file serve as `name` in MODEL_ROOT, as far as it is seen without opening it? Raises WeightsError."""
    if name == DEMO:
        raise WeightsError(f"The weights `{DEMO}` come with the backend: set MODEL_NAME to a file of MODEL_ROOT")
    if problem := name_problem(name, root, may_download=False):
        raise WeightsError(problem)
    if path.suffix != Path(name).suffix:
        raise WeightsError(f"{shorten(path.name)} can't be published as {shorten(name)}: their endings differ")
    if not os.path.lexists(path):
        raise WeightsError(f"There is no file {shorten(str(path))} to be published as {shorten(name)}")
    check_file(path)


def put_weights(path: Path, name: str, root: Path, setting: str = "MODEL_ROOT") -> str:
    """Copy a finished file of weights to `name` in MODEL_ROOT, whole or not at all; returns its fingerprint.

    `setting` is what names another folder. Servers that have weights of this name in use switch to it by themselves.
    Raises WeightsError, and has changed nothing then.
    """
    check_publishable(path, name, root)
    making = root / f".{name}.{secrets.token_hex(4)}"  # no name of weights
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(name, root)
        with path.open("rb") as source, making.open("xb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        fingerprint = file_fingerprint(making)
        making.replace(root / name)
    except OSError as error:
        raise WeightsError(
            f"Weights can't be published as {shorten(name)} ({error.strerror}): let the server's user write into "
            f"{setting}, and have room there ({root})"
        ) from None
    finally:
        with suppress(OSError):  # such as of a folder that is none, which is told already
            making.unlink(missing_ok=True)
    return fingerprint


def _remove_abandoned(name: str, root: Path) -> None:
    """What was being copied when a process was killed."""
    for path in root.glob(f".{glob.escape(name)}.????????"):
        if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
            path.unlink(missing_ok=True)


def _download(name: str, path: Path) -> bool:
    """Download the release of this name; False where Ultralytics has none. Raises WeightsError, DownloadError."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        return False
    if name not in RELEASES and re.search(_OTHER_KINDS, name):
        raise WeightsError(
            f"Weights {name} of Ultralytics are of a kind that isn't served: name a YOLO for detection, segmentation, "
            "pose, OBB or classification, such as yolo26n.pt"
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
        raise DownloadError(
            f"Weights {name} are not in MODEL_ROOT, and downloading the Ultralytics release failed ({reason}): put the "
            f"file there, or use `{DEMO}` (MODEL_ROOT={folder})"
        )
    return True


def check_file(path: Path) -> Path:
    """The path, if the file is there and worth a try. Raises WeightsError."""
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
    remedy = "check its disk for errors"
    if isinstance(error, PermissionError):
        user = f"the server's user ({os.geteuid()})" if hasattr(os, "geteuid") else "the server's user"
        remedy = f"let {user} read the file and its folder, such as by chmod -R a+rX {path.parent}"
    elif error.errno in {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR}:
        remedy = "give it another name, in a folder of its own"
    return f"Weights {shorten(path.name)} can't be read ({error.strerror}): {remedy}"
