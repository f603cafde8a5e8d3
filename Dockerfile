# With CUDA by default, which runs on a CPU too. CPU=1 makes an image without it (docs/docker.md).
FROM python:3.11.15-slim-bookworm AS build

RUN python -m venv /venv
WORKDIR /build
COPY requirements.txt requirements-base.txt constraints.txt ./

# CPU=1 leaves out 4 GB of CUDA libraries; TORCH_INDEX_URL names another place to have PyTorch from.
ARG CPU=
ARG TORCH_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache/pip \
    index="$TORCH_INDEX_URL"; \
    if [ -z "$index" ] && [ "$CPU" = 1 ]; then index=https://download.pytorch.org/whl/cpu; fi; \
    if [ -n "$index" ]; then \
        /venv/bin/pip install --no-deps --index-url "$index" -c constraints.txt torch torchvision; \
    fi \
    && /venv/bin/pip install -r requirements.txt -c constraints.txt \
    && /venv/bin/pip install --no-deps -r requirements-base.txt

# Into a folder of its own, and so a layer of its own: a change of the package leaves the large one as it is.
COPY pyproject.toml README.md LICENSE ./
COPY yolo_backend yolo_backend
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --no-deps --prefix /package . \
    && /venv/bin/pip uninstall --yes pip


FROM python:3.11.15-slim-bookworm

LABEL org.opencontainers.image.title="YOLO backend for Label Studio" \
      org.opencontainers.image.licenses="AGPL-3.0-only"

# The folders are the user's own, and so are the volumes that Docker makes from them.
RUN groupadd --gid 1000 app \
    && useradd --uid 1000 --gid app --home-dir /app --no-create-home --shell /usr/sbin/nologin app \
    && install --directory --owner=app --group=app /app/models /app/data

COPY --from=build /venv /venv
COPY --from=build /package /venv
WORKDIR /app
COPY LICENSE model.py ./

# /tmp is all that a read-only container can write to beside its volumes, so caches and settings go there.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    YOLO_CONFIG_DIR=/tmp/ultralytics \
    YOLO_OFFLINE=true \
    YOLO_AUTOINSTALL=false \
    MODEL_ROOT=/app/models \
    MODEL_DIR=/app/data \
    MODEL_CLASS=model:YoloBackend \
    PORT=9090

RUN python -m compileall -q /app

USER 1000:1000
EXPOSE 9090
# /health says 503 until the weights are read, and a release is downloaded first: 130 MB take 12 minutes at 1.5 Mbit/s. A check
# that passes ends the start period, so a long one delays nobody. On a busy machine, Python alone takes seconds to start.
# http.client, for urllib would ask a proxy for 127.0.0.1 where one is configured. What is printed stands in `docker inspect`.
HEALTHCHECK --interval=10s --timeout=30s --start-period=15m --retries=6 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 9090), timeout=25); c.request('GET', '/health'); r = c.getresponse(); print(r.read().decode()); sys.exit(r.status != 200)"]
ENTRYPOINT ["yolo-backend"]
# A release that can't be downloaded is no reason to end and be restarted: the page, the log and `connect` say why.
CMD ["serve", "--keep-trying"]
