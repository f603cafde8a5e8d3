"""Does choosing by uncertainty earn its place? `python -m benchmarks.sampling`, written into docs/journal/sampling.md.

On real labelled photographs (BCCD): weights that were trained on 20 of them choose 40 more by each strategy, are
trained on all 60, and measured on the validation split. Each run is kept: what was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from ultralytics import YOLO

from benchmarks.speed_photos import TEST_DATA
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import ROOT
from yolo_backend.detection.features import FeatureExtractor
from yolo_backend.detection.naming import DEMO
from yolo_backend.detection.weights import find_weights
from yolo_backend.sampling.choosing import at_random, most_uncertain, sample_of
from yolo_backend.sampling.diversity import diversify
from yolo_backend.sampling.pool import PoolImage
from yolo_backend.sampling.scoring import PoolPredictor, Scored, Scoring, empty_by_default
from yolo_backend.serving.project_predictor import ProjectPredictor
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

_REPORT = ROOT / "docs" / "journal" / "sampling.md"
_FOLDER = ROOT / "runs" / "sampling"
_CLASS_NAMES = ("RBC", "WBC", "Platelets")
_CONFIG = f"""<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
{"".join(f'<Label value="{name}"/>' for name in _CLASS_NAMES)}</RectangleLabels></View>"""
_START, _CHOSEN = 20, 40
_CANDIDATES = 2 * _CHOSEN  # of 185, about as many as the command takes
_START_EPOCHS, _EPOCHS = 40, 20
_IMAGE_SIZE = 320
_FLOOR = 0.1
_RANDOM = "random"

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Strategy:
    """How to choose."""

    measure: str
    aggregate: str
    diverse: bool = False


STRATEGIES: dict[str, Strategy] = {
    _RANDOM: Strategy("entropy", "mean"),  # which it doesn't look at
    "least-confidence-max": Strategy("least-confidence", "max"),
    "entropy-mean": Strategy("entropy", "mean"),
    "entropy-sum": Strategy("entropy", "sum"),
    "threshold-sum": Strategy("threshold", "sum"),
    "entropy-sum-diverse": Strategy("entropy", "sum", diverse=True),
}


@dataclass(frozen=True)
class Experiment:
    """Where it is done, and for how long it trains."""

    folder: Path
    start_epochs: int
    epochs: int

    def run(self, seed: int, name: str) -> Result:
        """What came out of one strategy; from the file where it is done already."""
        kept = self.folder / f"{seed}-{name}.json"
        if kept.exists():
            return dict(json.loads(kept.read_text()))
        began = time.monotonic()
        start, weights = self._start(seed)
        if name == "before":
            result = self._measure(weights)
        else:
            chosen = self._choose(seed, name, start, weights)
            trained = self._train(f"{seed}-{name}", weights, [*start, *chosen], self.epochs)
            boxes = sum(len(_label_file(file).read_text().splitlines()) for file in chosen)
            result = {**self._measure(trained), "boxes": boxes, "chosen": [file.name for file in chosen]}
        result["seconds"] = round(time.monotonic() - began)
        kept.write_text(json.dumps(result, indent=2))
        return result

    def _start(self, seed: int) -> tuple[list[Path], Path]:
        """The photographs that are labelled from the start, and weights that were trained on them."""
        files = random.Random(seed).sample(self._pool(), _START)
        weights = self.folder / f"{seed}-start" / "weights" / "last.pt"
        done = weights.with_name("done")  # a training that was cut off leaves weights, too
        if not done.exists():
            self._train(f"{seed}-start", find_weights(DEMO, Path()), files, self.start_epochs)
            done.touch()
        return files, weights

    def _pool(self) -> list[Path]:
        data = self.folder / "data"
        if not data.exists():  # a copy, for Ultralytics writes beside the labels
            shutil.copytree(TEST_DATA / "data" / "bccd", data, copy_function=shutil.copyfile)
        return sorted((data / "images" / "train").glob("*.jpg"))

    def _choose(self, seed: int, name: str, start: Sequence[Path], weights: Path) -> list[Path]:
        strategy = STRATEGIES[name]
        settings = load_settings(model_name=weights.name, model_root=weights.parent, engine="torch", device="cpu")
        predictor = Predictor(settings)
        try:
            plan = predictor.plan(_CONFIG, wait_s=None)
            empty = empty_by_default(strategy.measure, _FLOOR, plan)
            images = (PoolImage(file.name, file) for file in self._pool() if file not in start)
            scoring = Scoring(strategy.measure, strategy.aggregate, _FLOOR, empty)
            of_project = ProjectPredictor(plan, "0", predictor.stream, predictor.images)
            pool_predictor = PoolPredictor(of_project, plan.controls[0].control)
            outcomes = pool_predictor.score(images, scoring)
            if name == _RANDOM:
                sample = sample_of(outcomes, partial(at_random, count=_CHOSEN, seed=seed))
            else:
                count = _CANDIDATES if strategy.diverse else _CHOSEN
                sample = sample_of(outcomes, partial(most_uncertain, count=count))
            if strategy.diverse:
                sample = diversify(
                    sample, _CHOSEN, pool_predictor.load, FeatureExtractor(weights, device="cpu").extract
                )
        finally:
            predictor.close()
        return [self._file(item) for item in sample.chosen]

    def _file(self, item: Scored) -> Path:
        return self.folder / "data" / "images" / "train" / item.image.name

    def _train(self, name: str, start: Path, files: Iterable[Path], epochs: int) -> Path:
        model = YOLO(start)
        model.train(
            data=str(self._dataset(name, files)), epochs=epochs, imgsz=_IMAGE_SIZE, batch=8, device="cpu", workers=0,
            project=str(self.folder), name=name, exist_ok=True, seed=0, optimizer="AdamW", lr0=0.002, cos_lr=True,
            warmup_epochs=1, close_mosaic=epochs // 4, flipud=0.5, cache="ram", val=False, plots=False, verbose=False,
        )  # fmt: skip
        return self.folder / name / "weights" / "last.pt"

    def _measure(self, weights: Path) -> dict[str, Any]:
        data = self._dataset("val", [])
        box = (
            YOLO(weights)
            .val(data=str(data), imgsz=_IMAGE_SIZE, device="cpu", workers=0, plots=False, verbose=False)
            .box
        )
        return {"map50": float(box.map50), "map50_95": float(box.map)}

    def _dataset(self, name: str, files: Iterable[Path]) -> Path:
        train = self.folder / f"{name}.txt"
        train.write_text("".join(f"{file}\n" for file in files))
        data = self.folder / f"{name}.yaml"
        names = dict(enumerate(_CLASS_NAMES))
        data.write_text(
            yaml.safe_dump(
                {"path": str(self.folder / "data"), "train": str(train), "val": "images/val", "names": names}
            )
        )
        return data


def main() -> None:
    """Run what isn't done yet, print and write."""
    parser = argparse.ArgumentParser(description="Compare ways of choosing what to label next.")
    parser.add_argument("--seeds", type=int, default=5, help="how many times, each from other 20 photographs")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--start-epochs", type=int, default=_START_EPOCHS)
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where each run is kept")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    folder = options.folder.resolve() / f"{options.start_epochs}-{options.epochs}-epochs"
    folder.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(folder, options.start_epochs, options.epochs)
    results: dict[str, list[Result]] = {}
    for seed in range(options.seeds):
        for name in ("before", *dict.fromkeys([_RANDOM, *options.strategies])):
            result = experiment.run(seed, name)
            results.setdefault(name, []).append(result)
            print(f"seed {seed}: {name}: mAP50-95 {result['map50_95']:.3f} in {result['seconds']} s", flush=True)
    took_s = sum(result["seconds"] for runs in results.values() for result in runs)
    text = f"{comparison(results)}\n\n{made_by('sampling', took_s)}"
    print(text)
    if not options.no_report:
        write_section("sampling", text, _REPORT)


def _label_file(image: Path) -> Path:
    return image.parents[2] / "labels" / image.parent.name / f"{image.stem}.txt"


def comparison(results: Mapping[str, Sequence[Result]]) -> str:
    """One line for each strategy; differences are of runs from the same 20 photographs."""
    head = ["strategy", "boxes in the 40", "mAP50", "mAP50-95", "more than random", "better than random"]
    control = [run["map50_95"] for run in results[_RANDOM]]
    return table(head, [_row(name, runs, control) for name, runs in results.items()])


def _row(name: str, runs: Sequence[Result], control: Sequence[float]) -> list[str]:
    def spread_of(numbers: Sequence[float], form: str = ".3f") -> str:
        deviation = f" ± {stdev(numbers):{form.removeprefix('+')}}" if len(numbers) > 1 else ""
        return f"{fmean(numbers):{form}}{deviation}"

    measured = [run["map50_95"] for run in runs]
    more = [mine - theirs for mine, theirs in zip(measured, control, strict=True)]
    is_compared = name not in {"before", _RANDOM}
    return [
        "before: trained on 20" if name == "before" else name,
        "" if name == "before" else f"{fmean([run['boxes'] for run in runs]):.0f}",
        spread_of([run["map50"] for run in runs]),
        spread_of(measured),
        spread_of(more, "+.3f") if is_compared else "",
        f"{sum(number > 0 for number in more)} of {len(more)}" if is_compared else "",
    ]


if __name__ == "__main__":
    main()
