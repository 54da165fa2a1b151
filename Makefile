# `make` alone prints what there is. Only Python 3.11 or newer is needed: no Docker, no root, no model hub.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

TORCH := torch==2.13.0
# Which build of torch, as in Dockerfile.worker: `pypi` is what `pip install torch` gives; `cpu` is by far the smallest
# download on Linux, `auto` looks at the graphics card: these and others are the names of `uv pip install --torch-backend`.
TORCH_BACKEND ?= pypi

VENV := .venv
PY := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.ananse-run
DEV_STAMP := $(VENV)/.ananse-dev
PIP := $(PY) -m pip --disable-pip-version-check
# Training allocates the same gigabytes at every step: given back to the system in between, they take a quarter of the time.
KEEP_MEMORY := MALLOC_ARENA_MAX=2 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=200000000000 MALLOC_TOP_PAD_=268435456
FAST := not slow and not service and not model and not training

.PHONY: help run test test-training chaos check model peers openvino bench-bento bench-company bench-devices bench-ledger bench-listeners bench-metrics bench-objects bench-scale bench-shortcuts lint lock venv bench clients fuzz audit sbom corpus format clean

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_STAMP) ## Start everything, transcribe a sample recording, stay up
	@exec $(PY) -m deploy.cli up --demo

# What asks nothing of the clock runs two at a time; what starts, kills and freezes processes has the machine to itself.
test: $(DEV_STAMP) ## All tests, with a real Redis and the bundled model: an hour on two cores
	@steady="env $$($(PY) -m deploy.allocator) $(PY) -m pytest $(PYTEST)"; outcome=0; \
	$$steady -n 2 -m "(calm or not slow) and not training" || outcome=$$?; \
	$$steady -m "slow and not calm" || outcome=$$?; \
	exit $$outcome

test-training: $(DEV_STAMP) ## The tests that train: ten minutes of arithmetic; after a change in models/training
	@env $(KEEP_MEMORY) $(PY) -m pytest -m training $(PYTEST)

chaos: $(DEV_STAMP) ## 10,000 jobs and a kill -9 every 3 s: nothing lost. Half an hour; CHAOS="--jobs 500 --seed 2"
	@$(PY) -m tests.chaos $(CHAOS)

corpus: $(DEV_STAMP) ## Odd, broken and 2,000 mutated files through the service; CORPUS="--mutants 500 --more FOLDER"
	@$(PY) -m tests.corpus $(CORPUS)

fuzz: $(DEV_STAMP) ## 10,000 requests made from our OpenAPI document, all answers judged; FUZZ="--seed 2"
	@env $$($(PY) -m deploy.allocator) $(PY) -m tests.fuzz $(FUZZ)

audit: ## Known vulnerabilities of all that is locked; asks a vulnerability service, so it needs the internet
	@mkdir -p var
	@test -x var/audit-venv/bin/pip-audit || { $(if $(PYTHON),$(PYTHON),python3) -m venv var/audit-venv && \
	  var/audit-venv/bin/python -m pip install --disable-pip-version-check -q pip-audit==2.10.1; }
	@for list in deploy/requirements/*.txt; do echo "$$list"; \
	  var/audit-venv/bin/pip-audit --require-hashes --disable-pip --progress-spinner off -r $$list || { \
	  echo "Found something, or the vulnerability service was out of reach: nothing is known to be clean." >&2; exit 1; }; done

sbom: $(DEV_STAMP) ## A CycloneDX bill of materials for each image, in var/sbom
	@$(PY) -m deploy.sbom

check: lint ## Format, lint, types, import rules, fast tests: a few minutes
	@$(PY) -m pytest -q -n 2 -m "$(FAST)" $(PYTEST)

lint: $(DEV_STAMP) ## The part of `make check` before its tests
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

model: $(DEV_STAMP) ## Make the bundled model anew: hours; MODEL="--device cuda" and more, see models/training
	@env $(KEEP_MEMORY) $(PY) -m models.training $(MODEL)

peers: ## The bundled weights in faster-whisper and whisper.cpp, with their word error rates
	@mkdir -p var
	@test -x var/peers-venv/bin/python || $(if $(PYTHON),$(PYTHON),python3) -m venv var/peers-venv
	@var/peers-venv/bin/python -m pip install --disable-pip-version-check -q -r benchmarks/peers.txt
	@var/peers-venv/bin/python -m benchmarks.peers

openvino: ## OpenVINO GenAI and its converter, for a side of its own in `make bench`; several gigabytes
	@mkdir -p var
	@test -x var/openvino-venv/bin/python || $(if $(PYTHON),$(PYTHON),python3) -m venv var/openvino-venv
	@var/openvino-venv/bin/python -m pip install --disable-pip-version-check -q -r benchmarks/openvino.txt

bench-bento: $(DEV_STAMP) ## This service and BentoML side by side: about an hour; BENCH="--quick"
	@mkdir -p var
	@test -x var/bento-venv/bin/python || $(PY) -m venv var/bento-venv
	@var/bento-venv/bin/python -m pip install --disable-pip-version-check -q -r benchmarks/bento/requirements.txt
	@$(PY) -m benchmarks.versus_bentoml $(BENCH)

bench: $(DEV_STAMP) ## The engine beside Transformers, faster-whisper and whisper.cpp (after `make peers`); BENCH="--shape base"
	@mkdir -p var
	@env $$($(PY) -m deploy.allocator) $(PY) -m benchmarks.engine $(BENCH)

bench-ledger: $(DEV_STAMP) ## Figures of the ledger: latency, pollers, overhead, takeover
	@env $$($(PY) -m deploy.allocator) $(PY) -m benchmarks.ledger $(BENCH)

bench-devices: $(DEV_STAMP) ## Several models on one device; warm-up; memory of models that come and go
	@env $$($(PY) -m deploy.allocator) $(PY) -m benchmarks.devices $(BENCH)

bench-listeners: $(DEV_STAMP) ## 500 who listen to events of one API process: memory, CPU, delay; BENCH="--listeners 2000"
	@$(PY) -m benchmarks.listeners $(BENCH)

bench-company: $(DEV_STAMP) ## Clips of five seconds beside a file of three hours
	@env $$($(PY) -m deploy.allocator) $(PY) -m benchmarks.company $(BENCH)

bench-shortcuts: $(DEV_STAMP) ## What a model's encoder may leave out, and what it does to the text
	@env $$($(PY) -m deploy.allocator) $(PY) -m benchmarks.shortcuts $(BENCH)

bench-metrics: $(DEV_STAMP) ## What a scrape of the API costs, by jobs, tenants and workers
	@$(PY) -m benchmarks.metrics $(BENCH)

bench-objects: $(DEV_STAMP) ## Requests and time of an object store, for each job
	@$(PY) -m benchmarks.object_store $(BENCH)

bench-scale: $(DEV_STAMP) ## The ledger under thousands of workers and a million steps: 25 minutes, 8 GB
	@env $$($(PY) -m deploy.allocator) $(PY) -m benchmarks.scale $(BENCH)

clients: ## A second client of OpenAI's contract for the tests, from npm into var/
	@npm install --no-audit --no-fund --prefix var/node ai@6.0.326 @ai-sdk/openai@3.0.141

lock: $(DEV_STAMP) ## Lock the packages of the images anew, after a change of pins
	@$(PIP) install -q uv==0.13.9
	@$(PY) -m deploy.lock

venv: $(DEV_STAMP) ## Build .venv with everything, for development

format: $(DEV_STAMP) ## Put the code in order
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## Remove caches and build outputs (.venv and var/ stay)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

$(PY):
	@found=""; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "Python 3.11 or newer is needed; install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "Building $(VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); echo "$(VENV) could not be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(RUN_STAMP): EXTRAS := api,worker,local
$(RUN_STAMP): pyproject.toml client/pyproject.toml | $(PY)
	@$(install)
	@touch $@

$(DEV_STAMP): EXTRAS := api,worker,local,s3,tracing,dev
$(DEV_STAMP): pyproject.toml client/pyproject.toml | $(PY)
	@$(install)
	@touch $(RUN_STAMP) $@

# The log is shown only when something went wrong.
define install
log=$(VENV)/install.log; \
explain() { tail -n 15 $$log >&2; echo "The installation failed; the whole log: $$log. Is the package index within reach?" >&2; exit 1; }; \
echo "Installing torch (the largest part, minutes on a slow line) ..."; \
$(torch) >$$log 2>&1 || explain; \
echo "Installing the rest ..."; \
$(PIP) install -e ./client -e '.[$(EXTRAS)]' >>$$log 2>&1 || explain; \
echo "Compiling what is compiled (a minute) ..."; \
$(PY) -m worker.engine.compiling >>$$log 2>&1 || explain
endef

ifeq ($(TORCH_BACKEND),pypi)
torch = $(PIP) install $(TORCH)
else
torch = { $(PIP) install uv==0.13.9 && $(PY) -m uv pip install --torch-backend=$(TORCH_BACKEND) $(TORCH); }
endif
