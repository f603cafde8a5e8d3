"""Classes that can't be drawn on an image: nobody said that they are absent there, so the loss leaves them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

_ABSENT = -30.0  # a score of 0


class DrawableClasses:
    """Lets the loss count a class only in images on which it can be drawn.

    `drawable` goes by the names of image files, without their ending; of other images all classes count. Such images
    may not be put together into one, as mosaics are.
    """

    def __init__(self, drawable: Mapping[str, Sequence[int]], classes: int) -> None:
        self._drawable, self._classes = drawable, classes
        self._counts: torch.Tensor | None = None

    def hear(self, model: Any) -> None:
        """Let the loss of this model heed it; a model with two branches has two of them."""
        if getattr(model, "criterion", None) is None:
            model.criterion = model.init_criterion()
        criterion = model.criterion
        for part in (getattr(criterion, "one2many", criterion), getattr(criterion, "one2one", criterion)):
            if not isinstance(part.bce, _Heeding):
                part.bce = _Heeding(part.bce, self)
                if hasattr(part, "bcedice_loss"):  # of masks: what each pixel shows
                    part.bcedice_loss = _HeedingByPixel(part.bcedice_loss, self)

    def now(self, files: Sequence[str]) -> None:
        """These are the images of the next step, in their order."""
        counts = torch.ones(len(files), 1, self._classes)
        for number, file in enumerate(files):
            if (ids := self._drawable.get(Path(file).stem)) is not None:
                counts[number] = 0.0
                counts[number, 0, list(ids)] = 1.0
        self._counts = counts

    def absent_where_uncounted(self, logits: torch.Tensor) -> torch.Tensor:
        """Of (images, classes, height, width) what counts; the rest says that nothing is there, as the targets do."""
        if self._counts is None:
            return logits
        counts = self._counts.to(logits.device).transpose(1, 2)[..., None] > 0
        return torch.where(counts, logits, torch.full_like(logits, _ABSENT))

    def counted(self, loss: torch.Tensor) -> torch.Tensor:
        """Of (images, places, classes) what counts; the rest is 0."""
        return loss if self._counts is None else loss * self._counts.to(loss)


class _Heeding(torch.nn.Module):
    """A loss by image, place and class, of which some doesn't count."""

    def __init__(self, loss: torch.nn.Module, drawable: DrawableClasses) -> None:
        super().__init__()
        self._loss, self._drawable = loss, drawable

    def forward(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self._loss(scores, targets)
        return self._drawable.counted(loss)


class _HeedingByPixel(torch.nn.Module):
    """A loss by image, class and pixel, of which some doesn't count."""

    def __init__(self, loss: torch.nn.Module, drawable: DrawableClasses) -> None:
        super().__init__()
        self._loss, self._drawable = loss, drawable

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self._loss(self._drawable.absent_where_uncounted(logits), targets)
        return loss
