"""Which shape a model's raw outputs have, by its classes and its task; read otherwise, they would be no boxes."""

from __future__ import annotations


def layout_problem(shape: tuple[int, ...], classes: int, extra: int | None, *, end2end: bool) -> str | None:
    """Why outputs of this shape aren't those of weights with so many classes, None where they are.

    `extra` numbers of a box come after its place and its scores; None: at least one, the key points.
    """
    if end2end:
        numbers = shape[2] if len(shape) == 3 else 0
        if numbers == 6 + extra if extra is not None else numbers > 6:
            return None
        return f"outputs after NMS need {'more than 6' if extra is None else 6 + extra} numbers a box"
    rows = shape[1] if len(shape) == 3 else 0
    least = 4 + classes
    if rows == least + extra if extra is not None else rows > least:
        return None
    if len(shape) == 3 and shape[2] == 5 + classes:
        return "that is a YOLO as the YOLOv5 repository exports it; export it with Ultralytics 8.0 or later"
    return f"{classes} classes need {f'more than {least}' if extra is None else least + extra} rows"
