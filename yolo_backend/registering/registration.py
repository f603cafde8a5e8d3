"""Images to tasks of a project: uploaded or by address, in chunks, nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import requests

from yolo_backend.errors import UserError
from yolo_backend.label_studio.projects import MAX_UPLOAD_BYTES, MAX_UPLOAD_FILES, Project, stored_name, uploaded_name
from yolo_backend.label_studio.storing import UnknownOutcomeError, explain
from yolo_backend.label_studio.studio import StudioError, StudioRefusedError, StudioRejectedError, StudioUnreachedError
from yolo_backend.labels.control import Control
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.task_values import find_value
from yolo_backend.messages import shortened
from yolo_backend.protocol import Prediction
from yolo_backend.registering.finding import TAKEN_SUFFIXES, Image, readable

# Beside the image in the data of a task whose file was uploaded here.
DIGEST_KEY = "sha256"
# Why an item was left out.
IS_THERE = "registered already"
NAME_IS_THERE = "an uploaded file has this name"
IS_REPEATED = "the same as another of these"

_MAX_NAMES = 200
_CHUNK_TASKS = 500
_CHUNK_BYTES = 50_000_000  # of files, which are in memory, twice, and of data: addresses
_LOCAL_FILES = "/data/local-files/?d="


# An import without an answer may be stored still: who runs it again sooner sees no task of it, and sends it twice.
RUN_IT_AGAIN, RUN_IT_AGAIN_LATER = "Run it again", "Run it again after two minutes"


class RegisterError(UserError):
    """Not all could be registered; the message says why, how many were, and what to do, `again` when that is safe."""

    def __init__(self, message: str, again: str = RUN_IT_AGAIN) -> None:
        super().__init__(message)
        self.again = again


class _FileError(Exception):
    """A file that can't be read."""


@dataclass(frozen=True)
class Item:
    """What is to be a task: a file, which is uploaded, or an address; with more of the task's data, and its labels."""

    image: Image
    data: Mapping[str, Any] = field(default_factory=dict)
    predictions: Sequence[Prediction] = ()
    annotations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Registered:
    """Items that are tasks now, with their ids in the same order, or items that were left out, and why."""

    items: tuple[Item, ...] = ()
    task_ids: tuple[int, ...] = ()
    left_out: tuple[Item, ...] = ()
    because: str = ""


def register(
    project: Project, items: Sequence[Item], control: Control, *, dry_run: bool = False
) -> Iterator[Registered]:
    """Register what isn't there yet, and tell of each part what became of it.

    A file is known by the digest in a task's data, or by its name where it was uploaded on the page; an address by
    itself. With `dry_run` nothing is sent, and there are no ids. Raises RegisterError; LabelingConfigError where the
    config has no place for an image; StudioError and requests.Timeout where Label Studio doesn't tell what is there.
    """
    check_files(item.image for item in items)
    control.data_of("")  # raises where no task can be made, before anything is sent
    ledger = _Ledger(project, control)
    done = 0
    try:
        for part in _register(project, items, control, ledger, dry_run=dry_run):
            done += len(part.items)
            yield part
    except (StudioError, requests.Timeout, _FileError) as error:
        # Behind what is wrong with a task, Label Studio repeats all of it.
        reason = str(error) if isinstance(error, _FileError) else explain(error).split(" :: ")[0]
        if isinstance(error, UnknownOutcomeError):
            raise RegisterError(
                f"At least {done:,} of {len(items):,} were registered, then: {reason}. {RUN_IT_AGAIN_LATER}, and it "
                "goes on there: sooner, what Label Studio may be storing still would be there twice",
                RUN_IT_AGAIN_LATER,
            ) from None
        if not done:
            raise RegisterError(f"Nothing is registered: {reason}") from None
        raise RegisterError(
            f"{done:,} of {len(items):,} were registered, then: {reason}. {RUN_IT_AGAIN}, and it goes on there"
        ) from None


def check_files(images: Iterable[Image], *, suffixes: frozenset[str] = TAKEN_SUFFIXES) -> None:
    """Raises RegisterError for a file that Label Studio doesn't take, or that isn't there."""
    for file in images:
        if not isinstance(file, Path):
            continue
        if readable(file) != str(file):
            raise RegisterError(f"{readable(file)}: its name isn't text in UTF-8: rename it")
        if file.suffix.lower() not in suffixes:
            raise RegisterError(f"{file}: Label Studio takes no {file.suffix or 'such'} files: make it a PNG or JPEG")
        try:
            size_bytes = file.stat().st_size
        except OSError as error:
            raise RegisterError(f"{file} can't be read: {error.strerror}") from None
        if not 0 < size_bytes <= MAX_UPLOAD_BYTES:
            raise RegisterError(f"{file} has {size_bytes:,} bytes: Label Studio takes 1 to {MAX_UPLOAD_BYTES:,}")


def by_local_files(items: Iterable[Item], document_root: Path) -> list[Item]:
    """The items with their files by address, below the document root of Label Studio's Local Files as it is here.

    Raises RegisterError for a file that isn't below it.
    """
    root = document_root.resolve()

    def address(file: Path) -> str:
        try:
            return _LOCAL_FILES + quote(file.resolve().relative_to(root).as_posix())
        except ValueError:
            raise RegisterError(
                f"{file} isn't below {document_root}, from where Label Studio serves Local Files"
            ) from None

    return [replace(item, image=address(item.image)) if isinstance(item.image, Path) else item for item in items]


def choose_control(label_config: str, name: str | None, *, for_labels: bool) -> Control:
    """The control of this name, or the only one; where no labels come, any one of the only image.

    Raises LabelingConfigError.
    """
    controls = parse_labeling_config(label_config).controls
    names = shortened(", ".join(dict.fromkeys(control.from_name for control in controls)), _MAX_NAMES)
    if name is not None:
        found = [control for control in controls if control.from_name == name]
        if not found:
            raise LabelingConfigError(
                f'The labeling config has no control "{shortened(name)}" that is served, but {names}'
            )
        controls = tuple(found)
    if controls[0].labels_value:
        raise LabelingConfigError(
            f'"{controls[0].from_name}" has the labels that come with each task ({controls[0].labels_value}), which a '
            "task made here wouldn't have: import tasks that have them"
        )
    if name is None and len(controls) > 1 and (for_labels or len({control.value for control in controls}) > 1):
        raise LabelingConfigError(f"The labeling config has several controls: give --control, one of {names}")
    return controls[0]


@dataclass(frozen=True)
class _Candidate:
    """An item that may be registered, by what it is known again, and a file's content."""

    item: Item
    known_by: str
    content: bytes = b""

    @property
    def file_name(self) -> str | None:
        return self.item.image.name if isinstance(self.item.image, Path) else None

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.item.image, Path) else len(self.item.image)


class _Ledger:
    """What the project's tasks hold already, and what was given before."""

    def __init__(self, project: Project, control: Control) -> None:
        self._held: set[str] = set()
        self._names: set[str] = set()
        self._given: set[str] = set()
        for task in project.tasks(fields=["data"]):
            data = task["data"]
            values = find_value(data, control.value)
            addresses = [
                value for value in (values if isinstance(values, list) else [values]) if isinstance(value, str)
            ]
            self._held.update(map(_known_address, addresses))
            if digest := data.get(DIGEST_KEY):
                self._held.add(str(digest))
            else:
                self._names.update(name for address in addresses if (name := uploaded_name(address)))

    def why_left_out(self, candidate: _Candidate) -> str | None:
        """Why this one isn't to be registered, None where it is."""
        if candidate.known_by in self._held:
            return IS_THERE
        if candidate.known_by in self._given:
            return IS_REPEATED
        if candidate.file_name and stored_name(candidate.file_name) in self._names:
            return NAME_IS_THERE
        self._given.add(candidate.known_by)
        return None


def _register(
    project: Project, items: Iterable[Item], control: Control, ledger: _Ledger, *, dry_run: bool
) -> Iterator[Registered]:
    chunk: list[_Candidate] = []
    for item in items:
        candidate = _read(item)
        if because := ledger.why_left_out(candidate):
            yield Registered(left_out=(item,), because=because)
            continue
        if _is_too_much([*chunk, candidate]):
            yield _send(project, chunk, control, dry_run=dry_run)
            chunk = []
        chunk.append(candidate)
    if chunk:
        yield _send(project, chunk, control, dry_run=dry_run)


def _read(item: Item) -> _Candidate:
    if not isinstance(item.image, Path):
        return _Candidate(item, _known_address(item.image))
    try:
        content = item.image.read_bytes()
    except OSError as error:
        raise _FileError(f"{item.image} can't be read: {error.strerror}") from None
    return _Candidate(item, hashlib.sha256(content).hexdigest(), content)


def _is_too_much(chunk: Sequence[_Candidate]) -> bool:
    files = sum(candidate.file_name is not None for candidate in chunk)
    size_bytes = sum(candidate.size_bytes for candidate in chunk)
    too_large = size_bytes > _CHUNK_BYTES and len(chunk) > 1
    return len(chunk) > _CHUNK_TASKS or files > MAX_UPLOAD_FILES or too_large


def _send(project: Project, chunk: Sequence[_Candidate], control: Control, *, dry_run: bool) -> Registered:
    items = tuple(candidate.item for candidate in chunk)
    if dry_run:
        return Registered(items)
    files = [(candidate.file_name, candidate.content) for candidate in chunk if candidate.file_name]
    uploads = project.upload(files) if files else []
    addresses = iter(upload.address for upload in uploads)
    tasks = [
        _task(candidate, next(addresses) if candidate.file_name else str(candidate.item.image), control)
        for candidate in chunk
    ]
    try:
        return Registered(items, tuple(project.import_tasks(tasks)))
    except StudioRejectedError:
        # Its reason is what the person has to know, not that the files couldn't be deleted, too.
        with suppress(StudioError, requests.Timeout):
            project.delete_uploads([upload.id for upload in uploads])
        raise
    except (StudioRefusedError, StudioUnreachedError):
        raise
    except (StudioError, requests.Timeout) as error:
        raise UnknownOutcomeError(explain(error), ()) from None


def _task(candidate: _Candidate, address: str, control: Control) -> dict[str, Any]:
    item = candidate.item
    data = {**control.data_of(address), **item.data}
    if candidate.file_name:
        data[DIGEST_KEY] = candidate.known_by
    # Annotations that are an empty list would be none, too, but a task says only what it has.
    labels = {"predictions": list(item.predictions), "annotations": list(item.annotations)}
    return {"data": data, **{kind: given for kind, given in labels.items() if given}}


def _known_address(address: str) -> str:
    """An address as it is known again: Label Studio's storages write Local Files with its own address before."""
    _, is_local, path = address.partition(_LOCAL_FILES)
    return _LOCAL_FILES + unquote(path) if is_local else address
