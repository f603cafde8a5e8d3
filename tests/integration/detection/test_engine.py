"""The engine: its boxes are Ultralytics' boxes, alone and in any batch."""

from __future__ import annotations

import itertools
import warnings
import weakref
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import nms

from tests.harness.detections import (
    OTHER_WEIGHTS,
    MakeWeights,
    Pixels,
    assert_close,
    assert_same,
    detect,
    ultralytics_detections,
)
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.explaining import failure, is_out_of_memory
from yolo_backend.detection.models import UltralyticsModel
from yolo_backend.detection.weights import WeightsError, file_fingerprint


def network_of(engine: Engine) -> torch.nn.Module:
    assert isinstance(engine._model, UltralyticsModel)
    network: torch.nn.Module = engine._model._model
    return network


@pytest.fixture(scope="module")
def engine(bccd_weights: Path) -> Engine:
    return Engine(bccd_weights, device="cpu")


@pytest.fixture(scope="module")
def yolo(bccd_weights: Path) -> Any:
    return YOLO(bccd_weights)


# Against YOLO(weights).predict


@pytest.mark.parametrize(("score_threshold", "count"), [(0.001, 4), (0.05, 24), (0.25, 8), (0.5, 8), (0.9, 8)])
def test_boxes_are_ultralytics_boxes(
    engine: Engine, yolo: Any, bccd_images: list[Pixels], score_threshold: float, count: int
) -> None:
    found = [detect(engine, [image], score_threshold)[0] for image in bccd_images[:count]]
    assert len(found) == count
    assert sum(len(detections) for detections in found) > 0
    for image, detections in zip(bccd_images, found, strict=False):
        assert_same(detections, ultralytics_detections(yolo, image, score_threshold))


def test_a_low_threshold_gives_more_than_the_default(engine: Engine, bccd_images: list[Pixels]) -> None:
    counts = [sum(map(len, detect(engine, bccd_images[:4], threshold))) for threshold in (0.05, 0.25, 0.6)]
    assert counts[0] > counts[1] > counts[2] > 0


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_in_a_batch_of_any_order_the_boxes_are_the_same(
    engine: Engine, bccd_images: list[Pixels], seed: int | None
) -> None:
    order = np.arange(8) if seed is None else np.random.default_rng(seed).permutation(8)
    alone = [detect(engine, [image], 0.05)[0] for image in bccd_images[:8]]
    together = detect(engine, [bccd_images[index] for index in order], 0.05)
    for index, detections in zip(order, together, strict=True):
        assert_same(detections, alone[index])


@pytest.mark.parametrize(
    "size_wh",
    [(1, 1), (1, 400), (400, 1), (31, 33), (97, 33), (320, 320), (321, 319), (640, 17), (333, 999), (1300, 900)],
)
def test_images_of_any_shape(engine: Engine, yolo: Any, bccd_images: list[Pixels], size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    image = np.ascontiguousarray(np.tile(bccd_images[0], (3, 3, 1))[:height, :width])
    assert image.shape == (height, width, 3)
    assert_same(detect(engine, [image], 0.05)[0], ultralytics_detections(yolo, image, 0.05))


@pytest.mark.parametrize("options", [{"image_size": 160}, {"iou_threshold": 0.2}, {"max_detections": 7}])
def test_the_settings_mean_what_ultralytics_means(
    bccd_weights: Path, yolo: Any, bccd_images: list[Pixels], options: dict[str, Any]
) -> None:
    names = {"image_size": "imgsz", "iou_threshold": "iou", "max_detections": "max_det"}
    engine = Engine(bccd_weights, device="cpu", **options)
    theirs = {names[name]: value for name, value in options.items()}
    for image in bccd_images[:3]:
        expected = ultralytics_detections(yolo, image, 0.05, **theirs)
        assert_same(detect(engine, [image], 0.05)[0], expected)
        assert len(expected) != len(ultralytics_detections(yolo, image, 0.05))


def test_an_image_is_not_changed(engine: Engine, bccd_images: list[Pixels]) -> None:
    image = bccd_images[0][:320, :320].copy()
    before = image.copy()
    detect(engine, [image], 0.25)
    assert np.array_equal(image, before)


def test_the_shape_follows_from_the_image_alone(engine: Engine) -> None:
    for size_wh, shape in [((640, 480), (256, 320)), ((480, 640), (320, 256)), ((100, 100), (320, 320))]:
        letterboxed = engine.letterbox(np.zeros((size_wh[1], size_wh[0], 3), np.uint8))
        assert letterboxed.pixels.shape == (*shape, 3)
        assert letterboxed.original_size_wh == size_wh
        assert letterboxed.pixels.flags.c_contiguous


# Images that were decoded at a reduced scale


@pytest.mark.parametrize(
    ("decoded_wh", "original_wh"),
    [((320, 240), (640, 480)), ((321, 241), (641, 481)), ((160, 120), (1280, 960)), ((211, 97), (421, 777))],
)
def test_boxes_are_those_of_the_reduced_image_in_pixels_of_the_original(
    engine: Engine, bccd_images: list[Pixels], decoded_wh: tuple[int, int], original_wh: tuple[int, int]
) -> None:
    images = [cv2.resize(image, decoded_wh) for image in bccd_images[:3]]
    letterboxed = [engine.letterbox(image, original_wh) for image in images]
    assert [image.original_size_wh for image in letterboxed] == [original_wh] * 3
    count = 0
    for found, expected in zip(engine.detect(letterboxed, 0.1), detect(engine, images, 0.1), strict=True):
        scale = np.tile(np.divide(original_wh, decoded_wh), 2).astype(np.float32)
        assert_same(found, replace(expected, boxes=expected.boxes * scale))
        assert (found.boxes[:, 2:] <= np.array(original_wh) + 0.01).all()
        count += len(found)
    assert count > 0


def test_an_image_of_its_own_size_is_as_without_one(engine: Engine, bccd_images: list[Pixels]) -> None:
    (found,) = engine.detect([engine.letterbox(bccd_images[0], (640, 480))], 0.1)
    assert_same(found, detect(engine, bccd_images[:1], 0.1)[0])


def test_reduced_images_and_others_share_a_batch(engine: Engine, bccd_images: list[Pixels]) -> None:
    half = cv2.resize(bccd_images[1], (320, 240))
    alone = [detect(engine, [image], 0.25)[0] for image in (bccd_images[0], half)]
    together = engine.detect([engine.letterbox(bccd_images[0]), engine.letterbox(half, (640, 480))], 0.25)
    assert_same(together[0], alone[0])
    assert_same(together[1], replace(alone[1], boxes=alone[1].boxes * 2))


def test_rotated_boxes_are_in_pixels_of_the_original_too(make_weights: MakeWeights, bccd_images: list[Pixels]) -> None:
    engine = Engine(make_weights("yolo11n-obb"), device="cpu", image_size=320)
    half = cv2.resize(bccd_images[0], (320, 240))
    (found,) = engine.detect([engine.letterbox(half, (640, 480))], 0.3)
    (expected,) = detect(engine, [half], 0.3)
    assert len(expected) > 0
    twice = np.array([2, 2, 2, 2, 1], np.float32)
    assert_same(found, replace(expected, boxes=expected.boxes * twice))


def test_what_is_known_of_the_weights(engine: Engine, bccd_weights: Path) -> None:
    assert engine.info.name == bccd_weights.name
    assert engine.info.kind == "detect"
    assert engine.info.class_names == {0: "RBC", 1: "WBC", 2: "Platelets"}
    assert engine.info.fingerprint == file_fingerprint(bccd_weights)
    assert engine.info.image_size == (320, 320)
    assert (engine.runtime.device, engine.runtime.engine) == ("cpu", "torch")


# Memory

TOO_MANY = 2**50


def ask_torch() -> None:
    torch.empty(TOO_MANY)


def ask_numpy() -> None:
    np.empty(TOO_MANY)


def ask_onnxruntime() -> None:
    node = onnx.helper.make_node("Expand", ["value", "shape"], ["all"])
    inputs = [
        onnx.helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, [1]),
        onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, [1]),
    ]
    output = onnx.helper.make_tensor_value_info("all", onnx.TensorProto.FLOAT, [None])
    graph = onnx.helper.make_graph([node], "expand", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session.run(None, {"value": np.zeros(1, np.float32), "shape": np.array([TOO_MANY])})


@pytest.mark.parametrize("ask", [ask_torch, ask_numpy, ask_onnxruntime])
def test_a_lack_of_memory_is_recognised(ask: Callable[[], None]) -> None:
    with pytest.raises(Exception, match="allocate") as raised:
        ask()
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes don't fit"), False),
        (ValueError(), False),
    ],
)
def test_other_errors_are_no_lack_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_a_batch_without_room_is_a_memory_error_that_holds_no_memory(engine: Engine, bccd_images: list[Pixels]) -> None:
    before = detect(engine, bccd_images[:1], 0.25)[0]
    inputs: list[weakref.ref[torch.Tensor]] = []

    def grab(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        inputs.append(weakref.ref(arguments[0]))
        ask_torch()

    hook = network_of(engine).register_forward_pre_hook(grab)
    try:
        with pytest.raises(MemoryError, match="allocate memory"):
            detect(engine, bccd_images[:2], 0.25)
    finally:
        hook.remove()
    assert [tensor() for tensor in inputs] == [None]
    engine.free_memory()
    assert_same(detect(engine, bccd_images[:1], 0.25)[0], before)


def test_other_errors_of_the_model_are_not_changed(engine: Engine, bccd_images: list[Pixels]) -> None:
    hook = network_of(engine).register_forward_pre_hook(lambda *_: torch.empty(-1))
    try:
        with pytest.raises(RuntimeError, match="negative"):
            detect(engine, bccd_images[:1], 0.25)
    finally:
        hook.remove()


@pytest.mark.parametrize("method", ["__call__", "__init__"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory"), MemoryError()]
)
def test_weights_without_room_are_told_so(
    bccd_weights: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, method: str
) -> None:
    def lack(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(UltralyticsModel, method, lack)
    with pytest.raises(WeightsError) as raised:
        Engine(bccd_weights, device="cpu")
    assert str(raised.value) == (
        f"Weights {bccd_weights.name} don't fit into the memory of cpu: lower MODEL_IMAGE_SIZE, BATCH_SIZE or "
        f"MAX_MODELS, or set another DEVICE ({bccd_weights})"
    )


def test_a_mistake_of_our_own_is_not_put_down_to_the_weights(
    bccd_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UltralyticsModel, "__call__", lambda *_, **__: [].missing)  # type: ignore[attr-defined]
    with pytest.raises(
        WeightsError, match=r"can't be run: 'list' object has no attribute 'missing' \(AttributeError\)"
    ):
        Engine(bccd_weights, device="cpu")


@pytest.mark.parametrize(
    ("said", "is_newer"),
    [
        ("Unsupported model IR version: 99, max supported IR version: 10", True),
        ("Opset 99 is under development and support for this is limited", True),
        ("Current official support for domain ai.onnx is till opset 21.", True),
        ("Resize of opset 11 wants four inputs", False),
        ("No such file: /data/opset/m.onnx", False),
    ],
)
def test_only_what_onnx_runtime_says_of_versions_means_a_newer_one(said: str, is_newer: bool) -> None:
    assert ("are for a newer ONNX Runtime" in failure(RuntimeError(said), "cpu")) == is_newer


# A dense batch: Ultralytics' NMS would run out of time and leave the rest of the batch empty


def test_a_dense_batch_leaves_no_image_empty(
    engine: Engine, bccd_images: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [*bccd_images, *(image[::-1].copy() for image in bccd_images[:8])]
    alone = [detect(engine, [image], 0.0001)[0] for image in images]
    # A clock on which every image takes a minute, as on a slow machine.
    minutes = itertools.count(0, 60)
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: next(minutes)))
    together = detect(engine, images, 0.0001)
    assert [len(detections) for detections in together] == [300] * 32
    for detections, expected in zip(together, alone, strict=True):
        assert_same(detections, expected)


# Other kinds of weights


@pytest.mark.parametrize(("architecture", "kind"), OTHER_WEIGHTS)
def test_other_weights_give_ultralytics_boxes_too(
    make_weights: MakeWeights, bccd_images: list[Pixels], architecture: str, kind: str
) -> None:
    path = make_weights(architecture)
    engine, yolo = Engine(path, device="cpu", image_size=320), YOLO(path)
    assert engine.info.kind == kind
    assert engine.info.has_costly_boxes == (kind == "segment")
    counts = set()
    for image, score_threshold in itertools.product([*bccd_images[:2], bccd_images[3][:97, :211].copy()], (0.1, 0.3)):
        expected = ultralytics_detections(yolo, image, score_threshold, imgsz=320)
        assert_same(detect(engine, [image], score_threshold)[0], expected)
        counts.add(len(expected))
    assert len(counts) > 1


@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo11n-obb", "yolo11n-pose"])
def test_other_weights_give_the_same_boxes_in_a_batch(
    make_weights: MakeWeights, bccd_images: list[Pixels], architecture: str
) -> None:
    engine = Engine(make_weights(architecture), device="cpu", image_size=320)
    alone = [detect(engine, [image], 0.3)[0] for image in bccd_images[:5]]
    assert len({len(detections) for detections in alone}) > 1
    for together, expected in zip(detect(engine, bccd_images[:5], 0.3), alone, strict=True):
        assert_same(together, expected)


@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo11n-obb", "yolo11n-pose"])
def test_a_dense_batch_of_other_weights_leaves_no_image_empty(
    make_weights: MakeWeights, bccd_images: list[Pixels], monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    engine = Engine(make_weights(architecture), device="cpu", image_size=320)
    alone = [len(detect(engine, [image], 0.01)[0]) for image in bccd_images[:6]]
    minutes = itertools.count(0, 60)  # the slow machine again
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: next(minutes)))
    assert [len(found) for found in detect(engine, bccd_images[:6], 0.01)] == alone
    assert min(alone) > 0


def test_segments_without_a_mask_are_left_out(make_weights: MakeWeights, bccd_images: list[Pixels]) -> None:
    """As Ultralytics does, so the shared boxes are fewer than those of the detector."""
    segments = Engine(make_weights("yolo11n-seg"), device="cpu", image_size=320)
    boxes = Engine(make_weights("yolo11n"), device="cpu", image_size=320)
    assert 0 < len(detect(segments, bccd_images[:1], 0.1)[0]) < len(detect(boxes, bccd_images[:1], 0.1)[0])


@pytest.mark.parametrize("max_detections", [5, 300, 400])
def test_weights_without_nms_keep_the_limit(
    make_weights: MakeWeights, bccd_images: list[Pixels], max_detections: int
) -> None:
    path = make_weights("yolo26n")
    engine = Engine(path, device="cpu", image_size=320, max_detections=max_detections)
    (found,) = detect(engine, bccd_images[:1], 0.0001)
    assert_same(found, ultralytics_detections(YOLO(path), bccd_images[0], 0.0001, imgsz=320, max_det=max_detections))
    assert len(found) == max_detections


# Exports


@pytest.fixture(scope="module")
def export_onnx(tmp_path_factory: pytest.TempPathFactory, bccd_weights: Path) -> Callable[[bool], Path]:
    folder = tmp_path_factory.mktemp("onnx")

    def export(dynamic: bool) -> Path:
        weights = folder / f"{'dynamic' if dynamic else 'static'}.pt"
        if not weights.with_suffix(".onnx").exists():
            copy(bccd_weights, weights)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.onnx calls the exporter that Ultralytics uses old
                YOLO(weights).export(format="onnx", imgsz=320, dynamic=dynamic, simplify=False, device="cpu")
        return weights.with_suffix(".onnx")

    return export


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("score_threshold", [0.05, 0.25])
def test_onnx_gives_the_boxes_of_the_weights(
    export_onnx: Callable[[bool], Path], yolo: Any, bccd_images: list[Pixels], dynamic: bool, score_threshold: float
) -> None:
    path = export_onnx(dynamic)
    engine, same_file = Engine(path, device="cpu"), YOLO(path, task="detect")
    assert engine.info.class_names == {0: "RBC", 1: "WBC", 2: "Platelets"}
    assert engine.info.image_size == (320, 320)
    assert (engine.runtime.device, engine.runtime.engine) == ("cpu", "onnx")
    for image in bccd_images[:3]:
        (found,) = detect(engine, [image], score_threshold)
        assert len(found) > 0
        # An input of fixed shape is a padded square.
        assert_close(found, ultralytics_detections(yolo, image, score_threshold, rect=dynamic), score_threshold)
        assert_close(found, ultralytics_detections(same_file, image, score_threshold, imgsz=320), score_threshold)


def test_dynamic_onnx_takes_a_batch(
    export_onnx: Callable[[bool], Path], engine: Engine, bccd_images: list[Pixels]
) -> None:
    onnx = Engine(export_onnx(True), device="cpu")
    for found, expected in zip(detect(onnx, bccd_images[:8], 0.25), detect(engine, bccd_images[:8], 0.25), strict=True):
        assert len(found) == len(expected)
        assert_close(found, expected, 0.25)


def test_static_onnx_takes_a_batch(export_onnx: Callable[[bool], Path], bccd_images: list[Pixels]) -> None:
    """Its input holds one image: whoever batches gets the boxes all the same."""
    onnx = Engine(export_onnx(False), device="cpu")
    alone = [detect(onnx, [image], 0.25)[0] for image in bccd_images[:3]]
    for found, expected in zip(detect(onnx, bccd_images[:3], 0.25), alone, strict=True):
        assert_same(found, expected)


@pytest.fixture(scope="module")
def export_with_nms(tmp_path_factory: pytest.TempPathFactory, bccd_weights: Path) -> Callable[[int], Path]:
    """Exports of free shape that hold NMS, made for so many images at once."""
    folder = tmp_path_factory.mktemp("nms")

    def export(batch: int) -> Path:
        weights = folder / f"nms-{batch}.pt"
        if not weights.with_suffix(".onnx").exists():
            copy(bccd_weights, weights)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as above
                YOLO(weights).export(
                    format="onnx", imgsz=320, dynamic=True, nms=True, batch=batch, simplify=False, device="cpu"
                )
        return weights.with_suffix(".onnx")

    return export


@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_is_run_with_no_more_images_than_it_was_made_for(
    export_with_nms: Callable[[int], Path], bccd_images: list[Pixels], batch: int
) -> None:
    """With more, those behind come out without a box."""
    engine = Engine(export_with_nms(batch), device="cpu")
    alone = [detect(engine, [image], 0.3)[0] for image in bccd_images[:5]]
    assert min(map(len, alone)) > 0
    assert engine.batch_size <= batch
    for found, expected in zip(detect(engine, bccd_images[:5], 0.3), alone, strict=True):
        assert_close(found, expected, 0.3)
        assert len(found) == len(expected)


def test_thresholds_that_are_baked_in_are_told(export_with_nms: Callable[[int], Path], engine: Engine) -> None:
    remark = Engine(export_with_nms(1), device="cpu").info.remark
    assert remark is not None
    assert remark.startswith("NMS is part of nms-1.onnx: ")
    assert "MODEL_IOU_THRESHOLD" in remark
    assert engine.info.remark is None


# What can't be used


def onnx_file(path: Path, output_shape: Sequence[int], **metadata: str) -> Path:
    """A network that answers zeros of this shape, whatever the image."""
    size = onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [len(output_shape)], output_shape)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Constant", [], ["size"], value=size),
            onnx.helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            onnx.helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0),
            onnx.helper.make_node("Add", ["zeros", "least"], ["output0"]),
        ],
        "network",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 320, 320])],
        [onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, output_shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


V8 = {"task": "detect", "stride": "32", "batch": "1", "imgsz": "[320, 320]", "names": "{0: 'RBC', 1: 'WBC', 2: 'P'}"}


@pytest.mark.parametrize(
    ("shape", "metadata", "reason"),
    [
        (
            (1, 6300, 8),
            {"stride": "32", "names": "{0: 'RBC', 1: 'WBC', 2: 'P'}"},
            "as the YOLOv5 repository exports it",
        ),
        ((1, 6300, 8), V8, "as the YOLOv5 repository exports it"),
        ((1, 84, 2100), V8, "3 classes need 7 rows"),
        ((1, 6, 2100), V8, "3 classes need 7 rows"),
        ((1, 2100, 7), V8, "3 classes need 7 rows"),
        ((1, 39, 2100), V8, "3 classes need 7 rows"),
        ((1, 8, 2100), V8 | {"task": "obb", "names": "{0: 'a', 1: 'b'}"}, "2 classes need 7 rows"),
        ((1, 6, 2100), V8 | {"task": "pose", "names": "{0: 'a', 1: 'b'}"}, "2 classes need more than 6 rows"),
        ((1, 300, 7), V8 | {"end2end": "True"}, "need 6 numbers a box"),
        ((7, 2100), V8, "3 classes need 7 rows"),
    ],
)
def test_outputs_of_another_layout_are_refused(
    tmp_path: Path, shape: tuple[int, ...], metadata: dict[str, str], reason: str
) -> None:
    """Read as boxes, they would be none, for every image, and Label Studio would store that."""
    message = refusal(onnx_file(tmp_path / "other.onnx", shape, **metadata))
    assert f"({', '.join(map(str, shape))})" in message
    assert reason in message


@pytest.mark.parametrize(
    ("shape", "metadata"),
    [
        ((1, 7, 2100), V8),
        ((1, 7, 2100), V8 | {"task": "obb", "names": "{0: 'a', 1: 'b'}"}),
        ((1, 57, 2100), V8 | {"task": "pose", "names": "{0: 'a', 1: 'b'}", "kpt_shape": "[17, 3]"}),
        ((1, 300, 6), V8 | {"end2end": "True"}),
    ],
)
def test_outputs_of_the_layout_that_the_names_want_are_taken(
    tmp_path: Path, shape: tuple[int, ...], metadata: dict[str, str]
) -> None:
    assert Engine(onnx_file(tmp_path / "right.onnx", shape, **metadata), device="cpu").info.remark is None


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as raised:
        Engine(path, **{"device": "cpu", **options})
    message = str(raised.value)
    assert path.name in message
    assert len(message.splitlines()) == 1
    return message


def test_weights_of_a_kind_without_a_head_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sorts.pt"
    YOLO("yolo26n-sem.yaml").save(path)
    message = refusal(path)
    assert "semantic" in message
    assert "detect" in message


def test_weights_for_other_than_color_images_are_refused(tmp_path: Path) -> None:
    yolo = YOLO("yolo11n.yaml")
    yolo.model = DetectionModel("yolo11n.yaml", ch=1, verbose=False)
    yolo.save(tmp_path / "grey.pt")
    assert "channels" in refusal(tmp_path / "grey.pt")


def _truncated(path: Path, weights: Path) -> None:
    content = weights.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _damaged(path: Path, weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[200:5000] = bytes(4800)
    path.write_bytes(content)


def _other_zip(path: Path, weights: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not weights")


def _no_model(path: Path, weights: Path) -> None:
    torch.save({"epoch": 3}, path)


def _list(path: Path, weights: Path) -> None:
    torch.save([1, 2, 3], path)


def _state(path: Path, weights: Path) -> None:
    torch.save({"model": None, "ema": None}, path)


@pytest.mark.parametrize("spoil", [_truncated, _damaged, _other_zip, _no_model, _list, _state])
def test_a_broken_file_is_refused_in_one_line(
    tmp_path: Path, bccd_weights: Path, spoil: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "broken.pt"
    spoil(path, bccd_weights)
    refusal(path)


def test_a_broken_onnx_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x08\x09" * 500)
    refusal(path)


def test_a_device_that_is_not_there_is_refused_in_one_line(bccd_weights: Path) -> None:
    assert "CUDA" in refusal(bccd_weights, device="cuda:99")
