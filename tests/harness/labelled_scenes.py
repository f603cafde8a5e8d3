"""The demo's scenes in a project whose labels no weights know, and what people draw there."""

from __future__ import annotations

from typing import Any

from tests.harness.studio_client import StudioClient
from yolo_backend.demo.scenes import Scene
from yolo_backend.protocol import sent_project

# Names that no weights know; which of the demo's classes each of them is.
LABELS = ("Mutter", "Schraube", "Scheibe")
CONFIG = f"""
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image">
    {"".join(f'<Label value="{label}"/>' for label in LABELS)}
  </RectangleLabels>
</View>
"""


def region(scene: Scene, number: int) -> dict[str, Any]:
    """A box as the labeling page stores it."""
    width, height = scene.size_wh
    left, top, right, bottom = scene.boxes_xyxy[number]
    return {
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "origin": "manual",
        "value": {
            "x": left / width * 100,
            "y": top / height * 100,
            "width": (right - left) / width * 100,
            "height": (bottom - top) / height * 100,
            "rotation": 0,
            "rectanglelabels": [LABELS[scene.class_ids[number]]],
        },
    }


def sent_as(client: StudioClient, project: int) -> str:
    """What Label Studio sends as `project`."""
    return sent_project(project, client.call("GET", f"/api/projects/{project}/")["created_at"])
