# Three images from one file: `service` (API, scheduler, page), `worker` (CPU), `worker-gpu` (TensorRT).
# docker-compose.yml builds what it needs. The wheel is the client alone; an image carries the application.
# Versions are those of deploy/requirements/ (`make lock`); what comes from PyPI has to have the hash that is written there.

# Other bases, of your registry for example: --build-arg PYTHON_IMAGE=... and CUDA_IMAGE=...
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/layersweep/bin:$PATH
# Folders of data, locks and caches are made here so that a volume mounted on one belongs to the user too.
RUN useradd --uid 10001 --create-home layersweep && install -d -o layersweep /app /data /locks /cache
WORKDIR /app
RUN python -m venv /opt/layersweep
COPY pyproject.toml README.md LICENSE ./
COPY layersweep ./layersweep
COPY layers ./layers

FROM base AS service
COPY service ./service
COPY migrations ./migrations
COPY deploy/requirements/service.txt ./requirements/
RUN pip install --require-hashes --requirement requirements/service.txt \
    && pip install --no-deps --no-build-isolation --editable .
USER layersweep
ENV LAYERSWEEP_HOST=0.0.0.0 LAYERSWEEP_PORT=8420 LAYERSWEEP_DATA_DIR=/data
VOLUME /data
EXPOSE 8420
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8420/readyz', timeout=2)"]
CMD ["layersweep", "serve"]

FROM base AS worker
COPY workers ./workers
COPY deploy/requirements/worker.txt deploy/requirements/torch.txt ./requirements/
# PyTorch's own index has the CPU build: a tenth of the size of the default one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --require-hashes --requirement requirements/worker.txt \
    && pip install --no-deps --index-url "$TORCH_INDEX" --requirement requirements/torch.txt \
    && pip install --no-deps --no-build-isolation --editable .
USER layersweep
STOPSIGNAL SIGTERM
CMD ["layersweep", "worker"]

# Python 3.12 is this distribution's own. CUDA's libraries come with the wheels of PyTorch and TensorRT, the driver's with
# the NVIDIA Container Toolkit: the image brings what tells the toolkit so.
FROM ${CUDA_IMAGE} AS worker-gpu
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/layersweep/bin:$PATH
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home layersweep && install -d -o layersweep /app /locks /cache
WORKDIR /app
RUN python3 -m venv /opt/layersweep
COPY pyproject.toml README.md LICENSE ./
COPY layersweep ./layersweep
COPY layers ./layers
COPY workers ./workers
COPY deploy/requirements/worker-gpu.txt deploy/requirements/torch.txt ./requirements/
# PyTorch for CUDA 13, with CUDA's libraries, comes from its own index; TensorRT's libraries are on NVIDIA's index alone.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TENSORRT_INDEX=https://pypi.nvidia.com
RUN pip install --require-hashes --requirement requirements/worker-gpu.txt \
    && pip install --extra-index-url "$TORCH_INDEX" --extra-index-url "$TENSORRT_INDEX" \
    --requirement requirements/torch.txt tensorrt-cu13==11.4.0.106 \
    && pip install --no-deps --no-build-isolation --editable .
# What the driver must be for CUDA 13: another one cannot run these libraries, and the toolkit refuses to start.
LABEL layersweep.minimum-driver="580"
ENV NVIDIA_REQUIRE_CUDA="driver>=580"
USER layersweep
STOPSIGNAL SIGTERM
CMD ["layersweep", "worker", "--all-devices"]
