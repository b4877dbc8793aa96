# Layersweep. `make help` lists what there is; `make demo` needs nothing but Python 3.11 and this file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Passed to pip, for example: make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
# One process more than the two cores of a small machine: tests wait for children and databases
PYTEST_ARGS ?= -n 3

.DEFAULT_GOAL := help
.PHONY: help setup demo serve worker test test-slow test-gpu test-ray golden explore chaos fuzz lint format docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything that the CPU needs

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Layersweep needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module: install your system's package for it (Debian: python3-venv)." >&2; exit 1; }
	@echo "Making $(VENV); this takes a minute or two the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[service,worker,dev]'
	@touch $(STAMP)

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
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[ray]'
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

docs: $(STAMP) ## Make docs/layers.md from the declarations
	@$(BIN)/python -m layers.reference > docs/layers.md

clean: ## Remove .venv and caches; data/ stays
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
