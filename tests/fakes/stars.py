"""A kind of weights that we don't serve: they find stars and comets, each with a tip and a glow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from yolo_backend.detection import heads
from yolo_backend.detection.detections import Letterboxed
from yolo_backend.detection.heads.boxes import BoxHead

SIZE = 64
NAMES = {0: "comet", 1: "star"}
STARS = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="star"/><Label value="comet"/></RectangleLabels></View>"""
WHITE_IN_PERCENT = [("star", [18.75, 40.625, 12.5, 18.75]), ("comet", [54.688, 26.562, 15.625, 9.375])]
"""What is found in a white image, by label: x, y, width, height."""
# In a white image: center, size, a score for each class, where its tip is, and its glow.
_A_STAR, _A_COMET = [16, 32, 8, 12, 0, 0.9, 18, 26, 7], [40, 20, 10, 6, 0.8, 0, 50, 4, 3]


class StarHead(BoxHead):
    """A box has a tip, which is a place, and a glow, which is a number."""

    kind = "star"

    def _more_numbers(self, raw: Any) -> int | None:
        return 3

    def _extras(
        self, rows: NDArray[np.float32], image: Letterboxed, input_shape: tuple[int, ...]
    ) -> Mapping[str, NDArray[Any]]:
        scale = np.divide(image.original_size_wh, input_shape[::-1]).astype(np.float32)
        return {"tips_xy": rows[:, 6:8] * scale, "glows": rows[:, 8].astype(np.uint8)}


def serve_stars(patch: pytest.MonkeyPatch) -> None:
    """Serve them until `patch` is undone: the one entry that a kind of weights takes."""
    patch.setitem(heads.HEADS, StarHead.kind, StarHead)


def write_star_weights(path: Path) -> Path:
    """A network that finds a star and a comet in each image: how bright it is, is what all of their numbers are times.

    It says of itself that it is of the kind `star`.
    """
    found = np.array([_A_STAR, _A_COMET], np.float32).T[None]
    size = ["n", 3, "height", "width"]
    nodes = [
        onnx.helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        onnx.helper.make_node("Squeeze", ["mean", "last"], ["brightness"]),
        onnx.helper.make_node("Mul", ["found", "brightness"], ["output0"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, size)],
        [onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, ["n", 9, 2])],
        [onnx.numpy_helper.from_array(found, "found"), onnx.numpy_helper.from_array(np.array([3]), "last")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    about = {"task": "star", "stride": "32", "imgsz": f"[{SIZE}, {SIZE}]", "names": NAMES, "args": {"dynamic": True}}
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


def gray(brightness: float, side: int = SIZE) -> NDArray[np.uint8]:
    """An image that is as bright everywhere: 1 is white."""
    return np.full((side, side, 3), round(255 * brightness), np.uint8)
