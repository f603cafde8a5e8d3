"""What Prometheus may know; no label holds an address, a name or a token.

Each process tells its own numbers, so with `WORKERS` above 1 a scrape meets any one of them (docs/watching.md). Nothing
here goes through prometheus_client's folder for several processes: a queue or an age of two processes has no sum.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("yolo_requests", "Answers by route and HTTP status.", ["route", "status"])
REQUEST_SECONDS = Histogram(
    "yolo_request_seconds",
    "Time from a request's headers to its answer, by route.",
    ["route"],
    # Among them what Label Studio waits for /predict (100), and the bound above the deadline's default (60).
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 60, 100, 120),
)
TASKS = Counter("yolo_tasks", "Tasks by outcome: predicted, failed, or not ready by the deadline.", ["outcome"])
IMAGE_FAILURES = Counter("yolo_image_failures", "Images that could not be had, by kind of failure.", ["kind"])
REGIONS = Counter("yolo_regions", "Regions answered.")
REMEMBERED_IMAGES = Counter("yolo_remembered_images", "Images answered from memory.")
DETECT_SECONDS = Histogram(
    "yolo_detect_seconds", "Time of one batch in the model.", buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
)
STAGE_SECONDS = Histogram(
    "yolo_stage_seconds",
    "Time spent by stage: fetching an image, decoding it, queueing for the model, and one batch in the model.",
    ["stage"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
# An image that stands in the task itself (`data:`) is not fetched.
FETCH_SECONDS, DECODE_SECONDS, QUEUE_SECONDS, MODEL_SECONDS = (
    STAGE_SECONDS.labels(stage) for stage in ("fetch", "decode", "queue", "model")
)
BATCH_SIZE = Histogram("yolo_batch_size", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64))
IN_FLIGHT = Gauge("yolo_tasks_in_flight", "Tasks being fetched, decoded or detected.")

# These three are asked for at each scrape, by the `set_function` of whoever knows them: a number that is pushed along
# with each change is wrong for good once a change is missed, and an age changes by itself. Such a function is called in
# any thread; it is quick, waits for nothing, and raises nothing, for then there would be no metrics at all.
QUEUE_TASKS = Gauge("yolo_queue_tasks", "Tasks of bulk work that wait for a place.")
QUEUE_AGE_SECONDS = Gauge("yolo_queue_age_seconds", "How long the first of these tasks has waited; 0 without one.")
HELD_BYTES = Gauge("yolo_held_bytes", "Bytes of bodies being read, waiting tasks and kept results.")

DELIVERIES = Counter(
    "yolo_deliveries",
    "Predictions of bulk work by their way to Label Studio, and what became of them: stored; held there already; lost "
    "on the way, and ready again; rejected; or unknown until Label Studio is asked.",
    ["way", "outcome"],
)
WAYS = ("answer", "import")
DELIVERY_OUTCOMES = ("stored", "held", "lost", "rejected", "unknown")
# At 0 from the start: else Prometheus misses the first of each, and a query for "nothing happens" finds nothing.
for _outcome in ("predicted", "failed", "not ready"):
    TASKS.labels(_outcome)
for _way in WAYS:
    for _outcome in DELIVERY_OUTCOMES:
        DELIVERIES.labels(_way, _outcome)
