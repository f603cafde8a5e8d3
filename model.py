"""The model class that `_wsgi.py`, `make run` and the Docker image serve: change it here (docs/extending.md)."""

from yolo_backend.model import YoloBackend as _YoloBackend


class YoloBackend(_YoloBackend):
    """Predicts rectangles. `predict` and `fit` can be overridden here."""
