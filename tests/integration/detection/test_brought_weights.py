"""Weights as people bring them: served as Ultralytics would, or refused in a line that says what they are."""

from __future__ import annotations

import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from ultralytics import RTDETR, YOLO, YOLOE
from ultralytics.nn.modules import block

from tests.harness.detections import Pixels, assert_close, assert_same, detect, ultralytics_detections
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.features import FeatureExtractor
from yolo_backend.detection.models import load_checkpoint
from yolo_backend.detection.weights import WeightsError, find_weights

MAX_REASON = 240  # of what Label Studio shows


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as raised:
        Engine(find_weights(path.name, path.parent), **{"device": "cpu", **options})
    message = str(raised.value)
    assert message.isprintable()
    assert path.name in message[:100]
    assert message.endswith(f" ({path})")
    return message


def assert_told(message: str, *words: str) -> None:
    for word in words:
        assert word in message[:MAX_REASON]


@pytest.fixture(scope="module")
def yolo(bccd_weights: Path) -> Any:
    return YOLO(bccd_weights)


@pytest.fixture
def own(bccd_weights: Path) -> Any:
    """The weights, to be changed."""
    return YOLO(bccd_weights)


# .pt files


def _state(path: Path, yolo: Any) -> None:
    torch.save(yolo.model.state_dict(), path)


def _state_in_a_dict(path: Path, yolo: Any) -> None:
    torch.save({"epoch": 3, "state_dict": yolo.model.state_dict()}, path)


def _bare(path: Path, yolo: Any) -> None:
    torch.save(yolo.model, path)


def _layers(path: Path, yolo: Any) -> None:
    torch.save(yolo.model.model, path)


def _parallel(path: Path, yolo: Any) -> None:
    torch.save({"model": torch.nn.DataParallel(yolo.model)}, path)


def _script(path: Path, yolo: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript old
        torch.jit.trace(  # type: ignore[no-untyped-call]
            torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8)
        ).save(str(path))


def _faster_rcnn(path: Path, yolo: Any) -> None:
    torch.save(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3), path)


def _nothing(path: Path, yolo: Any) -> None:
    torch.save({"model": None, "ema": None}, path)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (_state, ("numbers without a network", "name the best.pt")),
        (_state_in_a_dict, ("numbers without a network", "name the best.pt")),
        (_nothing, ("numbers without a network", "name the best.pt")),
        (_bare, ("is a network that torch.save wrote as it is", 'save it with YOLO(...).save("best.pt")')),
        (_layers, ("is a bare Sequential", 'YOLO(...).save("best.pt")')),
        (_parallel, ("is a bare DataParallel", 'YOLO(...).save("best.pt")')),
        (_script, ("is a TorchScript export", 'export(format="onnx")')),
        (_faster_rcnn, ("is a FasterRCNN of torchvision", "name the best.pt")),
    ],
)
def test_what_is_no_checkpoint_of_ultralytics_is_named(
    tmp_path: Path, yolo: Any, save: Callable[[Path, Any], None], words: tuple[str, ...]
) -> None:
    save(tmp_path / "m.pt", yolo)
    assert_told(refusal(tmp_path / "m.pt"), *words)


def test_a_checkpoint_of_the_yolov5_repository_is_named(tmp_path: Path) -> None:
    """As its train.py saves one: the class is of a module `models.yolo`, which is taken away again."""
    module = types.ModuleType("models.yolo")
    module.DetectionModel = type("DetectionModel", (torch.nn.Module,), {"__module__": "models.yolo"})  # type: ignore[attr-defined]
    sys.modules |= {"models": types.ModuleType("models"), "models.yolo": module}
    try:
        torch.save({"epoch": -1, "model": module.DetectionModel(), "ema": None}, tmp_path / "m.pt")
    finally:
        del sys.modules["models.yolo"], sys.modules["models"]
    assert_told(refusal(tmp_path / "m.pt"), "of the YOLOv5 repository", "train anew with Ultralytics")


def test_what_the_line_on_a_bare_network_advises_is_right(
    tmp_path: Path, yolo: Any, bccd_weights: Path, bccd_images: list[Pixels]
) -> None:
    _bare(tmp_path / "m.pt", yolo)
    torch.save({"model": torch.load(tmp_path / "m.pt", weights_only=False)}, tmp_path / "best.pt")
    found, expected = (
        detect(Engine(path, device="cpu", image_size=320), bccd_images[:1], 0.25)[0]
        for path in (find_weights("best.pt", tmp_path), bccd_weights)
    )
    assert len(expected) > 0
    assert_same(found, expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_yolo_that_torch_saved_whole_is_served(tmp_path: Path, own: Any, legacy: bool) -> None:
    torch.save(own, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    engine = Engine(find_weights("m.pt", tmp_path), device="cpu")
    assert engine.info.class_names == {0: "RBC", 1: "WBC", 2: "Platelets"}


@pytest.mark.parametrize(
    ("module", "what"),
    [("ultralytics.nn.modules.block", "C3k9"), ("ultralytics.nn.modules.later", "ultralytics.nn.modules.later")],
)
def test_weights_of_a_newer_ultralytics_are_told_so(
    tmp_path: Path, own: Any, monkeypatch: pytest.MonkeyPatch, module: str, what: str
) -> None:
    """They hold a block that is there while they are saved, and gone when they are loaded."""
    with monkeypatch.context() as later:
        if module not in sys.modules:
            later.setitem(sys.modules, module, types.ModuleType(module))
        new_block = type("C3k9", (block.C3k2,), {"__module__": module})
        later.setattr(sys.modules[module], "C3k9", new_block, raising=False)
        own.model.model[2].__class__ = new_block
        own.save(tmp_path / "m.pt")
    message = refusal(tmp_path / "m.pt")
    assert_told(message, f"need {what} of Ultralytics", "doesn't have", "pip install -U ultralytics-opencv-headless")


def test_weights_that_another_version_wrote_otherwise_are_told_so(tmp_path: Path, own: Any) -> None:
    del own.model.model[2].m
    own.save(tmp_path / "m.pt")
    assert_told(refusal(tmp_path / "m.pt"), "don't fit Ultralytics", "install the one that they were trained with")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({}, ("has no class names",)),
        ({0: "", 1: " ", 2: ""}, ("has no class names",)),
        ({1: "a", 2: "b", 3: "c"}, ("3 class names, numbered 1 to 3", "number them 0 to 2")),
        ({0: "a", 2: "c"}, ("2 class names, numbered 0 to 2", "number them 0 to 1")),
        (["a", "b"], ("have 3 classes, but 2 names", "y.save(")),
        ({number: str(number) for number in range(80)}, ("have 3 classes, but 80 names", "y.save(")),
    ],
)
def test_names_that_cannot_be_those_of_the_classes_are_refused(
    tmp_path: Path, own: Any, names: Any, words: tuple[str, ...]
) -> None:
    own.model.names = names
    own.save(tmp_path / "m.pt")
    assert_told(refusal(tmp_path / "m.pt"), *words)


@pytest.mark.parametrize(
    ("names", "expected", "remark"),
    [
        (["a", "b", "c"], {0: "a", 1: "b", 2: "c"}, None),
        ({0: "a", 1: "a", 2: "b"}, {0: "a", 1: "a", 2: "b"}, None),
        ({0: "細胞", 1: "Größe", 2: "клетка"}, {0: "細胞", 1: "Größe", 2: "клетка"}, None),
        ({0: "a", 1: "", 2: "c"}, {0: "a", 1: "", 2: "c"}, "Of the classes of m.pt, 1 have no name"),
    ],
)
def test_odd_names_are_taken_as_they_are(
    tmp_path: Path, own: Any, names: Any, expected: dict[int, str], remark: str | None
) -> None:
    own.model.names = names
    own.save(tmp_path / "m.pt")
    info = Engine(tmp_path / "m.pt", device="cpu").info
    assert info.class_names == expected
    assert (info.remark or "").startswith(remark or "")
    assert bool(info.remark) == bool(remark)


def test_weights_that_answer_no_numbers_are_refused(tmp_path: Path, own: Any) -> None:
    for parameter in own.model.parameters():
        parameter.data.fill_(float("nan"))
    own.save(tmp_path / "m.pt")
    assert_told(refusal(tmp_path / "m.pt"), "not a number (NaN)", "train or export it anew")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: YOLO("yolo26n-sem.yaml"),
            ("for the task semantic", "expected one of detect, segment, pose, obb, cla"),
        ),
        (lambda: YOLO("yolo26n-depth.yaml"), ("for the task depth", "expected one of detect, segment, pose, obb, cla")),
        (lambda: RTDETR("rtdetr-l.yaml"), ("are an RT-DETR", "expected a YOLO")),
        (lambda: YOLOE("yoloe-11s-seg.yaml"), ("a YOLOE that was told no classes", "set_classes")),
    ],
)
def test_other_kinds_are_named(tmp_path: Path, make: Callable[[], Any], words: tuple[str, ...]) -> None:
    make().save(tmp_path / "m.pt")
    assert_told(refusal(tmp_path / "m.pt"), *words)


@pytest.mark.parametrize("name", ["yolov5s.pt", "yolov5n6.pt", "yolov3.pt", "yolov3-tiny.pt", "it's.pt"])
def test_a_file_is_never_taken_for_another(
    tmp_path: Path, own: Any, bccd_weights: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By a path without a "u", Ultralytics loads yolov5su.pt for yolov5s.pt; and it strikes out apostrophes."""
    copy(bccd_weights, tmp_path / name)
    own.model.names = {0: "another's", 1: "another's", 2: "another's"}
    for others in (name.replace(".pt", "u.pt"), name.replace("'", "_").replace("_", "")):
        if others != name:
            own.save(tmp_path / others)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    info = Engine(Path(name), device="cpu").info
    assert (info.name, info.class_names) == (name, {0: "RBC", 1: "WBC", 2: "Platelets"})
    extractor = FeatureExtractor(Path(name), device="cpu", image_size=64)
    assert extractor._yolo.names == info.class_names
    assert extractor.extract(np.zeros((64, 64, 3), np.uint8)).shape
    assert list((tmp_path / "temporary").iterdir()) == []


def test_where_links_cannot_be_made_the_file_is_copied(bccd_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert load_checkpoint(bccd_weights).model.pt_path == str(bccd_weights)


def test_an_error_of_ultralytics_says_the_files_own_name(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"nothing")
    with pytest.raises(TypeError) as raised:
        load_checkpoint(tmp_path / "mine.pt")
    assert str(tmp_path / "mine.pt") in str(raised.value)
    assert "weights.pt" not in str(raised.value)


# Exports of Ultralytics


Export = Callable[..., Path]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, bccd_weights: Path) -> Export:
    """An ONNX export of the blood cells' weights, by options, each made once."""
    folder = tmp_path_factory.mktemp("exports")

    def make(**options: Any) -> Path:
        weights = folder / ("-".join(f"{key}{value}" for key, value in options.items()) + ".pt")
        if not weights.with_suffix(".onnx").exists():
            copy(bccd_weights, weights)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.onnx calls the exporter that Ultralytics uses old
                YOLO(weights).export(**{"format": "onnx", "imgsz": 320, "simplify": False, "device": "cpu", **options})
        return weights.with_suffix(".onnx")

    return make


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 4},
        {"imgsz": (256, 320)},
        {"imgsz": (320, 192)},
        {"quantize": 16},
        {"quantize": 16, "dynamic": True},
        {"dynamic": True},
        {"nms": True, "dynamic": True},
        {"nms": True, "batch": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("runtime", ["auto", "openvino"])
def test_an_export_gives_what_ultralytics_finds_with_it(
    export: Export, bccd_images: list[Pixels], options: dict[str, Any], runtime: str
) -> None:
    path = export(**options)
    engine, same_file = Engine(path, device="cpu", engine=runtime), YOLO(path, task="detect")
    size = options.get("imgsz", 320)
    halved = 0.05 if "quantize" in options else 0.0  # what is near the threshold may fall on either side of it
    found = detect(engine, bccd_images[:5], 0.3)
    assert sum(map(len, found)) > 5
    for image, detections in zip(bccd_images, found, strict=False):
        expected = ultralytics_detections(same_file, image, 0.3, imgsz=size)
        assert abs(len(detections) - len(expected)) <= 1
        assert_close(detections, expected, 0.3 + halved)


def changed(source: Path, path: Path, change: Callable[[Any], None] = lambda _: None, **metadata: Any) -> Path:
    """The same network, after a change, saying other things of itself; what is changed to None it doesn't say."""
    model = onnx.load(source)
    change(model)
    said = {entry.key: entry.value for entry in model.metadata_props} | metadata
    onnx.helper.set_model_props(model, {key: str(value) for key, value in said.items() if value is not None})
    onnx.save(model, path)
    return path


def with_names_only(source: Path, path: Path, change: Callable[[Any], None] = lambda _: None) -> Path:
    """As another exporter makes it, and somebody added names."""
    none = dict.fromkeys(("task", "stride", "batch", "imgsz", "args", "channels", "end2end", "head"))
    return changed(source, path, change, **none)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("names", [None, "", "{}", "[]"])
def test_an_export_without_names_is_refused_with_how_to_give_them(
    export: Export, tmp_path: Path, dynamic: bool, names: str | None
) -> None:
    path = changed(export(dynamic=dynamic), tmp_path / "m.onnx", names=names)
    assert refusal(path) == (
        'm.onnx has no class names in its metadata: export it with Ultralytics, YOLO("best.pt").export(format="onnx"), '
        f"or add them (key `names`, such as {{0: 'cat', 1: 'dog'}}) ({path})"
    )


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("['a', 'b', 'c']", {0: "a", 1: "b", 2: "c"}),
        ('["a", "b", "c"]', {0: "a", 1: "b", 2: "c"}),
        ('{"0": "a", "1": "b", "2": "c"}', {0: "a", 1: "b", 2: "c"}),
        ('{"0": "a", "1": "b", "2": "\\u00e9"}', {0: "a", 1: "b", 2: "é"}),
        ("{0: 'a', 1: 'a', 2: 'a'}", {0: "a", 1: "a", 2: "a"}),
        ("{0: 0, 1: 1, 2: 2}", {0: "0", 1: "1", 2: "2"}),
        ("{0: '細胞', 1: 'Größe', 2: 'клетка'}", {0: "細胞", 1: "Größe", 2: "клетка"}),
    ],
)
def test_names_as_people_write_them(
    export: Export, tmp_path: Path, dynamic: bool, names: str, expected: dict[int, str]
) -> None:
    path = changed(export(dynamic=dynamic), tmp_path / "m.onnx", names=names)
    assert Engine(path, device="cpu").info.class_names == expected


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"names": "RBC,WBC,P"}, ("metadata that can't be read, names='RBC,WBC,P'", "export it with Ultralytics")),
        ({"names": "{'a': 0, 'b': 1, 'c': 2}"}, ("metadata that can't be read, names=", "export it with")),
        ({"stride": "many"}, ("metadata that can't be read, stride='many'", "export it with Ultralytics")),
        ({"args": "none"}, ("metadata that can't be read, args='none'", "export it with Ultralytics")),
        ({"imgsz": "[1, 2, 3]"}, ("metadata that can't be read, imgsz=", "export it with Ultralytics")),
        ({"names": "{1: 'a', 2: 'b', 3: 'c'}"}, ("numbered 1 to 3", "number them 0 to 2")),
        ({"names": "{0: 'a', 1: 'b'}"}, ("2 classes need 6 rows, not 7", "export it anew")),
        ({"names": str(dict.fromkeys(range(1000), "x"))}, ("1000 classes need 1004 rows, not 7", "export it")),
        ({"task": "obb"}, ("3 classes need 8 rows, not 7", "export it anew")),
        ({"task": "segment"}, ("answer no masks", "export them anew")),
        ({"task": "classify"}, ("for the task classify",)),
    ],
)
def test_what_a_file_says_of_itself_is_held_against_it(
    export: Export, tmp_path: Path, dynamic: bool, metadata: dict[str, str], words: tuple[str, ...]
) -> None:
    said: dict[str, Any] = {"args": {"dynamic": dynamic}} | metadata
    path = changed(export(dynamic=dynamic), tmp_path / "m.onnx", **said)
    assert_told(refusal(path), *words)


def test_a_network_with_names_alone_is_served(export: Export, tmp_path: Path, bccd_images: list[Pixels]) -> None:
    path = with_names_only(export(dynamic=False), tmp_path / "m.onnx")
    found, expected = (
        detect(Engine(each, device="cpu"), bccd_images[:3], 0.25) for each in (path, export(dynamic=False))
    )
    assert sum(map(len, expected)) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def _batch_is_free(model: Any) -> None:
    for each in (model.graph.input[0], model.graph.output[0]):
        each.type.tensor_type.shape.dim[0].dim_param = "batch"


def test_a_network_of_free_batch_but_fixed_size_gets_padded_squares(
    export: Export, tmp_path: Path, bccd_images: list[Pixels]
) -> None:
    """As torch.onnx.export with dynamic_axes={"images": {0: "batch"}} makes it."""
    engine = Engine(with_names_only(export(dynamic=False), tmp_path / "m.onnx", _batch_is_free), device="cpu")
    (found,) = detect(engine, bccd_images[:1], 0.25)
    (expected,) = detect(Engine(export(dynamic=False), device="cpu"), bccd_images[:1], 0.25)
    assert len(expected) > 0
    assert_same(found, expected)


def test_a_network_for_four_images_that_does_not_say_so_is_filled_up(
    export: Export, tmp_path: Path, bccd_images: list[Pixels]
) -> None:
    engine = Engine(with_names_only(export(batch=4), tmp_path / "m.onnx"), device="cpu")
    for found, expected in zip(
        detect(engine, bccd_images[:5], 0.25),
        detect(Engine(export(batch=4), device="cpu"), bccd_images[:5], 0.25),
        strict=True,
    ):
        assert len(expected) > 0
        assert_same(found, expected)


def test_a_file_of_fixed_size_that_says_it_is_free_is_refused(export: Export, tmp_path: Path) -> None:
    path = changed(export(dynamic=False), tmp_path / "m.onnx", args={"dynamic": True})
    assert_told(refusal(path), "take (1, 3, 320, 320) only", "export them anew")
    assert_told(refusal(path, engine="openvino"), "take (1, 3, 320, 320) only", "export them anew")


# Networks of other exporters


def network(
    path: Path,
    output_shape: Sequence[int],
    *,
    boxes: float = 100,
    scores: float = 0.01,
    input_shape: Sequence[int | str] = (1, 3, 64, 64),
    dtype: int = onnx.TensorProto.FLOAT,
    inputs: int = 1,
    **metadata: Any,
) -> Path:
    """A network that answers rows of boxes and scores, whatever the image."""
    helper = onnx.helper
    answer = np.full(output_shape, scores, np.float32)
    answer[:, :4] = boxes
    names = [f"images{number or ''}" for number in range(inputs)]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["floats"], ["least"], keepdims=0),
            helper.make_node("Mul", ["least", "zero"], ["nothing"]),
            helper.make_node("Add", ["answer", "nothing"], ["output0"]),
        ],
        "network",
        [helper.make_tensor_value_info(name, dtype, input_shape) for name in names],
        [helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, output_shape)],
        [onnx.numpy_helper.from_array(answer, "answer"), onnx.numpy_helper.from_array(np.float32(0), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in {"names": ["a", "b", "c"], **metadata}.items()})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shape": (1, 64, 64, 3)}, ("channels last (NHWC)", "expected RGB images (n, 3, height, width)")),
        ({"input_shape": (1, 1, 64, 64)}, ("want 1 channels", "expected RGB images")),
        ({"input_shape": (3, 64, 64)}, ("an input of 3 dimensions", "expected RGB images")),
        ({"dtype": onnx.TensorProto.UINT8}, ("tensor(uint8)", "as float32")),
        ({"inputs": 2}, ("want 2 inputs", "export them with Ultralytics")),
        ({"scores": float("nan")}, ("answer not a number (NaN)", "export it anew")),
        ({"boxes": float("nan")}, ("answer not a number (NaN)", "export it anew")),
        ({"scores": -4.5}, ("scores from -4.5 to -4.5, not from 0 to 1", "export it anew")),
        ({"scores": 12}, ("scores from 12 to 12, not from 0 to 1", "export it anew")),
        ({"boxes": 0.5}, ("boxes in parts of the image, not in pixels", "export it anew")),
    ],
)
def test_what_other_exporters_do_otherwise_is_refused(
    tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert_told(refusal(network(tmp_path / "m.onnx", (1, 7, 84), **options)), *words)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 25200, 8), ("as the YOLOv5 repository exports it", 'YOLO("yolov5su.pt").train')),
        ((1, 300, 6), ("look like boxes after NMS", "export it anew with Ultralytics")),
        ((1, 84, 7), ("3 classes need 7 rows, not 84", "export it anew with Ultralytics")),
        ((84, 7), ("3 classes need 7 rows", "export it anew with Ultralytics")),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, shape: tuple[int, ...], words: tuple[str, ...]) -> None:
    assert_told(refusal(network(tmp_path / "m.onnx", shape)), *words)


@pytest.mark.parametrize("count", [1, 1000])
def test_any_number_of_classes_is_served(tmp_path: Path, bccd_images: list[Pixels], count: int) -> None:
    names = {number: f"class {number}" for number in range(count)}
    path = network(tmp_path / "m.onnx", (1, 4 + count, 84), boxes=30, scores=0.5, names=names)
    engine = Engine(path, device="cpu")
    assert engine.info.class_names == names
    (found,) = detect(engine, bccd_images[:1], 0.25)
    assert found.class_ids.tolist() == [0]


def _newer_ir(model: Any) -> None:
    model.ir_version = 99


def _newer_opset(model: Any) -> None:
    model.opset_import[0].version = 99


def _own_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Shuffle"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_newer_ir, ("for a newer ONNX Runtime", "opset=17")),
        (_newer_opset, ("for a newer ONNX Runtime", "opset=17")),
        (_own_operator, ("need Shuffle, an operator that ONNX Runtime doesn't have", "export them with Ultralytics")),
    ],
)
def test_what_onnx_runtime_cannot_read_is_told(
    export: Export, tmp_path: Path, change: Callable[[Any], None], words: tuple[str, ...]
) -> None:
    assert_told(refusal(changed(export(dynamic=True), tmp_path / "m.onnx", change)), *words)


def test_what_openvino_cannot_read_is_told_alike(export: Export, tmp_path: Path) -> None:
    path = changed(export(dynamic=True), tmp_path / "m.onnx", _own_operator)
    assert refusal(path, engine="openvino") == refusal(path)


def test_numbers_that_lie_in_a_file_beside_it_are_missed(export: Export, tmp_path: Path) -> None:
    model = onnx.load(export(dynamic=True))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data")
    assert Engine(find_weights("m.onnx", tmp_path), device="cpu").runtime.engine == "onnx"
    (tmp_path / "m.onnx.data").unlink()
    assert_told(refusal(tmp_path / "m.onnx"), "keep their numbers in the file m.onnx.data", "put that beside them")


def test_half_of_an_export_is_told(export: Export, tmp_path: Path) -> None:
    content = export(dynamic=True).read_bytes()
    (tmp_path / "m.onnx").write_bytes(content[: len(content) // 2])
    assert_told(refusal(tmp_path / "m.onnx"), "is broken, or only half downloaded", "download or copy it again")
