"""Makes tasks of images: uploaded or by address, in chunks, none twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import requests

from yolo_backend.label_studio.errors import (
    StudioError,
    StudioRefusedError,
    StudioRejectedError,
    StudioUnreachedError,
    explain,
)
from yolo_backend.label_studio.projects import MAX_UPLOAD_FILES, Project
from yolo_backend.label_studio.storing import MAX_IMPORT_BYTES, UnknownOutcomeError
from yolo_backend.labels.control import Control
from yolo_backend.registering.already_there import DIGEST_KEY, FILE_NAME_KEY, Candidate, ItemFileError, KnownItems
from yolo_backend.registering.items import RUN_IT_AGAIN, RUN_IT_AGAIN_LATER, Item, RegisterError, check_files

_CHUNK_TASKS = 500
_CHUNK_BYTES = 50_000_000  # of files, which are in memory twice


@dataclass(frozen=True)
class Registered:
    """Items that are tasks now, with the tasks' ids in the same order; or items that were left out, and why."""

    items: tuple[Item, ...] = ()
    task_ids: tuple[int, ...] = ()
    left_out: tuple[Item, ...] = ()
    because: str = ""


def register(
    project: Project, items: Sequence[Item], control: Control, *, dry_run: bool = False
) -> Iterator[Registered]:
    """Register what isn't there yet. Yields what became of each part.

    A file is known by the digest in a task's data, or by its name if it was uploaded on the page; an address is known
    by itself. With `dry_run` nothing is sent, and there are no ids. Raises RegisterError; LabelingConfigError if the
    config has no image; StudioError and requests.Timeout if Label Studio doesn't say which tasks there are.
    """
    check_files(item.image for item in items)
    control.data_of("")  # raises if no task can be made, before anything is sent
    registration = _Registration(project, control, dry_run)
    known = KnownItems(project, control)
    done = 0
    try:
        for part in registration.parts(items, known):
            done += len(part.items)
            yield part
    except (StudioError, requests.Timeout, ItemFileError) as error:
        # After what is wrong with a task, Label Studio repeats the whole task.
        reason = str(error) if isinstance(error, ItemFileError) else explain(error).split(" :: ")[0]
        if isinstance(error, UnknownOutcomeError):
            raise RegisterError(
                f"At least {done:,} of {len(items):,} were registered, then it failed: {reason}. "
                f"{RUN_IT_AGAIN_LATER} for the rest; if you run it sooner, some may be registered twice",
                RUN_IT_AGAIN_LATER,
            ) from None
        if not done:
            raise RegisterError(f"Nothing is registered: {reason}") from None
        raise RegisterError(
            f"{done:,} of {len(items):,} were registered, then it failed: {reason}. {RUN_IT_AGAIN} for the rest"
        ) from None


@dataclass(frozen=True)
class _Registration:
    """Where items are registered: in which project, for which control; nowhere with `dry_run`."""

    project: Project
    control: Control
    dry_run: bool

    def parts(self, items: Iterable[Item], known: KnownItems) -> Iterator[Registered]:
        """What became of the items: a chunk at a time, or one that is left out."""
        chunk: list[Candidate] = []
        for item in items:
            candidate = Candidate.read(item)
            if because := known.why_left_out(candidate):
                yield Registered(left_out=(item,), because=because)
                continue
            if _is_too_much([*chunk, candidate]):
                yield self._send(chunk)
                chunk = []
            chunk.append(candidate)
        if chunk:
            yield self._send(chunk)

    def _send(self, chunk: Sequence[Candidate]) -> Registered:
        items = tuple(candidate.item for candidate in chunk)
        if self.dry_run:
            return Registered(items)
        files = [(candidate.file_name, candidate.content) for candidate in chunk if candidate.file_name]
        uploads = self.project.upload(files) if files else []
        addresses = iter(upload.address for upload in uploads)
        tasks = [
            self._task(candidate, next(addresses) if candidate.file_name else str(candidate.item.image))
            for candidate in chunk
        ]
        try:
            return Registered(items, tuple(self.project.import_tasks(tasks)))
        except StudioRejectedError:
            # The person has to know this reason, and not that the files couldn't be deleted.
            with suppress(StudioError, requests.Timeout):
                self.project.delete_uploads([upload.id for upload in uploads])
            raise
        except (StudioRefusedError, StudioUnreachedError):
            raise
        except (StudioError, requests.Timeout) as error:
            raise UnknownOutcomeError(explain(error), ()) from None

    def _task(self, candidate: Candidate, address: str) -> dict[str, Any]:
        item = candidate.item
        data = {**self.control.data_of(address), **item.data}
        if candidate.file_name:
            data.setdefault(FILE_NAME_KEY, candidate.file_name)
        # Beside the data, because each field of these is a column of the Data Manager, and no person reads a digest.
        meta = {"meta": {DIGEST_KEY: candidate.known_by}} if candidate.file_name else {}
        # An empty list of annotations would do no harm, but a task holds only what it has.
        labels = {"predictions": list(item.predictions), "annotations": list(item.annotations)}
        return {"data": data, **meta, **{key: given for key, given in labels.items() if given}}


def _is_too_much(chunk: Sequence[Candidate]) -> bool:
    files = sum(candidate.file_name is not None for candidate in chunk)
    too_large = (
        sum(len(candidate.content) for candidate in chunk) > _CHUNK_BYTES
        or sum(candidate.json_bytes for candidate in chunk) > MAX_IMPORT_BYTES
    )
    return len(chunk) > _CHUNK_TASKS or files > MAX_UPLOAD_FILES or (too_large and len(chunk) > 1)
