"""What is shown of training, as HTML and SVG: escaped, without scripts, and readable offline."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("yolo_backend.training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template with these values, which are escaped."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704  made of ours, and escaped
