"""The kinds of weights that are served, a file each. A new kind is a file and an entry in `HEADS`."""

from yolo_backend.detection.heads.classify import ClassifyHead
from yolo_backend.detection.heads.detect import DetectHead
from yolo_backend.detection.heads.head import Head, HeadOptions
from yolo_backend.detection.heads.obb import ObbHead
from yolo_backend.detection.heads.pose import PoseHead
from yolo_backend.detection.heads.segment import SegmentHead

__all__ = ["DEFAULT_KIND", "HEADS", "Head", "HeadOptions"]

DEFAULT_KIND = DetectHead.kind  # of a file that doesn't say its kind
_HEADS: tuple[type[Head], ...] = (DetectHead, SegmentHead, PoseHead, ObbHead, ClassifyHead)
HEADS: dict[str, type[Head]] = {head.kind: head for head in _HEADS}
