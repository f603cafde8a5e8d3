"""The entry that people of Label Studio's template know: `python _wsgi.py`; `gunicorn _wsgi:app`, without draining."""

import sys

from yolo_backend.startup import make_app, serve

MODEL = "model:YoloBackend"

if __name__ == "__main__":
    serve(sys.argv[1:], MODEL)
else:
    app = make_app(MODEL)
