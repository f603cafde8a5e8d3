"""Label Studio's uploads on its disk: which of them are read there, and whether the folder can be read."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from yolo_backend.images.local_files import reason_of
from yolo_backend.messages import Trouble

# Label Studio puts random digits before a name, so a new file has a new name. No file is written twice.
UPLOAD = re.compile(r"/data/upload/([0-9]+)/([0-9a-f]{8}-[^/?#]+)")
_PROJECT_ID = re.compile(r"[1-9][0-9]{0,18}")
_PLAIN_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]+")
_FOLDER = "upload"
_BESIDE_MEDIA = {".env", "label_studio.sqlite3"}  # the secret key, and the database where it is SQLite
_LOOK_IS_FRESH_S = 2.0
_LOOK_TIMEOUT_S = 5.0
_NAME_IT = "name the folder that holds upload/, in Label Studio's data folder it is media/"


@dataclass(frozen=True)
class ProjectUploads:
    """The uploads of one project on the disk: the files `<media_root>/upload/<project>/<8 hex digits>-<name>`.

    Who has a project predicted may see its uploads. Who may see those of another project, only Label Studio knows. So a
    file is read here for its own project only.
    """

    media_root: Path
    project: str

    def may_mean(self, value: str) -> bool:
        """Returns True if a task's value may mean one of them. Other spellings are never read here."""
        return f"/data/upload/{self.project}/" in value

    def name_of(self, path: str) -> str | None:
        """The file below `media_root` that a quoted path below Label Studio's address means; None if it means none."""
        found = UPLOAD.fullmatch(path)
        if found is None or found[1] != self.project:
            return None
        try:
            name = unquote(found[2], errors="strict")
        except UnicodeDecodeError:
            return None
        return f"{_FOLDER}/{self.project}/{name}" if _PLAIN_NAME.fullmatch(name) else None


def uploads_of(media_root: Path | None, project: str) -> ProjectUploads | None:
    """The uploads of the project with this id; None if there is no folder, or if this is no id."""
    if media_root is None or not _PROJECT_ID.fullmatch(project):
        return None
    return ProjectUploads(media_root, project)


def look_for_uploads(media_root: Path) -> Trouble | None:
    """Why no uploads can be read in this folder, and what to do; None if nothing speaks against it.

    It may hold none yet; that trouble doesn't last.
    """
    folder, shown = media_root / _FOLDER, _shown(media_root)
    try:
        with os.scandir(media_root):  # it is opened, as for each upload, and not listed
            pass
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            return _without_uploads(media_root, shown)
        if stat.S_ISLNK(mode):
            what = f"{_FOLDER}/ in {shown} is a symbolic link, which isn't followed"
            return Trouble(what, "make a folder there, and mount the link's target on it", lasts=True)
        with os.scandir(folder):
            os.stat(f"{folder}/.")  # noqa: PTH116  a Path has no dot; a folder may be listed, and not entered
    except (OSError, ValueError) as error:
        return _unreadable(error, shown)
    return None


class FolderOfUploads:
    """Says of a folder whether uploads can be read, without waiting for it: a folder on a network may hang for ever.

    One thread at a time looks at it, and its answer is reused for some seconds. For any thread.
    """

    def __init__(self, media_root: Path, look: Callable[[Path], Trouble | None] = look_for_uploads) -> None:
        self._media_root = media_root
        self._look = look
        self._lock = threading.Lock()
        self._look_result: Future[Trouble | None] | None = None
        self._asked_at = float("-inf")

    def trouble(self) -> Trouble | None:
        """What `look_for_uploads` says, or that the folder doesn't answer. Waits 5 s at most; not if it hangs."""
        with self._lock:
            now = time.monotonic()
            if self._look_result is None or (self._look_result.done() and now - self._asked_at > _LOOK_IS_FRESH_S):
                self._look_result, self._asked_at = Future(), now
                thread = threading.Thread(
                    target=self._run, args=[self._look_result], name="looks for uploads", daemon=True
                )
                thread.start()
            look_result, left_s = self._look_result, self._asked_at + _LOOK_TIMEOUT_S - now
        try:
            return look_result.result(max(0.0, left_s))
        except TimeoutError:
            what = f"{_shown(self._media_root)} doesn't answer within {_LOOK_TIMEOUT_S:g} s"
            return Trouble(what, "see to the network or the disk that it lies on", lasts=True)

    def _run(self, look_result: Future[Trouble | None]) -> None:
        try:
            look_result.set_result(self._look(self._media_root))
        except BaseException as error:  # whatever it is, nobody should wait for ever
            look_result.set_exception(error)


def _shown(media_root: Path) -> str:
    return f"LABEL_STUDIO_MEDIA_ROOT ({media_root})"


def _without_uploads(media_root: Path, shown: str) -> Trouble:
    if (media_root / "media").exists() and any((media_root / name).exists() for name in _BESIDE_MEDIA):
        fix = "name the media/ in it, and let the backend see no more than that (in a container, mount it alone)"
        return Trouble(f"{shown} is Label Studio's data folder, with its database and secret key", fix, lasts=True)
    fix = f"do nothing if Label Studio has no upload yet, else {_NAME_IT}"
    return Trouble(f"{shown} holds no {_FOLDER}/", fix)


def _unreadable(error: OSError | ValueError, shown: str) -> Trouble:
    reason = reason_of(error)
    if isinstance(error, PermissionError):
        number = f" {os.geteuid()}" if hasattr(os, "geteuid") else ""
        fix = f"let the backend's user{number} read that folder, those in it, and their files"
        return Trouble(f"{shown} can't be read ({reason})", fix, lasts=True)
    return Trouble(f"{shown} can't be read ({reason})", _NAME_IT, lasts=True)
