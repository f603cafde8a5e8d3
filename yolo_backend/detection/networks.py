"""What a file's network is and takes, and whether it can be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ultralytics.utils.checks import check_imgsz

from yolo_backend.detection.heads import HEADS
from yolo_backend.detection.heads.classify import transforms_problem
from yolo_backend.detection.metadata import ExportMetadata, check_names
from yolo_backend.detection.weights import WeightsFileError


@dataclass(frozen=True)
class NetworkInput:
    """What an exported network takes: (n, channels, height, width); None for any number."""

    shape: tuple[int | None, ...]
    dtype: str

    @classmethod
    def of_onnx(cls, taken: Any) -> NetworkInput:
        dtype = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(taken.type, taken.type)
        return cls(tuple(size if isinstance(size, int) else None for size in taken.shape), dtype)

    @classmethod
    def of_openvino(cls, taken: Any) -> NetworkInput:
        sizes = tuple(None if size.is_dynamic else int(size.get_length()) for size in taken.partial_shape)
        kind = taken.element_type.get_type_name()
        return cls(sizes, {"f32": "float32", "f16": "float16"}.get(kind, kind))

    @property
    def count(self) -> int | None:
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int] | None:
        height, width = self.shape[2:4]
        return None if height is None or width is None else (height, width)


def check_inputs(name: str, inputs: Sequence[NetworkInput]) -> NetworkInput:
    """What the file takes. It has to be images as Ultralytics' exports take them. Raises WeightsFileError."""
    what = None
    if len(inputs) != 1:
        what = f"{len(inputs)} inputs"
    elif len(inputs[0].shape) != 4:
        what = f"an input of {len(inputs[0].shape)} dimensions"
    elif inputs[0].shape[1] not in {3, None}:
        channels_last = inputs[0].shape[3] == 3
        what = "images with their channels last (NHWC)" if channels_last else f"{inputs[0].shape[1]} channels"
    elif inputs[0].dtype not in {"float32", "float16"}:
        what = f"numbers of the type {inputs[0].dtype}"
    if what:
        raise WeightsFileError(
            f"Weights {name} want {what}: expected RGB images (n, 3, height, width) as float32; export them with "
            'Ultralytics, YOLO("best.pt").export(format="onnx")'
        )
    return inputs[0]


def check_kind(name: str, kind: str, network_head: str) -> None:
    """Raises WeightsFileError for weights of a kind that no head reads, or that aren't a YOLO."""
    if kind not in HEADS:
        raise WeightsFileError(f"Weights {name} are for the task {kind}: expected one of {', '.join(HEADS)}")
    if network_head in {"RTDETR", "RTDETRDecoder"}:
        raise WeightsFileError(f"Weights {name} are an RT-DETR: expected a YOLO")


def check_network(name: str, network: Any) -> None:
    """Raises WeightsFileError for a network of a .pt file whose classes have no names, or aren't chosen yet.

    Also for one that classifies images whose colors were changed as we don't change them.
    """
    check_names(name, named(getattr(network, "names", None) or {}))
    if problem := transforms_problem(getattr(network, "transforms", None)):
        raise WeightsFileError(f"Weights {name} want {problem}: train them with Ultralytics, which doesn't do that")
    head, names = network.model[-1], len(network.names)
    if names != (classes := int(getattr(head, "nc", names))):
        raise WeightsFileError(
            f"Weights {name} have {classes} classes, but {names} names: name each of them, in a copy: "
            'y = YOLO("x.pt"); y.model.names = {0: "cat", 1: "dog"}; y.save("mine.pt")'
        )
    if "YOLOE" in type(head).__name__ and not (hasattr(network, "pe") or hasattr(head, "lrpc") or head.is_fused):
        raise WeightsFileError(
            f"Weights {name} are a YOLOE that was told no classes: tell it, and save that: "
            'y = YOLOE("x.pt"); y.set_classes(["cat", "dog"]); y.save("mine.pt")'
        )


def named(names: Any) -> dict[int, str]:
    """The class names of a network, which may hold them as a list."""
    numbered = enumerate(names) if isinstance(names, list | tuple) else names.items()
    return {int(number): str(name) for number, name in numbered}


def points_of(network: Any) -> tuple[int, int] | None:
    """How many key points a network finds in a box, and how many numbers each has."""
    shape = getattr(network, "kpt_shape", None)
    return (int(shape[0]), int(shape[1])) if shape else None


def check_channels(name: str, channels: int) -> None:
    """Raises WeightsFileError for weights that don't take RGB images."""
    if channels != 3:
        raise WeightsFileError(f"Weights {name} want {channels} channels: expected 3 (RGB)")


def whole_strides(image_size: Any, stride: int) -> tuple[int, int]:
    """An image size, a number or (height, width), rounded up to what the model takes."""
    height, width = check_imgsz(image_size, stride=stride, min_dim=2)
    return int(height), int(width)


def most_images(said: ExportMetadata) -> int | None:
    """How many images at once an exported file was made for; None for any number.

    If NMS is part of the file, it keeps to the traced example's number of images, even if the input's shape is free.
    """
    return None if said.is_dynamic and not said.has_nms else said.batch


def remark_of(name: str, said: ExportMetadata) -> str | None:
    if not said.has_nms:
        return None
    return (
        f"NMS is part of {name}: its own threshold (0.25, unless it was exported with another), IoU and maximum hold "
        "before MODEL_SCORE_THRESHOLD, MODEL_IOU_THRESHOLD and MODEL_MAX_DETECTIONS; export it without nms=True"
    )
