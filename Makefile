# What can be done here: `make help`.
#
# Needs Python 3.11 or newer with pip (PYTHON=python3.12 names another one), make and a C compiler.
# Everything goes into .venv, except for real vLLM: tests/real/vllm/install.py builds that once, in
# a cache folder outside the repository.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# How many tests run beside each other: most of them wait most of the time.
JOBS ?= 3

# The tests start some hundred processes: with this set, each of them would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

# Read by tests/demo/run.py.
export VLLM TOUR_ONLY PORT

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ------------------------------------------------------------------------------------- environment

.PHONY: setup
setup: $(VENV)/.installed ## Build .venv with everything that development needs

$(VENV)/.made:
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON) here. Name a Python 3.11 or newer: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Understudy needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv' 2> /dev/null || { echo "$(PYTHON) has no venv module. Install it (on Debian: python3-venv), or name another Python: make setup PYTHON=python3.12" >&2; exit 1; }
	@rm -rf $(VENV)
	@# Debian's python3 may have venv without ensurepip: then the pip at hand puts itself in.
	@if $(PYTHON) -c 'import ensurepip' 2> /dev/null; then \
		$(PYTHON) -m venv $(VENV); \
	else \
		$(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install --quiet pip; \
	fi || { rm -rf $(VENV); echo "$(PYTHON) could not make a virtual environment (see above). On Debian, python3-venv or python3-pip is missing." >&2; exit 1; }
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@echo "Installing understudy and its tools into $(VENV) …"
	@$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

.PHONY: vllm
vllm: setup ## Build the environment for real vLLM on a CPU (5 minutes, once)
	@$(PY) tests/real/vllm/install.py

# --------------------------------------------------------------------------------------- running it

.PHONY: serve
serve: setup ## Run the gateway: make serve ARGS="--vllm http://127.0.0.1:8000/v1"
	@$(BIN)/understudy serve $(ARGS)

# Without VLLM=, vLLM itself is brought up too.
.PHONY: demo
demo: setup $(if $(VLLM),,vllm) ## Real vLLM, the gateway and a guided tour (VLLM=URL[,URL] PORT= TOUR_ONLY=1)
	@$(PY) -m tests.demo.run

# ------------------------------------------------------------------------------------------ testing

BESIDE := -m "not alone" -n $(JOBS) --dist loadfile --no-loadscope-reorder

# $(call pytest,FOLDERS): first what may run beside each other; then, one after the other, what is
# marked `alone`, since a machine with much else to do breaks its bounds of time. ARGS may choose
# tests of one of the two only: pytest ends with 5 where there is none.
define pytest
@first=0; $(PY) -m pytest $(1) $(BESIDE) $(ARGS) || first=$$?; \
last=0; $(PY) -m pytest $(1) -m alone $(ARGS) || last=$$?; \
case "$$first $$last" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac
endef

.PHONY: test
test: setup vllm ## All tests, with real vLLM (ARGS= goes to pytest)
	$(call pytest,tests)

.PHONY: test-fast
test-fast: setup ## All tests but those with real vLLM and the client libraries (ARGS= goes to pytest)
	$(call pytest,tests --ignore=tests/real)

.PHONY: test-stalled
test-stalled: setup ## What may run beside each other, while processes stand still (STALL_SECONDS=)
	@$(PY) -m tests.support.stalls tests --ignore=tests/real $(BESIDE) $(ARGS)

.PHONY: retrieval
retrieval: setup vllm ## Ask a small handbook 42 questions in every way of searching, and print what is found
	@RETRIEVAL=1 $(PY) -m pytest -s -q tests/real/test_retrieval.py $(ARGS)

.PHONY: soak-ingestion
soak-ingestion: setup ## Kill the ingestion worker 3000 times (KILLS=), and see that nothing is lost
	@SOAK_KILLS=$(or $(KILLS),3000) $(PY) -m pytest -s tests/promises/test_ingestion_survives_kill.py $(ARGS)

.PHONY: fuzz
fuzz: setup ## Ask schemathesis for thousands of odd requests (EXAMPLES= SEED=, ARGS= goes to it)
	@$(PY) -m tests.support.fuzzing --max-examples $(or $(EXAMPLES),300) --seed $(or $(SEED),1) $(ARGS)

.PHONY: test-replicas
test-replicas: export REPLICAS_ALL = 1
test-replicas: setup ## The suites of what keeps state, each request to the next of three processes
	$(call pytest,tests/replicas)

.PHONY: soak
soak: setup ## Mixed load while replicas, workers and model servers are killed (DURATION= seconds, 600)
	@SOAK_SECONDS=$(or $(DURATION),600) $(PY) -m pytest -s -q tests/soak $(ARGS)

.PHONY: check
check: setup ## Lint, format, types and the layering of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict gateway adapters
	$(BIN)/lint-imports

.PHONY: format
format: setup ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: setup ## Measure (ARGS= goes to the benchmarks)
	@$(PY) -m tests.benchmarks $(ARGS)

# ------------------------------------------------------------------------------------------ writing

.PHONY: docs
docs: setup ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

.PHONY: openapi
openapi: setup ## Write the contract in openapi/ anew, and its coverage by the installed openai SDK
	$(BIN)/understudy openapi
	$(PY) -m tests.support.openai_operations
	$(PY) -m tests.support.openai_properties
	$(BIN)/understudy openapi

.PHONY: chart
chart: setup ## Lint, render and pack the Helm chart into dist/chart, and write its dashboard anew
	@$(PY) -m tests.chart

.PHONY: lock
lock: setup ## Pin what the container image installs, in deploy/requirements.lock
	@$(PY) deploy/lock.py

.PHONY: clean
clean: ## Remove what the targets above made here (understudy-data stays)
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
