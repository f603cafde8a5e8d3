"""The backend's speed on a GPU, beside Ultralytics' own `predict` on the same files: `python -m benchmarks.gpu`.

Ultralytics reads them from the disk, in batches and half precision; the backend fetches them by HTTP. A target that
isn't met is told; only an answer without its predictions makes it exit with 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed_client import IMAGE_SIZES, Asked, Client
from benchmarks.speed_limits import ask_child
from benchmarks.speed_photos import LARGE, MEDIUM, PHOTOS, WEIGHTS, PhotosMissingError, make_photos, photo_files
from benchmarks.speed_results import Ratio
from benchmarks.speed_server import photo_server
from tests.harness.report import table
from tests.harness.stack import BackendServer, bypass_proxies
from yolo_backend.cores import usable_cores
from yolo_backend.images.decode import decode_image

_WEIGHTS = "640"
_ROUNDS = {MEDIUM: 80, LARGE: 20}  # over all photographs, in a request
_ROUNDS_TO_TRY = {MEDIUM: 2, LARGE: 1}
_REPEATS = 3
_BATCH = 32
_OF_ULTRALYTICS = 0.8
_MAX_MEGAPIXELS = 150.0


@dataclass(frozen=True)
class Compared:
    """Images per second: of the backend and of Ultralytics in turn, and of decoding alone on all cores."""

    case: str
    ours: list[Asked]
    ultralytics: list[Asked]
    decoding: float

    @property
    def ratio(self) -> float:
        pairs = zip(self.ours, self.ultralytics, strict=True)
        return statistics.median(ours.images_per_s / theirs.images_per_s for ours, theirs in pairs)

    @property
    def decoding_share(self) -> float:
        """The part of the backend's time that decoding alone would take."""
        return _typical(self.ours) / self.decoding

    def row(self) -> list[str]:
        """The case's line of the table."""
        boxes = [sum(each.boxes for each in asked) / sum(each.images for each in asked) for asked in self._both()]
        return [
            f"{self.case}, {self.ours[0].images:,} images",
            *(f"{_typical(asked):.1f}" for asked in self._both()),
            f"{self.decoding:.1f}",
            f"{self.decoding_share:.0%}",
            " and ".join(f"{each:.1f}" for each in boxes),
        ]

    def _both(self) -> tuple[list[Asked], list[Asked]]:
        return self.ours, self.ultralytics


def main() -> None:
    """Measure and print. Exits with 1 where a task has no prediction."""
    parser = argparse.ArgumentParser(description="Measure the backend's speed on a GPU, beside Ultralytics' own.")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, ...; cpu, to try it")
    parser.add_argument("--quick", action="store_true", help="few images, to try it out: its numbers mean nothing")
    parser.add_argument(
        "--with", dest="settings", metavar="SETTING=VALUE", nargs="+", default=[], help="settings of the backend"
    )
    options = parser.parse_args()
    bypass_proxies()
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        try:
            make_photos(folder / "photos", (MEDIUM, LARGE))
        except PhotosMissingError as error:
            sys.exit(str(error))
        settings = {"DEVICE": options.device, **dict(pair.split("=", 1) for pair in options.settings)}
        with photo_server(folder / "photos") as server:
            client = Client(folder, server, settings)
            with client.backend(_WEIGHTS) as backend:
                engine = client.engine(backend)
                rounds = _ROUNDS_TO_TRY if options.quick else _ROUNDS
                compared = [_compare(client, backend, case, rounds[case], options.device) for case in rounds]
    head = ["", "backend, images/s", "Ultralytics", "decoding alone", "its share", "boxes an image"]
    print(
        f"{_device_name(options.device)}, {usable_cores()} CPU cores, {time.monotonic() - started_at:.0f} s; {engine}"
    )
    print(table(head, [each.row() for each in compared]))
    with_target = [
        Ratio(f"{each.case}, against Ultralytics' predict", each.ratio, _OF_ULTRALYTICS) for each in compared
    ]
    print(table(["", "measured", "target", ""], [ratio.row() for ratio in with_target]))
    for problem in client.problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if client.problems else 0)


def _compare(client: Client, backend: BackendServer, case: str, rounds: int, device: str) -> Compared:
    files = photo_files(client.folder / "photos", case)
    ours, ultralytics = [], []
    for _ in range(_REPEATS):
        client.warm_up(backend, case)
        ours.append(client.ask(backend, client.tasks(case, rounds * PHOTOS)))
        ultralytics.append(_ask_ultralytics(client.folder, files, rounds, device))
    return Compared(case, ours, ultralytics, _decoding_rate(files, rounds))


def _ask_ultralytics(folder: Path, files: Sequence[Path], rounds: int, device: str) -> Asked:
    answer = ask_child(
        "speed_torch",
        ask="predict",
        weights=str(WEIGHTS.resolve()),
        photos=[str(file) for file in files],
        folder=str(folder),
        times=rounds,
        image_size=IMAGE_SIZES[_WEIGHTS],
        device=device,
        batch=_BATCH,
    )
    return Asked(**answer)


def _decoding_rate(files: Sequence[Path], rounds: int) -> float:
    """Images per second of decoding alone, on all cores, as the backend decodes."""
    contents = [file.read_bytes() for file in files] * rounds
    began_at = time.monotonic()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(lambda content: decode_image(content, _MAX_MEGAPIXELS).size_wh, contents):
            pass  # the pixels are let go at once
    return len(contents) / (time.monotonic() - began_at)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _typical(asked: Sequence[Asked]) -> float:
    return statistics.median(each.images_per_s for each in asked)


if __name__ == "__main__":
    main()
