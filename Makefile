# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
# For a machine without a GPU: TORCH_INDEX_URL=<the address of PyTorch's CPU wheel index> makes the install small.
TORCH_INDEX_URL ?=
export YOLO_AUTOINSTALL := false
export YOLO_OFFLINE := true

PIP := .venv/bin/python -m pip install --disable-pip-version-check --quiet
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12")'

.PHONY: help install run demo demo-check train-demo check test e2e faults probes memory bench decode sampling clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

install: .venv/.installed ## set up .venv with the backend

.venv/.installed: requirements.txt requirements-base.txt constraints.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	@echo "Installing the backend into .venv: a few minutes, and about 6 GB where PyTorch comes with CUDA"
	$(if $(TORCH_INDEX_URL),$(PIP) --no-deps --index-url $(TORCH_INDEX_URL) -c constraints.txt torch torchvision)
	$(PIP) -r requirements.txt -c constraints.txt
	$(PIP) --no-deps -r requirements-base.txt
	@touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt -c constraints.txt
	@touch $@

.venv-label-studio/.installed: requirements-label-studio.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-label-studio
	@echo "Installing Label Studio into .venv-label-studio"
	.venv-label-studio/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-label-studio.txt
	@touch $@

run: .venv/.installed ## the backend alone; settings from the environment or .env
	.venv/bin/python _wsgi.py

demo: .venv/.installed .venv-label-studio/.installed ## a real Label Studio with predictions, until Ctrl-C
	@.venv/bin/python -m yolo_backend.demo

demo-check: .venv/.installed .venv-label-studio/.installed ## the same, checked; ends by itself
	@.venv/bin/python -m yolo_backend.demo --check

train-demo: .venv/.installed ## train the demo weights anew (about an hour on two cores)
	.venv/bin/python -m yolo_backend.demo.train

check: .venv/.installed-dev ## ruff and mypy --strict
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: .venv/.installed-dev .venv-label-studio/.installed ## all tests, those with the real Label Studio and a browser too
	.venv/bin/python -m pytest --cov=yolo_backend --cov=model --cov-report=term:skip-covered

faults: .venv/.installed-dev ## inject every fault for real, and write what came out into docs/reliability.md (10 minutes)
	.venv/bin/python -m benchmarks.faults

probes: .venv/.installed-dev ## time the short calls while bulk work keeps the model busy, for docs/reliability.md (4 minutes)
	.venv/bin/python -m benchmarks.probes

memory: .venv/.installed-dev ## watch the memory over requests of up to 5,000 large photographs (15 minutes)
	.venv/bin/python -m benchmarks.memory

bench: .venv/.installed-dev ## the speed, beside the model alone and a hand-written loop, for docs/performance.md (20 minutes)
	.venv/bin/python -m benchmarks.speed

decode: .venv/.installed-dev ## what DECODE=fast does to mAP on real labelled photographs, for docs/performance.md (5 minutes)
	.venv/bin/python -m benchmarks.decode

sampling: .venv/.installed-dev ## does choosing by uncertainty beat random? for docs/sampling.md (40 minutes; goes on where it was)
	.venv/bin/python -m benchmarks.sampling

clean: ## remove what the targets made, but not .venv, models or data
	rm -rf .demo demo-output test-artifacts .pytest_cache .mypy_cache .ruff_cache .coverage .hypothesis
