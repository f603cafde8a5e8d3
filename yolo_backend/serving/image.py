"""One image to what the weights find in it: remembered, or fetched, decoded and detected."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from yolo_backend import metrics
from yolo_backend.addresses import is_same_origin, redact
from yolo_backend.cores import usable_cores
from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.detection.detector import BULK, AbandonedError, DetectorError
from yolo_backend.detection.pool import ModelPool
from yolo_backend.detection.remembered import ImageDetections, RememberedDetections
from yolo_backend.detection.views import Shown, show, view_for
from yolo_backend.detection.weights import WeightsError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.decode import DecodedImage, decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import Fetched, ImageFetcher
from yolo_backend.images.identity import Identities, Identity, identity_key, is_lasting
from yolo_backend.images.line import Line
from yolo_backend.images.sources import Inline, Remote, Source, Upload, resolve_source
from yolo_backend.images.uploads import ProjectUploads
from yolo_backend.images.versions import Version
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.plans import ServedControl
from yolo_backend.messages import first_line
from yolo_backend.settings import Settings

log = logging.getLogger(__name__)

ABANDONED = "nobody waits for this task any more"
_LOOK_FOR_CLIENT_S = 0.25
_IDENTITIES_SHARE = 0.2  # of the memory; the rest is for detections, which are longer

IsAbandoned = Callable[[], bool]


class ImageFailedError(Exception):
    """Why nothing was found in an image, be it the image's fault or not.

    `is_passing` says that Label Studio is away, so that another try may succeed.
    """

    def __init__(self, kind: FailureKind, reason: str, address: str | None = None, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.address = address
        self.is_passing = is_passing


@dataclass(frozen=True)
class ImageReference:
    """An image as a task names it: the value that the task has for it, and for whom that value is read."""

    value: Any
    task_id: int | None
    studio: Studio | None
    uploads: ProjectUploads | None

    @property
    def key(self) -> bytes:
        """By what the image is known again, without asking anybody."""
        return identity_key(
            self.value, self.studio, self.studio.known_outside_url if self.studio else None, self.uploads
        )

    def source(self, local_files_root: Path | None) -> Source:
        """Where the image's bytes are. Raises ImageError."""
        if self.studio is None:
            return resolve_source(self.value, self.task_id, None, local_files_root)
        return resolve_source(
            self.value,
            self.task_id,
            self.studio.url,
            local_files_root,
            self.studio.outside_url,
            uploads=self.uploads,
        )


@dataclass(frozen=True)
class Caller:
    """Who waits for a task, and how urgently; they have gone once the line is hung up."""

    priority: int
    line: Line | None

    @property
    def is_abandoned(self) -> IsAbandoned | None:
        """Says whether they have gone; None if nobody should look."""
        line = self.line
        if line is None or self.priority == BULK:  # nobody hangs up on bulk work, and looking costs 4 wake-ups a second
            return None
        return lambda: line.is_hung_up

    def check(self) -> None:
        """Raises AbandonedError if nobody waits any more."""
        if self.is_abandoned and self.is_abandoned():
            raise AbandonedError(ABANDONED)

    def check_line(self) -> None:
        """Raises AbandonedError if the line was hung up: what went wrong then is nobody's fault."""
        if self.line is not None and self.line.is_hung_up:
            raise AbandonedError(ABANDONED)


@dataclass(frozen=True)
class _NewImage:
    """An image that nothing is remembered of: its bytes, and by what to know it again."""

    key: bytes
    identity: Identity
    content: bytes


class ImageDetector:
    """Finds in images what the weights of controls find; safe to share between threads."""

    def __init__(self, settings: Settings, pool: ModelPool, connections: int) -> None:
        self._settings = settings
        self._pool = pool
        self._fetcher = ImageFetcher(
            timeout_s=settings.image_timeout_s,
            max_bytes=int(settings.max_image_megabytes * 1e6),
            connections=connections,
            allowed_hosts=settings.allowed_image_hosts,
        )
        max_bytes = settings.cache_megabytes * 1e6
        self._identities = Identities(max_bytes * _IDENTITIES_SHARE)
        self._remembered = RememberedDetections(max_bytes * (1 - _IDENTITIES_SHARE))
        # A decoded photograph is large, so there are only as many at a time as cores; people's are counted apart.
        self._decoding = [threading.BoundedSemaphore(usable_cores()) for _ in range(2)]

    def find(self, image: ImageReference, controls: Sequence[ServedControl], caller: Caller) -> ImageDetections:
        """What the weights of these controls find in an image; from memory, if they have seen it before.

        Raises ImageFailedError, and AbandonedError or HungUpError once nobody waits any more.
        """
        try:
            return self._find(image, controls, caller)
        except ImageError as error:
            address = redact(image.value)
            raise ImageFailedError(error.kind, error.told_of(address), address) from None
        except WeightsError as error:
            raise ImageFailedError(FailureKind.WEIGHTS, str(error)) from None
        except DetectorError as error:
            raise ImageFailedError(FailureKind.DETECTOR, str(error), redact(image.value)) from None

    def recall(self, image: ImageReference, controls: Sequence[ServedControl]) -> ImageDetections | None:
        """The same at once, if it is remembered and lasting. Fetches nothing, and waits for nothing."""
        known = self._identities.find(image.key)
        if known is None or not known.is_lasting:
            return None
        return self._remembered.find(known.digest, *_asked_of_weights(controls))

    def fetch_and_decode(self, image: ImageReference) -> DecodedImage:
        """The whole image, for a person. Raises ImageError, StudioError, requests.Timeout."""
        return decode_image(self.fetch(image), self._settings.max_image_megapixels)

    def fetch(self, image: ImageReference) -> bytes:
        """The bytes of the image as its source has them. Raises ImageError, StudioError, requests.Timeout."""
        source = image.source(self._settings.local_files_document_root)
        return self._fetcher.fetch(source, image.studio, None).content

    def _find(self, image: ImageReference, controls: Sequence[ServedControl], caller: Caller) -> ImageDetections:
        thresholds, with_masks = _asked_of_weights(controls)
        met = self._recall_or_fetch(image, thresholds, with_masks, caller)
        if isinstance(met, ImageDetections):
            metrics.REMEMBERED_IMAGES.inc()
            return met
        # An image that has changed was fetched without loading them. Who decodes shouldn't wait for weights.
        self._load(thresholds, caller)
        weights = {served.weights.fingerprint: served.weights for served in controls}
        shown, size_wh, remark = self._show(met.content, weights, caller)
        if remark:
            log.warning("Task %s: %s: %s", image.task_id, redact(image.value), remark)
        key, identity = met.key, met.identity
        del met  # because other images need its memory
        detections = {}
        for fingerprint, threshold in thresholds.items():
            # If each box is costly, no boxes are made that nobody asked for.
            is_costly = weights[fingerprint].has_costly_boxes
            floor = threshold if is_costly else self._remembered.floor(threshold)
            images = shown.pop(fingerprint)
            if fingerprint in with_masks:
                images = images.asking_for_masks()
            found = self._detect(fingerprint, images, floor, caller)
            detections[fingerprint] = found
            self._remembered.keep(identity.digest, fingerprint, floor, found, size_wh)
        self._identities.keep(key, identity)
        return ImageDetections(detections, size_wh)

    def _recall_or_fetch(
        self, image: ImageReference, thresholds: Mapping[str, float], with_masks: Collection[str], caller: Caller
    ) -> ImageDetections | _NewImage:
        """What is remembered of an image, or its bytes. They are fetched only if the image isn't known without them."""
        key = image.key
        known = self._identities.find(key)
        found = self._remembered.find(known.digest, thresholds, with_masks) if known else None
        if known and found and known.is_lasting:
            return found
        source = image.source(self._settings.local_files_document_root)
        if found is None:
            self._load(thresholds, caller)  # before the image takes memory, and a slot that other weights could use
        caller.check()
        fetched = self._fetch(image, source, known.version if known and found else None, caller)
        if found and not fetched.content:
            return found
        identity = Identity(blake3(fetched.content).digest(), fetched.version, is_lasting(source, image.studio))
        found = self._remembered.find(identity.digest, thresholds, with_masks)
        if found is None:
            return _NewImage(key, identity, fetched.content)
        self._identities.keep(key, identity)
        return found

    def _fetch(self, image: ImageReference, source: Source, known: Version | None, caller: Caller) -> Fetched:
        studio = image.studio
        try:
            if isinstance(source, Inline):
                return self._fetcher.fetch(source, studio, known, caller.line)
            with metrics.FETCH_SECONDS.time():
                return self._fetcher.fetch(source, studio, known, caller.line)
        except (ImageError, StudioError) as error:
            caller.check_line()  # before we ask whether Label Studio is there
            # An upload's fault may be the file's or Label Studio's. Whether Label Studio is there is asked once in 2 s
            # at most.
            remote = source.remote if isinstance(source, Upload) else source
            is_passing = (
                studio is not None
                and isinstance(remote, Remote)
                and is_same_origin(remote.url, studio.url)
                and studio.is_unreachable()
            )
            address = redact(image.value) if isinstance(error, ImageError) else None
            raise ImageFailedError(error.kind, str(error), address, is_passing=is_passing) from None

    def _load(self, fingerprints: Iterable[str], caller: Caller) -> None:
        for fingerprint in fingerprints:
            self._pool.load(fingerprint, caller.is_abandoned)

    def _show(
        self, content: bytes, weights: Mapping[str, WeightsInfo], caller: Caller
    ) -> tuple[dict[str, Shown], tuple[int, int], str]:
        """What each of the weights is shown of the image, by their fingerprint, its size (width, height), a remark."""
        with self._slot_to_decode(caller), metrics.DECODE_SECONDS.time():
            image = decode_image(content, self._settings.max_image_megapixels, self._enough_px(weights.values()))
            shown = {
                fingerprint: show(
                    view_for(info),
                    image.pixels,
                    image.size_wh,
                    partial(self._pool.letterbox, fingerprint, is_abandoned=caller.is_abandoned),
                )
                for fingerprint, info in weights.items()
            }
            return shown, image.size_wh, image.remark

    @contextmanager
    def _slot_to_decode(self, caller: Caller) -> Iterator[None]:
        """One of a few. Raises AbandonedError if nobody waits any more."""
        slots = self._decoding[caller.priority]
        while not slots.acquire(timeout=_LOOK_FOR_CLIENT_S if caller.is_abandoned else None):
            caller.check()
        try:
            caller.check()
            yield
        finally:
            slots.release()

    def _enough_px(self, weights: Iterable[WeightsInfo]) -> int | None:
        """How long the longer side of a decoded image has to be, if it may be decoded smaller; else None."""
        if self._settings.decode == "full":
            return None
        wanted = [view_for(each).enough_px(each) for each in weights]
        return None if None in wanted else max(filter(None, wanted))

    def _detect(self, fingerprint: str, shown: Shown, threshold: float, caller: Caller) -> Detections:
        try:
            found = self._pool.detect_all(fingerprint, shown.images, threshold, caller.priority, caller.is_abandoned)
        except (WeightsError, DetectorError, AbandonedError):
            raise
        except Exception as error:  # whatever the model raises; the detector has logged it
            raise DetectorError(f"the model failed on the image: {first_line(error)}") from None
        return shown.merge(found)


def _asked_of_weights(controls: Sequence[ServedControl]) -> tuple[dict[str, float], set[str]]:
    """The lowest threshold of each of the weights, by their fingerprint, and those that masks are asked of."""
    thresholds: dict[str, float] = {}
    with_masks: set[str] = set()
    for served in controls:
        lowest = served.label_map.lowest_threshold
        fingerprint = served.weights.fingerprint
        thresholds[fingerprint] = min(lowest, thresholds.get(fingerprint, 1.0))
        if served.wants_masks:
            with_masks.add(fingerprint)
    return thresholds, with_masks
