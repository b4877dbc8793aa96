#!/usr/bin/env bash
# Writes the files of this folder anew from pyproject.toml: `make lock`. Versions that still fit stay; --upgrade takes the newest.
#
#   constraints.txt   every extra but `ray`, `mlflow` and `wandb`: the versions that `make setup` installs, for each Python and
#                     system (no hashes: pip refuses them beside a checkout)
#   service.txt, worker.txt, worker-gpu.txt   what the images install, with hashes
#   torch.txt         PyTorch alone, without hashes: each of its builds (CPU, CUDA 13) has its own index and files, and wants
#                     its own versions of CUDA's libraries, which are left out everywhere
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.venv-tools/bin/uv}

cuda=(cuda-toolkit triton nvidia-{cublas,cuda-cupti,cuda-nvrtc,cuda-runtime,cudnn-cu13,cufft,cufile,curand,cusolver}
  nvidia-{cusparse,cusparselt-cu13,nccl-cu13,nvjitlink,nvshmem-cu13,nvtx})

compile() {
  local file=$1
  shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --no-annotate --no-emit-index-url \
    --custom-compile-command "make lock" "${cuda[@]/#/--no-emit-package=}" --output-file "deploy/requirements/$file" "$@" \
    pyproject.toml deploy/requirements/build.in >/dev/null
}

# Ray is left out: its extra is installed on a cluster, which has its own. So are the trackers that a sweep is exported to: users have them.
extras=(service worker gpu dev otel s3 parquet pandas optuna)
compile constraints.txt "${extras[@]/#/--extra=}" "$@"
grep '^torch==' deploy/requirements/constraints.txt > deploy/requirements/torch.txt
image() { compile "$1" --generate-hashes --constraint deploy/requirements/constraints.txt --no-emit-package=torch "${@:2}"; }
image service.txt --extra=service --extra=otel --extra=s3
image worker.txt --extra=worker
image worker-gpu.txt --extra=worker --extra=gpu
