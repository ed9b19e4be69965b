# The only entry point: people and CI run the same targets.
# What is done once is remembered by a stamp inside the thing that it made, so the second time is quick.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Arguments for `vegamite run`, for example: make run ARGS="--port 8080 --no-demo"
ARGS ?=
# What to test, and how: make test TESTS=services/api PYTEST_ARGS="-x -k history"
TESTS ?=
PYTEST_ARGS ?=

MEMBERS := libs/common services/collector services/aggregator services/api libs/standalone
SHIPPED := collector aggregator api standalone

DEPENDENCIES := $(VENV)/.stamp-dependencies
INSTALLED := $(VENV)/.stamp-members

WEB := services/api/web
NODE_MODULES := $(WEB)/node_modules/.stamp-installed
PAGE := services/api/src/vegamite_api/static/index.html
PAGE_SOURCES := $(shell find $(WEB) -type f -not -path '*/node_modules/*' 2>/dev/null)

.PHONY: help
help: ## Show what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- setting up -----------------------------------------------------------------------------------

.PHONY: install
install: $(INSTALLED) ## Make .venv with locked dependencies and every vegamite command in it

# The first interpreter that is new enough and can make environments wins; PYTHON=… names another.
$(BIN)/python:
	@for candidate in $${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; \
	echo 'vegamite needs Python 3.11 or newer with its venv module (Debian, Ubuntu: apt install python3-venv); PYTHON=… names another interpreter' >&2; \
	exit 1

# pip takes no editable package in hash mode, hence the two steps.
$(DEPENDENCIES): requirements/dev.txt | $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(INSTALLED): $(DEPENDENCIES) VERSION $(MEMBERS:%=%/pyproject.toml)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  $(MEMBERS:%=-e ./%)
	@touch $@

.PHONY: page
page: $(PAGE) ## Build the chart page (the system's Node, else one from a package)

# With $(node_path) before PATH, `node` and `npm` are new enough for Vite: 20.19, 22.12 or anything later.
node_is_new := const [major, minor] = process.versions.node.split(".").map(Number); \
  process.exit(major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19) ? 0 : 1)
node_path = $$(if command -v npm >/dev/null && node -e '$(node_is_new)' 2>/dev/null; \
  then dirname "$$(command -v node)"; else echo "$(CURDIR)/$(BIN)"; fi)

$(NODE_MODULES): $(WEB)/package.json $(WEB)/package-lock.json | $(DEPENDENCIES)
	@if [ "$(node_path)" = "$(CURDIR)/$(BIN)" ]; then \
	  echo 'no Node that is new enough here: taking it from a package'; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/node.txt; \
	fi
	PATH="$(node_path):$$PATH" npm --prefix $(WEB) ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PAGE): $(NODE_MODULES) $(PAGE_SOURCES)
	PATH="$(node_path):$$PATH" npm --prefix $(WEB) run --silent build
	@touch $@

# --- using ----------------------------------------------------------------------------------------

.PHONY: run
run: $(INSTALLED) $(PAGE) ## Run all of vegamite here: the chart opens at http://127.0.0.1:8000 (ARGS="--port 8080")
	@exec $(BIN)/vegamite run $(ARGS)

# --- checking -------------------------------------------------------------------------------------

.PHONY: test
test: $(INSTALLED) $(PAGE) services ## Run every test, against real servers (TESTS=services/api PYTEST_ARGS=-x)
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

.PHONY: services
services: $(INSTALLED)
	@$(BIN)/python -m vegamite_common.testing.services prepare

.PHONY: check
check: lint types ## Lint, types, architecture: all that needs no server

.PHONY: lint
lint: $(INSTALLED) ## Check style, formatting, and the architecture's import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

.PHONY: fmt
fmt: $(INSTALLED) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(INSTALLED) $(NODE_MODULES) ## Check types: mypy, strict, and the page's TypeScript
	$(BIN)/mypy
	PATH="$(node_path):$$PATH" npm --prefix $(WEB) run --silent check

# --- shipping -------------------------------------------------------------------------------------

.PHONY: build
build: $(INSTALLED) $(PAGE) ## Build a wheel of every member into dist/, and check what is inside
	rm -rf dist
	for member in $(MEMBERS); do $(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist $$member; done
	$(BIN)/python -m pytest -q tests/repo/test_wheels.py
	@ls -l dist

# Universal: one file holds for Python 3.11 to 3.13 on every platform. No header and no index, so no
# file names a host. LOCK_ARGS=--upgrade takes newer versions.
LOCK_ARGS ?=
compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links $(SHIPPED:%=--no-emit-package vegamite-%) \
  --no-emit-package vegamite-common $(LOCK_ARGS)

.PHONY: lock
lock: $(INSTALLED) ## Compile the hash-pinned files in requirements/ anew (LOCK_ARGS=--upgrade for newer versions)
	$(compile) requirements/dev.in $(MEMBERS:%=%/pyproject.toml) --all-extras -o requirements/dev.txt
	$(compile) requirements/node.in -o requirements/node.txt
	for name in $(filter-out standalone,$(SHIPPED)); do \
	  $(compile) -c requirements/dev.txt services/$$name/pyproject.toml -o requirements/$$name.txt; \
	done
	$(compile) -c requirements/dev.txt libs/standalone/pyproject.toml -o requirements/standalone.txt

.PHONY: clean
clean: ## Remove everything that was made here (not the data of instances)
	rm -rf $(VENV) dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	  $(WEB)/node_modules $(dir $(PAGE)) test-results
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
