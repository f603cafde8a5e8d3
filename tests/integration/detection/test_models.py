"""Runtimes: whichever runs the weights, the boxes are those of torch; and which one does is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import onnx
import pytest
from ultralytics import YOLO

from tests.harness.detections import OTHER_WEIGHTS, MakeWeights, Pixels, assert_close, assert_same, detect
from yolo_backend import child_processes
from yolo_backend.cores import usable_cores
from yolo_backend.detection import exports, families, onnx_models
from yolo_backend.detection.detections import Detections
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.exporting import export
from yolo_backend.detection.exports import ExportOptions, Exports
from yolo_backend.detection.models import UltralyticsModel, keep_head_in_float32
from yolo_backend.detection.onnx_models import OnnxModel, OpenVinoModel
from yolo_backend.detection.weights import WeightsError, file_fingerprint

RUNTIMES = ("onnx", "openvino")


def assert_all_close(found: Sequence[Detections], expected: Sequence[Detections], score_threshold: float) -> None:
    """The same boxes, at the same count but for those at the threshold."""
    assert sum(map(len, expected)) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.rotated == theirs.rotated
        assert_close(ours, theirs, score_threshold)
        at_threshold = sum(int((each.scores <= score_threshold + 0.01).sum()) for each in (ours, theirs))
        assert abs(len(ours) - len(theirs)) <= at_threshold


def assert_same_weights(ours: Engine, theirs: Engine) -> None:
    """What model_version and the labels depend on."""
    assert (ours.info, ours.runtime.device) == (theirs.info, theirs.runtime.device)


@pytest.fixture(scope="module")
def torch_engine(bccd_weights: Path) -> Engine:
    return Engine(bccd_weights, device="cpu", engine="torch")


MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="module")
def make_engine(bccd_weights: Path, export_folder: Path) -> MakeEngine:
    """The weights of the blood cells in a runtime, by options of Engine."""

    def make(runtime: str, **options: Any) -> Engine:
        return Engine(bccd_weights, device="cpu", engine=runtime, export_folder=export_folder, **options)

    return make


@pytest.fixture
def real_export(make_engine: MakeEngine, bccd_weights: Path, export_folder: Path) -> Path:
    """The export of the blood cells' weights."""
    make_engine("onnx")
    path = Exports(export_folder).find(ExportOptions(file_fingerprint(bccd_weights), "onnx", "cpu", 300))
    assert path is not None
    return path


@pytest.fixture(scope="module", params=RUNTIMES)
def exported_engine(request: pytest.FixtureRequest, make_engine: MakeEngine) -> Engine:
    return make_engine(request.param)


# The boxes of torch


@pytest.mark.parametrize("score_threshold", [0.05, 0.25])
def test_boxes_are_those_of_torch(
    exported_engine: Engine, torch_engine: Engine, bccd_images: list[Pixels], score_threshold: float
) -> None:
    found, expected = (
        [detect(engine, [image], score_threshold)[0] for image in bccd_images]
        for engine in (exported_engine, torch_engine)
    )
    assert_all_close(found, expected, score_threshold)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_in_a_batch_the_boxes_are_the_same(exported_engine: Engine, bccd_images: list[Pixels], count: int) -> None:
    for found, image in zip(detect(exported_engine, bccd_images[:count], 0.05), bccd_images, strict=False):
        assert_same(found, detect(exported_engine, [image], 0.05)[0])


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 400), (31, 33), (640, 17), (333, 999)])
def test_images_of_any_shape(
    exported_engine: Engine, torch_engine: Engine, bccd_images: list[Pixels], size_wh: tuple[int, int]
) -> None:
    width, height = size_wh
    image = np.ascontiguousarray(np.tile(bccd_images[0], (3, 3, 1))[:height, :width])
    assert_close(detect(exported_engine, [image], 0.1)[0], detect(torch_engine, [image], 0.1)[0], 0.1)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", [{"image_size": 160}, {"iou_threshold": 0.2}, {"max_detections": 7}])
def test_the_settings_mean_the_same(
    make_engine: MakeEngine, bccd_weights: Path, bccd_images: list[Pixels], options: dict[str, Any], runtime: str
) -> None:
    engine, torch_engine = make_engine(runtime, **options), Engine(bccd_weights, device="cpu", **options)
    assert_same_weights(engine, torch_engine)
    found, expected = (detect(each, bccd_images[:6], 0.05) for each in (engine, torch_engine))
    counts = [len(each) for each in found]
    if options == {"max_detections": 7}:  # the seventh may be another, by a hair
        assert counts == [7] * 6
    else:
        assert_all_close(found, expected, 0.05)
    assert counts != [len(each) for each in detect(make_engine(runtime), bccd_images[:6], 0.05)]


@pytest.fixture
def export_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports in this process, which has imported torch already."""

    def run(weights: Path, made: Path, options: ExportOptions) -> None:
        export(weights, made, options.format, options.device, options.max_detections)

    monkeypatch.setattr(exports, "_run_exporter", run)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        pytest.param(*each, marks=pytest.mark.proof if each[0] in {"yolo26n-obb", "yolo26n-seg"} else [])
        for each in OTHER_WEIGHTS
    ],
)
@pytest.mark.usefixtures("export_here")
def test_other_weights_give_the_boxes_of_torch_too(
    make_weights: MakeWeights, bccd_images: list[Pixels], tmp_path: Path, architecture: str, kind: str
) -> None:
    weights = make_weights(architecture)
    images = [*bccd_images[:3], bccd_images[3][:97, :211].copy()]
    torch_engine = Engine(weights, device="cpu", engine="torch", image_size=320)
    assert torch_engine.info.kind == kind
    for runtime in RUNTIMES:
        engine = Engine(weights, device="cpu", engine=runtime, export_folder=tmp_path, image_size=320)
        assert_same_weights(engine, torch_engine)
        for score_threshold in (0.1, 0.3):
            found, expected = (
                [*detect(each, images[:3], score_threshold), *detect(each, images[3:], score_threshold)]
                for each in (engine, torch_engine)
            )
            assert_all_close(found, expected, score_threshold)
    assert len(list(tmp_path.glob("*.onnx"))) == 1


@pytest.mark.usefixtures("export_here")
def test_weights_without_nms_give_more_than_their_300_boxes(
    make_weights: MakeWeights, bccd_images: list[Pixels], tmp_path: Path
) -> None:
    engine = Engine(make_weights("yolo26n"), device="cpu", export_folder=tmp_path, image_size=320, max_detections=400)
    assert engine.runtime.engine == "onnx"
    assert len(detect(engine, bccd_images[:1], 0.0001)[0]) == 400


@pytest.mark.parametrize("max_detections", [1, 300])
def test_a_limit_that_the_export_has_room_for_needs_no_other(
    make_engine: MakeEngine, real_export: Path, max_detections: int
) -> None:
    before = set(real_export.parent.iterdir())
    assert make_engine("onnx", max_detections=max_detections).runtime.engine == "onnx"
    assert set(real_export.parent.iterdir()) == before


def test_what_is_known_of_the_weights_is_the_same(exported_engine: Engine, torch_engine: Engine) -> None:
    assert exported_engine.runtime.engine in RUNTIMES
    assert_same_weights(exported_engine, torch_engine)


# Streams


@pytest.mark.parametrize(("cores", "streams"), [(1, 1), (2, 2), (5, 5), (12, 8)])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_core_has_a_stream(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, cores: int, streams: int, runtime: str
) -> None:
    monkeypatch.setattr(onnx_models, "usable_cores", lambda: cores)
    engine = make_engine(runtime)
    assert engine.streams == streams
    assert f"{streams} images at a time" in str(engine)


def test_a_persons_image_that_meets_no_other_has_all_cores(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_models, "usable_cores", lambda: 2)
    model: Any = make_engine("onnx")._model
    used: list[str] = []

    def run_on(cores: str) -> list[Any]:
        used.append(cores)
        if len(used) == 1:
            model._run(None, for_person=True)
        return []

    monkeypatch.setattr(model, "_by_all", SimpleNamespace(run=lambda *_: run_on("all")))
    monkeypatch.setattr(model, "_by_core", SimpleNamespace(run=lambda *_: run_on("one")))
    model._run(None, for_person=True)
    assert used == ["all", "one"]  # the second came while the first was in the model
    model._run(None, for_person=True)  # at once, as one person's requests come, one after the other
    model._run(None, for_person=False)  # however long after, as those of bulk work come from a slow server
    assert used[2:] == ["all", "one"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_streams_at_once_give_the_boxes_of_an_image_alone(
    make_engine: MakeEngine, bccd_images: list[Pixels], monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setattr(onnx_models, "usable_cores", lambda: 3)
    engine = make_engine(runtime)
    images = [image[: 480 - 60 * (number % 3)].copy() for number, image in enumerate(bccd_images[:12])]
    # A person's, which has all cores.
    alone = [engine.detect([engine.letterbox(image)], 0.05, for_person=True)[0] for image in images]
    with ThreadPoolExecutor(engine.streams) as threads:
        for numbers in (range(12), [*range(0, 12, 3), *range(1, 12, 3), *range(2, 12, 3)]):
            found = threads.map(lambda number: detect(engine, [images[number]], 0.05)[0], numbers)
            for number, detections in zip(numbers, found, strict=True):
                assert_same(detections, alone[number])


@pytest.mark.parametrize(
    ("image_size", "expected"), [((32, 32), 8), ((192, 192), 8), ((256, 320), 3), ((640, 640), 1), ((1280, 1280), 1)]
)
def test_a_batch_of_large_images_is_small(exported_engine: Engine, image_size: tuple[int, int], expected: int) -> None:
    assert exported_engine._model.batch_size(image_size) == expected


def test_torch_has_one_stream_and_all_its_images_in_a_batch(torch_engine: Engine) -> None:
    assert (torch_engine.streams, torch_engine.batch_size) == (1, 8)


# Which runtime


@pytest.fixture
def failing_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The exporter fails; in this folder it doesn't leave anything."""
    script = tmp_path / "exporter"
    script.write_text('#!/bin/sh\necho "RuntimeError: no such operator" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setattr(child_processes, "sys", SimpleNamespace(executable=str(script)))
    return tmp_path / "exports"


def test_on_a_cpu_auto_is_onnx_runtime(make_engine: MakeEngine) -> None:
    engine = make_engine("auto")
    assert engine.runtime.engine == "onnx"
    assert isinstance(engine._model, OnnxModel)


def test_without_a_folder_for_exports_auto_is_torch(bccd_weights: Path) -> None:
    assert Engine(bccd_weights, device="cpu").runtime.engine == "torch"


def test_torch_makes_no_export(bccd_weights: Path, failing_exporter: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(bccd_weights, device="cpu", engine="torch", export_folder=failing_exporter)
    assert engine.runtime.engine == "torch"
    assert not failing_exporter.exists()
    assert caplog.messages == []


@pytest.mark.parametrize("runtime", ["auto", *RUNTIMES])
def test_where_exporting_fails_torch_serves_and_one_line_says_why(
    bccd_weights: Path,
    torch_engine: Engine,
    bccd_images: list[Pixels],
    failing_exporter: Path,
    caplog: pytest.LogCaptureFixture,
    runtime: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = Engine(bccd_weights, device="cpu", engine=runtime, export_folder=failing_exporter)
    assert caplog.messages == [
        f"{bccd_weights.name} runs in torch, because it can't run with ENGINE={runtime}: "
        "exporting failed: RuntimeError: no such operator"
    ]
    assert engine.info == torch_engine.info
    assert_same(detect(engine, bccd_images[:1], 0.25)[0], detect(torch_engine, bccd_images[:1], 0.25)[0])


def test_a_folder_that_cannot_be_had_is_no_reason_not_to_serve(
    bccd_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").write_text("a file")
    engine = Engine(bccd_weights, device="cpu", export_folder=tmp_path / "data" / "exports")
    assert engine.runtime.engine == "torch"
    (message,) = caplog.messages
    assert "MODEL_DIR" in message
    assert str(tmp_path / "data") in message


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_an_export_that_the_runtime_cannot_read_is_made_anew(
    bccd_weights: Path,
    real_export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    runtime: str,
    share: float,
) -> None:
    """Its name is right, and the sum in it is that of what it holds."""
    monkeypatch.setattr(exports, "_run_exporter", lambda weights, made, options: copy(real_export, made))
    whole = real_export.read_bytes()
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(whole[: int(share * len(whole))] or b"no model " * 100)
    key = ExportOptions(file_fingerprint(bccd_weights), "onnx", "cpu", 300).key
    wrong = wrong.rename(tmp_path / f"bccd-{key}-{file_fingerprint(wrong)[:16]}.onnx")
    with caplog.at_level(logging.WARNING):
        engine = Engine(bccd_weights, device="cpu", engine=runtime, export_folder=tmp_path)
    assert engine.runtime.engine == runtime
    assert engine.streams == min(usable_cores(), 8)
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("yolo_backend"))
    assert f"{bccd_weights.name}: the export {wrong.name} is made again" in message
    assert [path.read_bytes() for path in tmp_path.glob("*.onnx")] == [whole]


# .onnx weights of the user's own


def with_metadata(source: Path, path: Path, **changes: Any) -> Path:
    """The same model, saying other things of itself; what is changed to None it doesn't say."""
    model = onnx.load(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props} | changes
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items() if value is not None})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("runtime", "dynamic", "expected", "name"),
    [
        ("auto", True, OnnxModel, "onnx"),
        ("onnx", True, OnnxModel, "onnx"),
        ("openvino", True, OpenVinoModel, "openvino"),
        ("auto", False, UltralyticsModel, "onnx"),
    ],
)
@pytest.mark.parametrize("has_folder", [True, False])
def test_onnx_weights_of_free_shape_have_streams(
    real_export: Path, tmp_path: Path, runtime: str, dynamic: bool, expected: type, name: str, has_folder: bool
) -> None:
    path = with_metadata(real_export, tmp_path / "mine.onnx", args={"dynamic": dynamic})
    folder = tmp_path / "exports" if has_folder else None
    engine = Engine(path, device="cpu", engine=runtime, export_folder=folder)
    assert type(engine._model) is expected
    assert engine.runtime.engine == name
    assert engine.info.fingerprint == file_fingerprint(path)
    assert engine.streams == (min(usable_cores(), 8) if dynamic else 1)
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "classify"}, ("(1, 7, 2100)", "for the task classify", "a probability for each of their 3 classes")),
        ({"task": "semantic"}, ("semantic", "detect")),
        ({"head": "RTDETRDecoder"}, ("RT-DETR", "YOLO")),
        ({"channels": 1}, ("1 channels", "3 (RGB)")),
    ],
)
def test_onnx_weights_of_another_kind_are_refused(
    real_export: Path, tmp_path: Path, dynamic: bool, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    path = with_metadata(real_export, tmp_path / "mine.onnx", args={"dynamic": dynamic}, **changes)
    message = refusal(path)
    for word in ("mine.onnx", *words):
        assert word in message


# What can't be used


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as raised:
        Engine(path, **{"device": "cpu", **options})
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("runtime", "device", "installed", "expected"),
    [
        ("tensorrt", "cuda:0", False, "needs the package tensorrt: pip install tensorrt, or set ENGINE=auto"),
        ("openvino", "cpu", False, "needs the package openvino: pip install openvino, or set ENGINE=auto"),
        ("openvino", "cuda:0", True, "runs on the CPU only, not on cuda:0: set DEVICE=cpu, or ENGINE=auto"),
        ("openvino", "mps", True, "runs on the CPU only, not on mps: set DEVICE=cpu, or ENGINE=auto"),
        ("tensorrt", "cpu", True, "needs an NVIDIA GPU, not cpu: set DEVICE=cuda:0, or ENGINE=auto"),
        ("tensorrt", "mps", True, "needs an NVIDIA GPU, not mps: set DEVICE=cuda:0, or ENGINE=auto"),
        ("onnx", "cuda:0", True, "on cuda:0 needs the package onnxruntime-gpu: install it, or set ENGINE=auto"),
    ],
)
@pytest.mark.parametrize("has_folder", [True, False])
def test_a_runtime_that_cannot_be_had_is_refused(
    bccd_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    device: str,
    installed: bool,
    expected: str,
    has_folder: bool,
) -> None:
    monkeypatch.setattr(families, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(families, "get_available_providers", lambda: ["CPUExecutionProvider"])
    folder = tmp_path / "exports" if has_folder else None
    message = refusal(bccd_weights, device=device, engine=runtime, export_folder=folder)
    assert message == f"ENGINE={runtime} {expected}"
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("content", [b"not a zip", b"PK\x03\x04" + bytes(500)])
@pytest.mark.parametrize("runtime", ["auto", *RUNTIMES])
def test_a_broken_file_is_refused_whatever_the_runtime(
    tmp_path: Path, failing_exporter: Path, content: bytes, runtime: str
) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    assert "broken.pt" in refusal(path, engine=runtime, export_folder=failing_exporter)


def test_weights_of_a_kind_without_a_head_are_refused_where_exports_are_made(
    tmp_path: Path, failing_exporter: Path
) -> None:
    path = tmp_path / "sorts.pt"
    YOLO("yolo26n-sem.yaml").save(path)
    message = refusal(path, export_folder=failing_exporter)
    assert "semantic" in message
    assert "detect" in message


# Half precision, as on a GPU, but on the CPU


@pytest.mark.parametrize("architecture", ["yolo11n", "yolo26n", "yolo11n-seg", "yolo11n-obb", "yolo11n-pose"])
def test_half_precision_moves_no_box_of_a_large_photograph(
    make_weights: MakeWeights, bccd_images: list[Pixels], architecture: str
) -> None:
    """Without the head in float32, boxes of the weights that are trained are up to four pixels off."""
    path = make_weights(architecture)
    exact, halved = (Engine(path, device="cpu", engine="torch", image_size=640) for _ in range(2))
    auto_backend = cast(UltralyticsModel, halved._model)._model
    auto_backend.model.half()
    auto_backend.backend.fp16 = True
    keep_head_in_float32(auto_backend.model)
    photograph = cv2.resize(bccd_images[0], (4000, 3000), interpolation=cv2.INTER_CUBIC)
    (found,), (expected,) = (detect(engine, [photograph], 0.25) for engine in (halved, exact))
    assert len(expected) > 0
    if architecture == "yolo11n":  # the others' heads are random, and say anything for the least change
        assert_all_close([found], [expected], 0.25)
    assert found.boxes.dtype == np.float32
    assert not np.array_equal(found.scores[:5], expected.scores[:5])
