# Every target sets up what it needs. `make help` lists them; its minutes are those of two slow cores.
PYTHON ?= python3
# `make demo CPU=1`, for a machine without a GPU: PyTorch without CUDA, several GB less.
CPU ?=
TORCH_INDEX_URL ?= $(if $(filter 1,$(CPU)),https://download.pytorch.org/whl/cpu)
export YOLO_AUTOINSTALL := false
export YOLO_OFFLINE := true
# Empty is off: what Python compiled is kept, or each worker of the tests and each process compiles it anew, for 10 s.
export PYTHONDONTWRITEBYTECODE :=

PIP := .venv/bin/python -m pip --disable-pip-version-check
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12")'
PYTEST := .venv/bin/python -m pytest
# Each worker has servers of its own, for all of its files; the longest come first, as tests/conftest.py sorts them. A worker
# that dies ends the run, which would else wait for its tests for good.
IN_PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# The files with such tests: to look through all of them takes a third of a minute.
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)

.PHONY: help install run demo demo-check train-demo check quick test coverage proofs training-proofs test-all browser faults probes memory neighbours imports bench bench-click decode sampling gate recording clean pictures

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

install: .venv/.installed ## set up .venv with the backend; CPU=1 leaves out CUDA

# The package is installed as a link to this folder: what is changed here is what runs.
.venv/.installed: requirements.txt requirements-base.txt constraints.txt pyproject.toml
	@$(CHECK_PYTHON)
	@echo "Setting up .venv, once: $(if $(TORCH_INDEX_URL),about 2 GB of disk and a minute or two,about 7 GB of disk and 2 to 6 minutes, most of it PyTorch with CUDA (make $(or $(MAKECMDGOALS),install) CPU=1 leaves that out))"
	@$(PYTHON) -m venv .venv
	@echo "1 of 3: PyTorch"
	@$(PIP) install $(if $(TORCH_INDEX_URL),--no-deps --index-url $(TORCH_INDEX_URL)) -c constraints.txt torch torchvision
	@echo "2 of 3: what the backend stands on"
	@$(PIP) install --quiet --progress-bar off -r requirements.txt -c constraints.txt
	@echo "3 of 3: label-studio-ml, and the backend itself"
	@$(PIP) install --quiet --no-deps -r requirements-base.txt
	@$(PIP) install --quiet --no-deps --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "Adding what the tests need to .venv: about 1 GB, half a minute"
	@$(PIP) install --quiet -c constraints.txt --editable '.[dev,ray,openvino,heic]'
	@touch $@

.venv-label-studio/.installed: requirements-label-studio.txt
	@$(CHECK_PYTHON)
	@echo "Installing Label Studio into .venv-label-studio, once: about 1 GB of disk, a minute or two"
	@$(PYTHON) -m venv .venv-label-studio
	@.venv-label-studio/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-label-studio.txt
	@touch $@

run: .venv/.installed ## the backend alone, with the class in model.py; settings from the environment or .env
	MODEL_CLASS=$${MODEL_CLASS:-model:YoloBackend} .venv/bin/yolo-backend serve

demo: .venv/.installed .venv-label-studio/.installed ## a real Label Studio with predictions, until Ctrl-C; it keeps what you do there
	@.venv/bin/python -m yolo_backend.demo

demo-check: .venv/.installed .venv-label-studio/.installed ## the same in a Label Studio of its own, checked; ends by itself
	@.venv/bin/python -m yolo_backend.demo --check

train-demo: .venv/.installed ## train the demo weights anew (about an hour on two cores)
	.venv/bin/python -m yolo_backend.demo.train

check: .venv/.installed-dev ## ruff and mypy --strict
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

quick: .venv/.installed-dev ## the unit tests: no torch, no processes (under a minute)
	$(PYTEST) tests/unit -n 3 --dist loadfile -q -m "not alone and not proof and not long" --hypothesis-profile quick

test: .venv/.installed-dev .venv-label-studio/.installed ## all that a change needs, with the real Label Studio and a browser
	$(PYTEST) $(IN_PARALLEL) -m "not proof and not alone"
	$(PYTEST) $(ALONE) -m "alone and not proof"

# Apart from `make test`: it takes longer, and Python 3.11 now and then loses a thread that begins while another is traced.
coverage: .venv/.installed-dev .venv-label-studio/.installed ## the same tests, and which lines they run
	$(PYTEST) $(IN_PARALLEL) -m "not proof and not alone" --cov --cov-report=
	$(PYTEST) $(ALONE) -m "alone and not proof" --cov --cov-append --cov-report=term:skip-covered

proofs: .venv/.installed-dev .venv-label-studio/.installed ## thousands of tasks, storms at length, all faults, a fresh install
	$(PYTEST) $(IN_PARALLEL) -m "proof and not training_proof and not alone"
	$(PYTEST) $(ALONE) tests/proofs -m "proof and not training_proof and alone"

training-proofs: .venv/.installed-dev .venv-label-studio/.installed ## trainings that are killed, poisoned, repeated (an hour and a half)
	$(PYTEST) -m training_proof

test-all: test proofs training-proofs ## all of them

browser: .venv/.installed-dev ## a Chromium for the tests, where there is none
	PLAYWRIGHT_BROWSERS_PATH=0 .venv/bin/playwright install --with-deps chromium || { apt-get update -qq && apt-get install -y -qq chromium; }

faults: .venv/.installed-dev ## inject every fault for real, and write what came out into docs/journal/reliability.md (10 minutes)
	$(PYTEST) tests/proofs/test_faults.py --write-docs

probes: .venv/.installed-dev ## time the short calls while bulk work keeps the model busy, for docs/journal/reliability.md (4 minutes)
	.venv/bin/python -m benchmarks.probes

memory: .venv/.installed-dev ## watch the memory over requests of up to 5,000 large photographs (15 minutes)
	.venv/bin/python -m benchmarks.memory

neighbours: .venv/.installed-dev .venv-label-studio/.installed ## time another person's calls during a click, with both databases (10 minutes)
	.venv/bin/python -m benchmarks.neighbours

imports: .venv/.installed-dev .venv-label-studio/.installed ## time imports into a project with predictions, for docs/journal/speed.md (8 minutes)
	.venv/bin/python -m benchmarks.imports

bench: .venv/.installed-dev ## the speed, beside the model alone and a hand-written loop, for docs/journal/speed.md (20 minutes)
	.venv/bin/python -m benchmarks.speed
	.venv/bin/python -m benchmarks.kinds

bench-click: .venv/.installed-dev .venv-label-studio/.installed ## clicks in a real Label Studio, beside what bounds them, for docs/journal/speed.md (15 minutes)
	.venv/bin/python -m benchmarks.click

decode: .venv/.installed-dev ## what DECODE=fast does to mAP on real labelled photographs, for docs/journal/speed.md (5 minutes)
	.venv/bin/python -m benchmarks.decode

sampling: .venv/.installed-dev ## does choosing by uncertainty beat random? for docs/journal/sampling.md (40 minutes; goes on where it was)
	.venv/bin/python -m benchmarks.sampling

gate: .venv/.installed-dev ## how often a new model is refused wrongly, or let through, for docs/journal/training.md (20 minutes)
	.venv/bin/python -m benchmarks.gate

beside-training: .venv/.installed-dev ## time a person's requests beside a training, for docs/journal/training.md (6 minutes)
	.venv/bin/python -m benchmarks.beside_training

recording: .venv/.installed-dev .venv-label-studio/.installed ## record the README's moving picture from the real pages (1 to 2 minutes)
	.venv/bin/python -m tests.harness.recording

pictures: .venv/.installed-dev .venv-label-studio/.installed ## take the pictures of docs/controls.md from the real pages (2 to 3 minutes)
	.venv/bin/python -m tests.harness.control_pictures

clean: ## remove what the targets made, the demo's Label Studio too, but not .venv, models or data
	rm -rf .demo demo-output test-artifacts .pytest_cache .mypy_cache .ruff_cache .coverage* .hypothesis build *.egg-info
