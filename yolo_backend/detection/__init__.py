"""From pixels to boxes."""

import os

# Ultralytics reads these when it is imported: nothing is installed and no host is asked behind the operator's back.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
