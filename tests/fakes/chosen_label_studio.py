"""A Label Studio with one project, for whose images somebody chose what they show: a bar, a ring or an arrow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT, LabelStudio
from tests.harness.http_server import reply
from tests.harness.shapes import CLASS_NAMES, draw_shapes

CHOICES = ("Stab", "Kreis", "Pfeil")
"""That no weights know; in the order of `CLASS_NAMES`."""

CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="kind" toName="image">'
    + "".join(f'<Choice value="{label}"/>' for label in CHOICES)
    + "</Choices></View>"
)
SIZE_WH = (160, 160)  # a square, of which nothing is cut off


@dataclass
class ChosenLabelStudio(LabelStudio):
    """With a `shuffled_by`, the choices are those of other images, in the order that this seed gives.

    With `always`, these are chosen for each image.
    """

    shuffled_by: int | None = None
    always: tuple[str, ...] = ()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        if not self.away and path.startswith("/data/upload/"):
            reply(scene(int(path.rpartition("-")[2].removesuffix(".png")))[0])(handler)
        else:
            super().__call__(handler)

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == f"/api/projects/{PROJECT}/":
            return {"id": PROJECT, "title": "Shapes", "label_config": CONFIG, "created_at": CREATED_AT}
        return super().answer(path, query)

    def task(self, number: int) -> dict[str, Any]:
        region = {
            "id": f"choice{number}",
            "type": "choices",
            "from_name": "kind",
            "to_name": "image",
            "origin": "manual",
            "value": {"choices": list(self.always) or [CHOICES[scene(self._looked_at(number))[1]]]},
        }
        annotation = {
            "id": 1000 + number,
            "was_cancelled": False,
            "ground_truth": False,
            "updated_at": f"2025-02-03T04:05:{number % 60:02d}.000000Z",
            "result": [region],
        }
        return {
            "id": number,
            "data": {"image": f"/data/upload/{PROJECT}/01234567-{number}.png"},
            "annotations": [annotation],
            "predictions": [],
            "drafts": [],
        }

    def _looked_at(self, number: int) -> int:
        if self.shuffled_by is None:
            return number
        return 1 + int(np.random.default_rng(self.shuffled_by).permutation(self.scenes)[number - 1])


@cache
def scene(number: int) -> tuple[bytes, int]:
    """A PNG, and the number of the class that it shows."""
    drawn = draw_shapes(500 + number, SIZE_WH, most=1)
    assert len(CHOICES) == len(CLASS_NAMES)
    content = io.BytesIO()
    Image.fromarray(drawn.image).save(content, "PNG")
    return content.getvalue(), drawn.things[0].class_id
