"""The entry that people of Label Studio's template know: `python _wsgi.py`; `gunicorn _wsgi:app`, without draining."""

import os
import sys

from yolo_backend.server.startup import make_app, serve

os.environ.setdefault("MODEL_CLASS", "model:YoloBackend")  # of model.py beside this file

if __name__ == "__main__":
    serve(sys.argv[1:])
else:
    app = make_app()
