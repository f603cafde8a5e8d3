"""The environment of all tests, which comes first: what they import reads it at once."""

import os
import tempfile

_YOLO_CONFIG = tempfile.TemporaryDirectory(prefix="yolo-config-")
os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": _YOLO_CONFIG.name}
# Threads of torch that wait for each other leave their core to other tests.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# The commands' terminal, in this process and in others: so wide that no line is broken where a test looks for it.
os.environ |= {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
