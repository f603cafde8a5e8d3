"""Training: what people labelled becomes weights for their project, if these are better than what serves."""

# What Ultralytics reads of the environment when it is imported is set there.
import yolo_backend.detection  # noqa: F401
