"""Checks the shape and the numbers of raw outputs, because there are no boxes if they are read in the wrong way."""

from __future__ import annotations

from typing import Any

_ANEW = 'export it anew with Ultralytics, YOLO("best.pt").export(format="onnx")'


def layout_problem(shape: tuple[int, ...], classes: int, extra: int | None, *, end2end: bool) -> str | None:
    """Why outputs of this shape aren't those of weights with so many classes; None if they are.

    `extra` numbers of a box come after its place and its scores; None: at least one, the key points.
    """
    is_batch = len(shape) == 3
    if end2end:
        numbers = shape[2] if is_batch else 0
        if numbers == 6 + extra if extra is not None else numbers > 6:
            return None
        return f"outputs after NMS need {'more than 6' if extra is None else 6 + extra} numbers a box; {_ANEW}"
    rows = shape[1] if is_batch else 0
    least = 4 + classes
    if rows == least + extra if extra is not None else rows > least:
        return None
    if is_batch and shape[2] == 5 + classes:
        return (
            "that is a YOLO as the YOLOv5 repository exports it; train such a model with Ultralytics, such as "
            'YOLO("yolov5su.pt").train(data=...)'
        )
    if is_batch and shape[2] == 6:
        return f"those look like boxes after NMS, but the file doesn't say so (end2end); {_ANEW}"
    wanted = f"more than {least}" if extra is None else least + extra
    others = f", not {rows}" if is_batch else ""
    return f"{classes} classes need {wanted} rows{others}; {_ANEW}"


def numbers_problem(outputs: Any, classes: int, *, end2end: bool) -> str | None:
    """Why these outputs can't be boxes and scores; None if they can. They are a tensor (n, rows, boxes), or NMS's."""
    boxes, scores = (outputs[..., :4], outputs[..., 4]) if end2end else (outputs[:, :4], outputs[:, 4 : 4 + classes])
    if not boxes.numel():
        return None
    if bool(boxes.isnan().any() or scores.isnan().any()):
        return "not a number (NaN): its training or its export went wrong, so train or export it anew"
    if float(scores.min()) < -0.01 or float(scores.max()) > 1.01:  # numbers of few bits are rounded
        return f"scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}, not from 0 to 1; {_ANEW}"
    if not end2end and 0 < float(boxes.max()) <= 2:
        return f"boxes in parts of the image, not in pixels; {_ANEW}"
    return None
