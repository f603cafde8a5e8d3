"""What the model alone can do: the limit that end-to-end speed is held against.

Each measurement is a child process of its own, so that nothing is kept, and nothing else runs meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.stack import ROOT
from yolo_backend.cores import usable_cores

BATCHES = (1, 2, 4, 8, 16)
# Ultralytics is told so before it is imported.
OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}


@dataclass(frozen=True)
class Way:
    """How ONNX Runtime is used: one stream whose session has all cores, or a stream for each core."""

    streams: int
    batch: int

    def __str__(self) -> str:
        streams = "1 stream on all cores" if self.streams == 1 else f"{self.streams} streams of one core"
        return f"{streams}, batches of {self.batch}"


@dataclass(frozen=True)
class Limits:
    """The limits of weights at one shape (height, width), in images per second, and one image's seconds.

    `onnx` is what Ultralytics exports, by the way it is used; `own_onnx` what the backend exports, in the best way.
    """

    shape: tuple[int, int]
    onnx: dict[str, float]
    best_way: Way
    own_onnx: float
    torch: dict[int, float]
    one_image_s: float

    @property
    def best_onnx(self) -> float:
        return max(self.onnx.values())

    @property
    def best_torch(self) -> float:
        return max(self.torch.values(), default=0.0)


class OwnExportAlone:
    """What the backend exports of weights, at an image size, without a backend."""

    def __init__(self, weights: Path, image_size: int, photos: Sequence[Path], folder: Path) -> None:
        """Export to `folder`; the photographs are of one shape, as many as the largest batch."""
        (folder / "own").mkdir(parents=True)
        self._weights = shutil.copy(weights, folder)
        self._tensors = str(folder / "tensors.npy")
        own = str(folder / "own" / "model.onnx")
        self._own_model = ask_child("speed_torch", ask="export_own", weights=self._weights, made=own)
        height, width = ask_child(
            "speed_torch",
            ask="letterbox",
            photos=[str(photo) for photo in photos[: max(BATCHES)]],
            image_size=image_size,
            tensors=self._tensors,
        )
        self._shape = (int(height), int(width))
        self._best_way = Way(1, 1)

    def find_best_way(self, for_s: float) -> None:
        """Try all ways twice, each for so long; `own_rate` is by the best of them from then on."""
        self._try_ways(self._own_model, for_s)

    def own_rate(self, for_s: float) -> float:
        """Images per second now, in the best way."""
        (rate,) = self._rates(self._own_model, [self._best_way], for_s)
        return rate

    def _try_ways(self, model: str, for_s: float) -> dict[Way, float]:
        ways = [Way(streams, batch) for streams in sorted({1, usable_cores()}) for batch in BATCHES]
        # What else the machine does meanwhile makes a way slower, and never faster.
        there, back = (self._rates(model, order, for_s) for order in (ways, ways[::-1]))
        tried = {way: max(rates) for way, *rates in zip(ways, there, back[::-1], strict=True)}
        self._best_way = max(tried, key=lambda way: tried[way])
        return tried

    def _rates(self, model: str, ways: Iterable[Way], for_s: float) -> list[float]:
        return list(
            ask_child(
                "speed_onnx",
                ask="rates",
                model=model,
                tensors=self._tensors,
                streams_and_batches=[(way.streams, way.batch) for way in ways],
                cores=usable_cores(),
                for_s=for_s,
            )
        )


class ModelAlone(OwnExportAlone):
    """Weights at an image size, without a backend: also as Ultralytics exports them, which the best way is found by."""

    def __init__(self, weights: Path, image_size: int, photos: Sequence[Path], folder: Path) -> None:
        """Export to `folder`; the photographs are of one shape, as many as the largest batch."""
        super().__init__(weights, image_size, photos, folder)
        # It lands beside the weights.
        self._model = ask_child("speed_torch", ask="export", weights=self._weights, image_size=image_size)

    def limits(self, for_s: float, *, with_torch: bool) -> Limits:
        """Try all ways twice, each for so long; `rates` are by the best of them from then on."""
        onnx = self._try_ways(self._model, for_s)
        torch = self._torch_rates(for_s) if with_torch else []
        return Limits(
            shape=self._shape,
            onnx={str(way): rate for way, rate in onnx.items()},
            best_way=self._best_way,
            own_onnx=max(self._rates(self._own_model, [self._best_way] * 2, for_s)),
            torch=dict(zip(BATCHES, torch, strict=False)),
            one_image_s=self.one_image_s(for_s),
        )

    def rates(self, for_s: float) -> tuple[float, float]:
        """Images per second now, in the best way: what Ultralytics exports, and what the backend exports."""
        (rate,) = self._rates(self._model, [self._best_way], for_s)
        return rate, self.own_rate(for_s)

    def one_image_s(self, for_s: float) -> float:
        """The median time of one image now, on one core or on all: what is faster."""
        return min(statistics.median(self._latencies(cores, for_s)) for cores in {1, usable_cores()})

    def _latencies(self, cores: int, for_s: float) -> list[float]:
        return list(
            ask_child("speed_onnx", ask="latencies", model=self._model, tensors=self._tensors, cores=cores, for_s=for_s)
        )

    def _torch_rates(self, for_s: float) -> list[float]:
        return list(
            ask_child(
                "speed_torch", ask="rates", weights=self._weights, tensors=self._tensors, batches=BATCHES, for_s=for_s
            )
        )


def ask_child(module: str, **question: Any) -> Any:
    """What the last line of a new process says."""
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(question)]
    environment = {**os.environ, **OFFLINE}
    child = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(child.stdout.splitlines()[-1])
