# Targets call commands of the virtual environment, which they create on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
BENCHMARK := $(VENV)/.benchmark-installed
DOCUMENTATION := $(VENV)/.documentation-installed

.DEFAULT_GOAL := help
.PHONY: help up down status logs demo clean migrate rebuild-projections verify test lint fmt requirements simulate

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(RUNTIME) ## Start the service on this machine, on http://localhost:8089
	@$(BIN)/wallet up

down: $(RUNTIME) ## Finish requests in flight, then stop the service; data is kept
	@$(BIN)/wallet down

status: $(RUNTIME) ## Show processes, readiness and load: make status WATCH=1
	@$(BIN)/wallet status $(if $(WATCH),--watch)

logs: $(RUNTIME) ## Show logs: make logs NAME=serve FOLLOW=1
	@$(BIN)/wallet logs $(if $(FOLLOW),--follow) $(NAME)

demo: $(RUNTIME) ## Fill the running service with a day of a small shop, to look at
	@$(BIN)/wallet demo $(if $(URL),--url $(URL))

clean: $(RUNTIME) ## Remove all data and logs; asks first, unless YES=1
	@$(BIN)/wallet clean $(if $(YES),--yes)

migrate: $(RUNTIME) ## Run the database migrations
	@$(BIN)/wallet migrate

rebuild-projections: $(RUNTIME) ## Rebuild the read tables from the journal, online
	@$(BIN)/wallet rebuild-projections

verify: $(RUNTIME) ## Check ledger consistency online: make verify ARGS=--stream
	@$(BIN)/wallet verify $(ARGS)

test: $(DEVELOPMENT) ## Run every test, in parallel: make test ARGS="tests/unit -k money"
	@$(BIN)/python -m tests $(ARGS)

lint: $(DEVELOPMENT) $(BENCHMARK) ## Check format, style, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(DEVELOPMENT) ## Format the code and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

simulate: $(DEVELOPMENT) ## Run seeded simulations of the whole service: make simulate SEEDS=5000, or SEED=1234
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS)))


requirements: ## Pin and hash the requirements again, from pyproject.toml (needs uv)
	@command -v uv > /dev/null || { echo "uv is missing. Install it: pip install uv"; exit 1; }
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --output-file requirements.txt pyproject.toml
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --extra dev --output-file requirements-dev.txt pyproject.toml
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --extra bench --constraint requirements.txt \
		--output-file requirements-bench.txt pyproject.toml
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --extra docs --constraint requirements.txt \
		--output-file requirements-docs.txt pyproject.toml
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --group generators --output-file requirements-generators.txt

# A marker file is written after a complete installation; an incomplete one is repeated.
$(RUNTIME): requirements.txt
	@$(call make_environment)
	@echo "Installing requirements (the first time takes a minute or two) …"
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(BIN)/python -m deploy.local.install_checkout
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	@echo "Installing development requirements …"
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@

define make_environment
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	echo "Python 3.11 or newer is needed as '$(PYTHON)'. Install it, or select another: make PYTHON=python3.12 …"; exit 1; }; \
$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { \
	echo "'$(PYTHON)' can't create virtual environments. Install its venv module (Debian: apt install python3-venv)."; exit 1; }; \
$(BIN)/python -c '' 2> /dev/null || { \
	echo "Creating the virtual environment $(VENV) …"; $(PYTHON) -m venv --clear $(VENV); }; \
$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
endef

# -- fault injection (specification/failure-results.md) ------------------------------------------------------

.PHONY: chaos chaos-quick overload

chaos: $(DEVELOPMENT) ## Inject faults under load, check consistency (15 minutes): make chaos ARGS="--seed 7"
	@$(BIN)/python -m tests.chaos --write $(ARGS)

chaos-quick: $(DEVELOPMENT) ## Like chaos, with fewer and shorter faults (2 minutes)
	@$(BIN)/python -m tests.chaos --quick $(ARGS)

overload: $(BENCHMARK) ## Load the service with three times its peak (2 minutes)
	@$(BIN)/python -m bench.overload $(ARGS)

# -- drills (specification/failure-results.md) ----------------------------------------------------------------

.PHONY: drills drills-quick

drills: $(DEVELOPMENT) ## Fail over Postgres clusters, fill disks, roll NATS back, under load (15 minutes)
	@WALLET_DRILLS=write $(BIN)/pytest tests/drills $(ARGS)

drills-quick: $(DEVELOPMENT) ## A synchronous failover and a lost consumer (90 seconds)
	@WALLET_DRILLS=1 $(BIN)/pytest tests/drills/test_failover.py tests/drills/test_nats.py \
		-k "standby_promoted_loses_nothing or consumer_is_deleted" $(ARGS)

# -- benchmark (bench/README.md) --------------------------------------------------------------------

.PHONY: bench bench-quick load profile soak

bench: $(BENCHMARK) ## Measure the service and its baselines, audited (about 20 minutes)
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(BENCHMARK) ## Like bench, with short loads (under 3 minutes)
	@$(BIN)/python -m bench --quick $(ARGS)

load: $(BENCHMARK) ## Load the running service from Locust's web page, http://localhost:8090
	@$(BIN)/locust --locustfile bench/locustfile.py --host http://localhost:8089 \
		--web-host 127.0.0.1 --web-port 8090 $(ARGS)

soak: $(BENCHMARK) ## An hour at 70 % of the peak: does memory or latency grow?
	@$(BIN)/python -m bench.soak $(ARGS)

profile: $(BENCHMARK) ## Flame graphs of a shard and a replica of the running service, under load
	@$(BIN)/python -m bench.profile $(ARGS)

$(BENCHMARK): requirements-bench.txt $(RUNTIME)
	@echo "Installing the benchmark's requirements …"
	@$(PIP) install --require-hashes --requirement requirements-bench.txt
	@touch $@

# -- specification (specification/README.md) --------------------------------------------------------

.PHONY: specification lint-openapi postman
NODE_TOOLS := node_modules/.installed

specification: $(DEVELOPMENT) ## Generate openapi.json and the events' schemas from the code
	@$(BIN)/wallet specification

lint-openapi: $(NODE_TOOLS) ## Lint openapi.json and asyncapi.yaml (needs npm)
	@npm run --silent lint

postman: $(NODE_TOOLS) ## Run the Postman collection against the running service (needs npm)
	@WALLET_URL=$${WALLET_URL:-http://localhost:$${WALLET_HTTP_PORT:-8089}} npm run --silent postman

$(NODE_TOOLS): package.json package-lock.json
	@command -v npm > /dev/null || { echo "npm is missing. Install Node.js 20 or newer."; exit 1; }
	@echo "Installing the specification's tools …"
	@npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

# Client generators, for the tests of generated clients (docs/using/generated-clients.md).
.PHONY: generators
GENERATORS := $(VENV)/generators

generators: $(NODE_TOOLS) $(GENERATORS)/.installed ## Install client generators, for tests/e2e/test_generated_clients.py
$(GENERATORS)/.installed: requirements-generators.txt $(RUNTIME)
	@echo "Installing client generators …"
	@$(BIN)/python -m venv --clear --without-pip $(GENERATORS)
	@$(PIP) --python $(GENERATORS)/bin/python install --no-compile --require-hashes \
		--requirement requirements-generators.txt
	@touch $@

# -- documents (docs/developing/changing.md) ---------------------------------------------------------

.PHONY: docs tables
PAGES := .site/pages

docs: $(DOCUMENTATION) ## Build a site from the documents: .site/html/index.html
	@rm -rf .site && mkdir -p $(PAGES)
	@tar -cf - --exclude='*.py' --exclude=__pycache__ *.md docs specification deploy bench/README.md \
		bench/results | tar -xf - -C $(PAGES)
	@$(BIN)/zensical build --clean --strict
	@echo "Open .site/html/index.html"

tables: $(RUNTIME) ## Generate the tables in the documents again from the code
	@$(BIN)/python -m specification.generators

$(DOCUMENTATION): requirements-docs.txt $(RUNTIME)
	@echo "Installing the requirements of the documentation site …"
	@$(PIP) install --require-hashes --requirement requirements-docs.txt
	@touch $@

# -- containers and clusters (deploy/README.md) -----------------------------------------------------

.PHONY: docker-up docker-down docker-test cluster-test

docker-up: .env ## Start the service in containers, on http://localhost:8089 (needs docker)
	@docker compose up --detach --build --wait

docker-down: .env ## Finish requests in flight, then stop the containers; data is kept
	@docker compose --profile observability down

docker-test: $(DEVELOPMENT) ## Start the containers, test the service in them, inject faults, stop them
	@$(BIN)/pytest tests/docker $(ARGS)

cluster-test: $(DEVELOPMENT) ## Lose, drain and cut off nodes of a Ray cluster on this machine (10 minutes; root)
	@WALLET_CLUSTER_TEST=write $(BIN)/python -m tests.cluster $(ARGS)

# Secrets, created once, readable by the owner only. Each begins with a letter, because NATS would
# parse some digits as a number.
.env:
	@(umask 077; for name in RAY_AUTH_TOKEN POSTGRES_PASSWORD NATS_TOKEN \
		NATS_READER_PASSWORD GRAFANA_PASSWORD; do \
		echo "$$name=s$$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"; done > $@)
	@echo "Created .env with the secrets of the containers."
