# Layersweep. `make help` lists what there is; `make demo` needs nothing but Python 3.11 and this file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Passed to pip, for example: make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
# The versions that are installed; empty (make setup LOCK=): the newest that pyproject.toml allows
LOCK ?= deploy/requirements/constraints.txt
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[service,worker,dev]'
TOOLS := .venv-tools
# One process more than the two cores of a small machine: tests wait for children and databases. A file's tests stay
# together as far as that keeps every process busy: what they share is then set up once, and not in each process.
PYTEST_ARGS ?= -n 3 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo serve worker test test-slow test-gpu test-ray golden explore chaos fuzz lock sbom audit lint format docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything that the CPU needs

$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Layersweep needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module: install your system's package for it (Debian: python3-venv)." >&2; exit 1; }
	@echo "Making $(VENV); this takes a minute or two the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) $(addprefix --constraint ,$(LOCK)) || { test -n "$(LOCK)" && \
	  echo "The versions of $(LOCK) cannot all be had here: taking the newest that pyproject.toml allows." >&2 && $(INSTALL); }
	@touch $(STAMP)
	@echo "Ready. Next: make demo, or make serve and, in another terminal, make worker."

$(TOOLS)/.installed: Makefile
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9' 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3'
	@touch $@

lock: $(TOOLS)/.installed ## Write deploy/requirements anew from pyproject.toml (LOCK_ARGS=--upgrade: newest versions)
	@deploy/requirements/lock.sh $(LOCK_ARGS)

sbom: $(TOOLS)/.installed ## Write what the images hold to build/sbom/, as CycloneDX JSON
	@mkdir -p build/sbom
	@for image in service worker worker-gpu; do \
	  test $$image = service && torch= || torch=deploy/requirements/torch.txt; \
	  cat deploy/requirements/$$image.txt $$torch | $(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml \
	    --output-reproducible --of JSON --output-file build/sbom/$$image.json - || exit 1; \
	  echo "build/sbom/$$image.json"; \
	done

audit: $(TOOLS)/.installed ## Look for known vulnerabilities in what the images hold
	@for image in service worker worker-gpu; do \
	  $(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip --requirement deploy/requirements/$$image.txt || exit 1; \
	done

demo: $(STAMP) ## Run a service, a worker and a small sweep, and show its leaderboard
	@$(BIN)/layersweep demo

serve: $(STAMP) ## Run the service: API, page, scheduler
	@$(BIN)/layersweep serve

worker: $(STAMP) ## Run a worker on this machine
	@$(BIN)/layersweep worker

test: $(STAMP) ## Run the tests, with a PostgreSQL that they start themselves
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu and not ray" $(PYTEST_ARGS)

test-slow: $(STAMP) ## Run the tests that take minutes
	@$(BIN)/python -m pytest -m "slow and not gpu and not ray" --timeout 1800 $(PYTEST_ARGS)

test-gpu: $(STAMP) ## Run the tests that need an NVIDIA GPU with TensorRT
	@$(BIN)/python -m pytest -m gpu --timeout 1800 $(PYTEST_ARGS)

test-ray: $(STAMP) ## Run the tests of a fleet on a Ray cluster of this machine, and install Ray for them
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[ray]' $(addprefix --constraint ,$(LOCK))
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray -o log_cli=true -o log_cli_level=WARNING tests/acceptance/test_ray_fleet.py

golden: $(STAMP) ## Record anew what the golden tests compare: review what it changes, and explain each line
	@LAYERSWEEP_TEST_GOLDEN=record OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/golden

explore: $(STAMP) ## Draw new examples for the property tests, which `make test` repeats
	@OMP_NUM_THREADS=1 LAYERSWEEP_TEST_EXAMPLES=explore $(BIN)/python -m pytest -m "hypothesis and not slow and not gpu and not ray" $(PYTEST_ARGS)

chaos: $(STAMP) ## Kill random processes under a running sweep, on both databases, and see what was lost
	@$(BIN)/python -m benchmarks.robustness.chaos

fuzz: $(STAMP) ## Send a running service 20,000 requests drawn from its own description, on both databases
	@$(BIN)/python -m benchmarks.robustness.fuzz

lint: $(STAMP) ## Check style, types and the import rules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Put the source into its format
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

docs: $(STAMP) ## Make docs/layers.md and the JSON Schema of sweep documents from the declarations
	@$(BIN)/python -m layers.reference > docs/layers.md
	@$(BIN)/python -m layers.document_schema.schema > layersweep/sweep.schema.json

clean: ## Remove .venv and caches; data/ stays
	@rm -rf $(VENV) $(TOOLS) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
