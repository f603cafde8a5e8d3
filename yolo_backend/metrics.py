"""What Prometheus may know; no label holds an address, a name or a token."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("yolo_requests", "Answers by route and HTTP status.", ["route", "status"])
TASKS = Counter("yolo_tasks", "Tasks by outcome: predicted, failed, or not ready by the deadline.", ["outcome"])
IMAGE_FAILURES = Counter("yolo_image_failures", "Images that could not be had, by kind of failure.", ["kind"])
REGIONS = Counter("yolo_regions", "Regions answered.")
REMEMBERED_IMAGES = Counter("yolo_remembered_images", "Images answered from memory.")
DETECT_SECONDS = Histogram(
    "yolo_detect_seconds", "Time of one batch in the model.", buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
)
BATCH_SIZE = Histogram("yolo_batch_size", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64))
IN_FLIGHT = Gauge("yolo_tasks_in_flight", "Tasks being fetched, decoded or detected.")
