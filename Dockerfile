# Three images from one file: `service` (API, scheduler, page), `worker` (CPU), `worker-gpu` (TensorRT).
# docker-compose.yml builds what it needs. The wheel is the client alone; an image carries the application.

FROM python:3.12.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/layersweep/bin:$PATH
# Folders of data and locks are made here so that a volume mounted on one belongs to the user too.
RUN useradd --uid 10001 --create-home layersweep && install -d -o layersweep /app /data /locks
WORKDIR /app
RUN python -m venv /opt/layersweep
COPY pyproject.toml README.md LICENSE ./
COPY layersweep ./layersweep
COPY layers ./layers

FROM base AS service
COPY service ./service
COPY migrations ./migrations
RUN pip install --editable '.[service,otel]'
USER layersweep
ENV LAYERSWEEP_HOST=0.0.0.0 LAYERSWEEP_PORT=8420 LAYERSWEEP_DATA_DIR=/data
VOLUME /data
EXPOSE 8420
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8420/readyz', timeout=2)"]
CMD ["layersweep", "serve"]

FROM base AS worker
COPY workers ./workers
# PyTorch's own index has the CPU build: a tenth of the size of the default one.
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu --editable '.[worker]'
USER layersweep
STOPSIGNAL SIGTERM
CMD ["layersweep", "worker"]
