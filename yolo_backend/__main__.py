"""`python -m yolo_backend COMMAND` is `yolo-backend COMMAND`."""

import sys
from pathlib import Path

if sys.path and sys.path[0] == str(Path.cwd()):
    del sys.path[0]  # `-m` puts it there; a `model.py` or `torch.py` of the current folder isn't meant

from yolo_backend.cli.app import main

if __name__ == "__main__":
    main()
