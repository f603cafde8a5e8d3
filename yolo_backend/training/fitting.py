"""Fitting: Ultralytics' trainer with a loop of our own, which ends in time and asks nobody on the network."""

from __future__ import annotations

import gc
import io
import logging
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from ultralytics import __version__ as ultralytics_version
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from yolo_backend.cores import usable_cores
from yolo_backend.errors import UserError
from yolo_backend.files import write_whole
from yolo_backend.messages import first_line
from yolo_backend.training.classes import tells_sides
from yolo_backend.training.drawable import DrawableClasses
from yolo_backend.training.networks import Base, set_class_rows
from yolo_backend.training.pace import Budget, Looks, Pace
from yolo_backend.training.pictures import Pictures

log = logging.getLogger(__name__)

LEAST_IMAGE_SIZE = 64  # below, the coarsest level is a single place, of which one image alone has no mean

_BATCH = {"cpu": 8}  # small on a CPU: more steps in the same time
_BATCH_ON_GPU = 16
_RATE_OF_NEW = 0.003
_TOLD_EACH_S = 1.0
_MAX_CACHED_BYTES = 1 << 30  # of images, small as they are trained on
_LARGER = {"classify": 4}  # by how much images are larger in memory than the parts of them that are shown
_LOOKS = 4  # at the validation images
_LOOKS_TAKE = 0.08  # of the budget, at most
_SAVING_TAKES = 0.02
_LEAST_SCORE = 0.01  # as the gate has it; below, NMS of a young model takes seconds
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cannot allocate memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


class FittingError(UserError):
    """A fitting that can't go on; the message says what to do."""


@dataclass(frozen=True)
class FitSpec:
    """What is fitted: the data set's data.yaml, the base, and by class name the base's classes that it begins with.

    The candidate is written to `weights`. `steps` and `batch` are those of an earlier fitting that is to be made
    again; without them, `budget_s` says how many there are.
    """

    data: Path
    base: Base
    known: Mapping[str, tuple[int, ...]]
    weights: Path
    budget_s: float
    device: str = "cpu"
    image_size: int | None = None
    seed: int = 0
    batch: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class FitProgress:
    """How far it is: `score` is the last mAP50 on the validation images, by Ultralytics; of a classifier, the share of
    images whose likeliest class is theirs.
    """

    epoch: int
    epochs: int | None
    score: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class Fitted:
    """The candidate: an unfused .pt, and its SHA-256. With the same numbers it can be made again on this machine."""

    weights: Path
    fingerprint: str
    image_size: int
    steps: int
    epochs: int
    batch: int
    threads: int
    device: str
    score: float | None


def fit(spec: FitSpec, told: Callable[[FitProgress], None] = lambda _: None) -> Fitted:
    """Train, always from the base, within the budget, which begins with the first step and ends with the saving.

    Raises FittingError where the training diverges or memory doesn't suffice for a single image, OSError where the
    disk is full.
    """
    budget = Budget(spec.budget_s, counts_cpu=spec.device == "cpu")
    batch = spec.batch or _BATCH.get(spec.device, _BATCH_ON_GPU)
    while True:
        try:
            return _Fitting(replace(spec, batch=batch), budget, told).run()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        if batch == 1:
            raise FittingError(
                "Memory doesn't suffice to train on one image at a time: close other programs, or choose smaller "
                "images (--image-size) or a smaller base"
            )
        # From the beginning, with what is left of the budget: memory runs out in the first steps, if at all, and so
        # the manifest's numbers are those of all steps.
        batch //= 2
        log.warning("Memory ran out (%s): the batch is halved to %d", reason, batch)
        gc.collect()
        if spec.device.startswith("cuda"):
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if memory ran out, on a GPU or, as torch's CPU allocator says it, on a CPU."""
    return isinstance(error, MemoryError) or _MEMORY_WORDS.search(str(error)) is not None


class _Fitting:
    """One try, with one size of batch."""

    def __init__(self, spec: FitSpec, budget: Budget, told: Callable[[FitProgress], None]) -> None:
        self._spec, self.budget, self._told = spec, budget, told
        self._told_at = float("-inf")
        self._score: float | None = None
        self._drawable: DrawableClasses | None = None

    def run(self) -> Fitted:
        spec = self._spec
        data = yaml.safe_load(spec.data.read_text(encoding="utf-8"))
        names: Mapping[int, str] = data["names"]
        self._drawable = DrawableClasses(data["drawable"], len(names)) if "drawable" in data else None
        images = sum(path.is_file() for path in (spec.data.parent / data["train"]).rglob("*"))
        with TemporaryDirectory(prefix="fitting-", dir=spec.weights.parent) as folder:
            trainer: Any = _LOOPS[spec.base.kind](overrides=self._overrides(names, images, Path(folder)))
            threads = usable_cores()
            torch.set_num_threads(threads)  # after Ultralytics, which takes what it thinks best
            known = {number: spec.known[name] for number, name in names.items() if name in spec.known}
            trainer.model = trainer.get_model(
                cfg=deepcopy(spec.base.network.yaml), weights=spec.base.network, verbose=False
            )
            set_class_rows(trainer.model, spec.base.network, known)
            trainer.fitting = self
            trainer.train()
        pace: Pace = trainer.pace
        return Fitted(
            weights=spec.weights,
            fingerprint=_save(trainer.ema.ema, trainer.args, spec.weights),
            image_size=int(trainer.args.imgsz),
            steps=pace.done,
            epochs=pace.epoch,
            batch=int(trainer.batch_size),
            threads=threads,
            device=spec.device,
            score=self._score,
        )

    def loop(self, trainer: Any) -> Pace:
        """All steps. Raises FittingError."""
        pace = Pace(self.budget, len(trainer.train_loader), self._spec.steps)
        looks = Looks()
        trainer.optimizer.zero_grad()
        if self._drawable:
            self._drawable.hear(trainer.model)
        has_mosaic = True
        while not pace.is_over:
            for batch in trainer.train_loader:
                if pace.must_plan:
                    self._plan(trainer, pace, looks)
                    if pace.is_over:
                        break
                if has_mosaic and not pace.has_mosaic:
                    trainer._close_dataloader_mosaic()
                    has_mosaic = False
                if self._drawable:
                    self._drawable.now(batch["im_file"])
                _step(trainer, batch, pace)
                pace.stepped()
                if looks.is_due(pace):
                    self._look(trainer)
                self._tell(pace)
                if pace.is_over:
                    break
        self._tell(pace, now=True)
        return pace

    def _plan(self, trainer: Any, pace: Pace, looks: Looks) -> None:
        """Fix how many steps there are, and how many looks at the validation images these leave time for."""
        step_cost = pace.step_cost()
        # Without gradients, and so about a third of the work; then it is measured.
        guess = step_cost * len(trainer.test_loader.dataset) / trainer.batch_size / 2
        if guess * _LOOKS <= 2 * _LOOKS_TAKE and trainer.has_validation_images:
            before = self.budget.spent()
            self._look(trainer)
            cost = self.budget.spent() - before
            looks.count = min(_LOOKS - 1, int(_LOOKS_TAKE / max(cost, 1e-6)))
            pace.plan(step_cost, looks.count * cost + _SAVING_TAKES)
        else:
            pace.plan(step_cost, _SAVING_TAKES)

    def _look(self, trainer: Any) -> None:
        """See how good it is so far: told to whoever waits, and of no influence.

        The candidate is what the last step leaves. The best of several, chosen on the validation images, would look
        better on them than it is, and they are what the gate judges it by.
        """
        trainer.ema.update_attr(trainer.model, include=["yaml", "nc", "args", "names", "stride"])
        with _same_randomness():
            metrics, _ = trainer.validate()
        self._score = float(metrics[trainer.scored_by])

    def _tell(self, pace: Pace, *, now: bool = False) -> None:
        if now or time.monotonic() - self._told_at >= _TOLD_EACH_S:
            self._told_at = time.monotonic()
            # Where the time was up before the last step that was planned, this epoch was the last one.
            epochs, seconds_left = (pace.epoch, 0.0) if pace.is_over else (pace.epochs, pace.seconds_left)
            self._told(FitProgress(pace.epoch, epochs, self._score, seconds_left))

    def _overrides(self, names: Mapping[int, str], images: int, folder: Path) -> dict[str, Any]:
        spec = self._spec
        image_size = max(LEAST_IMAGE_SIZE, spec.image_size or spec.base.image_size)
        cached_bytes = images * 3 * image_size**2 * _LARGER.get(spec.base.kind, 1)
        return {
            "task": spec.base.kind,
            "model": "base.pt",  # only a name: the network is given
            "data": str(spec.data),
            "save_dir": str(folder),
            "device": spec.device,
            "imgsz": image_size,
            "batch": spec.batch,
            "nbs": spec.batch,  # a step for each batch
            "seed": spec.seed,
            "deterministic": True,
            "optimizer": "AdamW",
            "lr0": _highest_rate(names, spec.known),
            "momentum": 0.9,
            # float16 needs a test for which Ultralytics downloads weights.
            "amp": "bf16" if spec.device.startswith("cuda") and torch.cuda.is_bf16_supported() else False,
            "workers": 0,
            "cache": "ram" if cached_bytes <= _MAX_CACHED_BYTES else False,
            "cls_remap": False,
            # Of key points, nobody says which ones change places in a mirror.
            "fliplr": 0.0 if spec.base.kind == "pose" or tells_sides(names.values()) else 0.5,
            "conf": _LEAST_SCORE,
            **({"mosaic": 0.0} if self._drawable else {}),
            # Of classifiers: what they are shown otherwise takes more steps than are made to be of use (docs/journal).
            "auto_augment": None,
            "erasing": 0.0,
            "plots": False,
            "verbose": False,
        }


class _Quiet:
    """What of Ultralytics' trainer is done in another way.

    None of its classes may have `Trainer` in its name: to those it adds the loggers that the user's settings turn on.
    """

    scored_by = "metrics/mAP50(B)"
    fitting: _Fitting
    pace: Pace

    def __init__(self, overrides: dict[str, Any]) -> None:
        super().__init__(overrides=overrides)  # type: ignore[call-arg]
        self.callbacks: dict[str, list[Any]] = defaultdict(list)  # which the validator is given, too

    def run_callbacks(self, event: str) -> None:
        """Loggers, Ultralytics' platform and its analytics hang here: none of them runs."""

    def get_dataset(self) -> dict[str, Any]:
        """What Ultralytics reads of data.yaml, without the font that it would download."""
        file = Path(self.args.data)  # type: ignore[attr-defined]
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        folder = file.parent
        self.has_validation_images = any((folder / data["val"]).iterdir())
        # It needs some, though it doesn't look at them.
        val = data["val"] if self.has_validation_images else data["train"]
        return {
            "path": folder,
            "train": str(folder / data["train"]),
            "val": str(folder / val),
            "names": data["names"],
            "nc": len(data["names"]),
            "channels": 3,
            **({"kpt_shape": data["kpt_shape"]} if "kpt_shape" in data else {}),
        }

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Validation images aren't kept in memory: there is hardly time to look at them twice."""
        cache = self.args.cache  # type: ignore[attr-defined]
        self.args.cache = cache if mode == "train" else False  # type: ignore[attr-defined]
        try:
            return super().get_dataloader(dataset_path, batch_size, rank, mode)  # type: ignore[misc]
        finally:
            self.args.cache = cache  # type: ignore[attr-defined]

    def _do_train(self) -> None:
        with self.fitting.budget.uncounted():  # all images are looked at, and decoded if they fit into memory
            self._setup_train()  # type: ignore[attr-defined]
        self.epoch = 0
        self.pace = self.fitting.loop(self)
        self.ema.update_attr(self.model, include=["yaml", "nc", "args", "names", "stride"])  # type: ignore[attr-defined]


class _DetectionLoop(_Quiet, DetectionTrainer):  # type: ignore[misc]
    pass


class _OBBLoop(_Quiet, OBBTrainer):  # type: ignore[misc]
    pass


class _SegmentationLoop(_Quiet, SegmentationTrainer):  # type: ignore[misc]
    scored_by = "metrics/mAP50(M)"


class _PoseLoop(_Quiet, PoseTrainer):  # type: ignore[misc]
    scored_by = "metrics/mAP50(P)"


class _ClassificationLoop(_Quiet, ClassificationTrainer):  # type: ignore[misc]
    scored_by = "metrics/accuracy_top1"

    def build_dataset(self, img_path: str, mode: str = "train", batch: Any = None) -> Pictures:
        """Of the images in the folders of their classes."""
        return Pictures(img_path, self.args, is_trained_on=mode == "train", classes=list(self.data["names"].values()))


_LOOPS = {
    "detect": _DetectionLoop,
    "obb": _OBBLoop,
    "segment": _SegmentationLoop,
    "pose": _PoseLoop,
    "classify": _ClassificationLoop,
}


def _highest_rate(names: Mapping[int, str], known: Container[str]) -> float:
    """The learning rate: Ultralytics' own of AdamW if the base knows all labels, else a higher one.

    So labels that the base doesn't know are learnt in little time, and what it knows isn't lost (docs/journal).
    """
    if all(name in known for name in names.values()):
        return round(0.002 * 5 / (4 + len(names)), 6)
    return _RATE_OF_NEW


def _step(trainer: Any, batch: Any, pace: Pace) -> None:
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * pace.learning_rate
    criterion: Any = getattr(trainer.model, "criterion", None)
    if hasattr(criterion, "final_o2m"):  # with two branches: the one with many places for a box fades out
        criterion.o2m = criterion.final_o2m + (criterion.o2m_copy - criterion.final_o2m) * pace.many_to_one
        criterion.o2o = criterion.total - criterion.o2m
    with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.amp):
        loss, trainer.loss_items = trainer.model(trainer.preprocess_batch(batch))
        trainer.loss = loss.sum()
    if not trainer.loss.isfinite():
        raise FittingError(
            f"The training diverged in step {pace.done + 1}, where the loss is not a number: train again with another "
            "--seed, or another --base"
        )
    trainer.scaler.scale(trainer.loss).backward()
    trainer.optimizer_step()


@contextmanager
def _same_randomness() -> Iterator[None]:
    """What is drawn at random after this is what would have been drawn without it."""
    python, numbers, here = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(here)


def _save(network: Any, arguments: Any, path: Path) -> str:
    """Write the network as Ultralytics would, whole or not at all, without what is known of this machine; its digest.

    The same network gives the same bytes. Raises OSError.
    """
    said = _without_paths(vars(arguments)) | dict.fromkeys(("model", "data", "save_dir", "name"))
    network.criterion = None
    for name in ("shape", "anchors", "strides", "_end2end"):  # of the last look at the validation images
        vars(network.model[-1]).pop(name, None)
    network.args = said
    network.yaml = _without_paths(network.yaml)
    network.pt_path = path.name
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FittingError(
                f"The training diverged, {name} is not a number: train again with another --seed, or another --base"
            )
    half = network.cpu().half().to(memory_format=torch.contiguous_format)
    content = io.BytesIO()
    torch.save({"model": half, "train_args": said, "version": str(ultralytics_version)}, content)
    write_whole(path, content.getvalue())
    return sha256(content.getvalue()).hexdigest()


def _without_paths(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if not (isinstance(value, str) and "/" in value)}
