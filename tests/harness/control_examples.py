"""A labeling config of each control, as HumanSignal's YOLO example writes it, for scenes of bars, rings and arrows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.harness.shapes import CLASS_NAMES, draw_shapes, shapes_weights

SIZE_WH = (640, 480)
WEIGHTS = ("segment", "pose", "obb", "classify")
_COLORS = ("#ffb000", "#00b578", "#3a6df0")


@dataclass(frozen=True)
class Example:
    """Controls of one kind, what the docs call them, and the scene that they are shown with."""

    name: str
    shown_as: str
    controls: str
    scene: int
    most: int = 4

    @property
    def config(self) -> str:
        """The whole labeling config."""
        return f'<View><Image name="image" value="$image"/>{self.controls}</View>'

    def save_scene(self, path: Path) -> None:
        """Draw the scene."""
        Image.fromarray(draw_shapes(self.scene, SIZE_WH, most=self.most).image).save(path)


def settings() -> dict[str, str]:
    """Those of a backend that has weights of each kind, of which each control takes the first that fit."""
    paths = [shapes_weights(kind) for kind in WEIGHTS]
    return {
        "MODEL_ROOT": str(paths[0].parent),
        "MODEL_NAME": ", ".join(path.name for path in paths),
        "MODEL_IMAGE_SIZE": "160",
    }


def _labels(tag: str = "Label") -> str:
    return "".join(
        f'<{tag} value="{name}" background="{color}"/>' for name, color in zip(CLASS_NAMES, _COLORS, strict=True)
    )


def _of_shape(shape: str, attributes: str = "") -> str:
    return (
        f'<{shape}Labels name="label" toName="image" model_score_threshold="0.5" opacity="0.4" {attributes}>'
        f"{_labels()}</{shape}Labels>"
    )


_POINTS = "".join(
    f'<Label value="{name}" predicted_values="{", ".join(CLASS_NAMES)}" model_index="{index}" background="{color}"/>'
    for index, (name, color) in enumerate(zip(("tip", "tail", "side"), _COLORS, strict=True))
)
_KEY_POINTS = (
    f'<RectangleLabels name="keypoints_bbox" toName="image" model_skip="true">{_labels()}</RectangleLabels>'
    '<KeyPointLabels name="keypoints" toName="image" model_score_threshold="0.5" model_point_threshold="0.5" '
    f'model_add_bboxes="true" model_point_size="5" opacity="1">{_POINTS}</KeyPointLabels>'
)
_CHOICES = f'<Choices name="choice" toName="image" model_score_threshold="0.5">{_labels("Choice")}</Choices>'
_TAXONOMY = (
    '<Taxonomy name="taxonomy" toName="image" model_score_threshold="0.5"><Choice value="Straight">'
    '<Choice value="bar"/><Choice value="arrow"/></Choice><Choice value="Round"><Choice value="ring"/></Choice>'
    "</Taxonomy>"
)
_NUMBER = (
    '<Number name="bars" toName="image" model_count="bar"/><Number name="all" toName="image" '
    f'model_count="{", ".join(CLASS_NAMES)}"/>'
)

EXAMPLES = (
    Example("rectangles", "RectangleLabels", _of_shape("Rectangle"), 7),
    Example("rotated", "RectangleLabels, OBB weights", _of_shape("Rectangle", 'model_path="shapes-obb.pt"'), 7),
    Example("polygons", "PolygonLabels", _of_shape("Polygon"), 7),
    Example("masks", "BrushLabels", _of_shape("Brush"), 7),
    Example("ellipses", "EllipseLabels", _of_shape("Ellipse", 'model_path="shapes-obb.pt"'), 7),
    Example("points", "KeyPointLabels", _KEY_POINTS, 7),
    Example("choices", "Choices", _CHOICES, 8, most=1),
    Example("taxonomy", "Taxonomy", _TAXONOMY, 8, most=1),
    Example("number", "Number", _NUMBER, 7),
)
