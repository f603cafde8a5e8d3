"""Weights of several kinds that find the same in each white image: known in every number, in a real runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

SIZE = 64
"""The side of the images that they are shown; numbers are in pixels of these."""

# A row is a center, a size, a score for each class and, of pose weights, x, y and score of each point.
DETECTED = ([16, 16, 8, 8, 0.9, 0], [48, 16, 8, 8, 0.7, 0], [32, 48, 16, 8, 0, 0.6])
CARS = {0: "car", 1: "truck"}
POSED = (
    [16, 32, 16, 32, 0.9, 16, 20, 0.95, 12, 24, 0.6, 20, 24, 0.3],
    [48, 32, 16, 32, 0.4, 48, 20, 0.9, 44, 24, 0.9, 52, 24, 0.9],
)
PEOPLE = {0: "person"}
SURE = [0.1, 0.6, 0.3]
VEHICLES = {0: "airliner", 1: "limousine", 2: "jeep"}


def write_fixed_weights(folder: Path) -> None:
    """Write det.onnx, pose.onnx and cls.onnx into a folder."""
    _write(folder / "det.onnx", np.array(DETECTED, np.float32).T[None], {"task": "detect", "names": CARS})
    pose = {"task": "pose", "names": PEOPLE, "kpt_shape": [3, 3]}
    _write(folder / "pose.onnx", np.array(POSED, np.float32).T[None], pose)
    _write(folder / "cls.onnx", np.array([SURE], np.float32), {"task": "classify", "names": VEHICLES})


def white(side: int = SIZE) -> NDArray[np.uint8]:
    """An image in which they find all of it."""
    return np.full((side, side, 3), 255, np.uint8)


def _write(path: Path, found: NDArray[np.float32], about: Mapping[str, Any]) -> None:
    """A network whose outputs are these numbers, times how bright an image is."""
    axes: Sequence[int] = range(found.ndim, 4)
    nodes = [
        onnx.helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        onnx.helper.make_node("Squeeze", ["mean", "axes"], ["brightness"]),
        onnx.helper.make_node("Mul", ["found", "brightness"], ["output0"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, "height", "width"])],
        [onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, ["n", *found.shape[1:]])],
        [onnx.numpy_helper.from_array(found, "found"), onnx.numpy_helper.from_array(np.array(axes), "axes")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    everything = {"stride": "32", "imgsz": f"[{SIZE}, {SIZE}]", "args": {"dynamic": True}, **about}
    for key, value in everything.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.save(model, path)
