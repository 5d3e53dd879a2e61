# Every target only calls a command of the virtual environment, which the first one to need it makes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed
BENCHMARK := $(VENV)/.benchmark-installed
DOCUMENTATION := $(VENV)/.documentation-installed

.DEFAULT_GOAL := help
.PHONY: help up down status logs clean migrate rebuild-projections verify test lint fmt requirements simulate

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(RUNTIME) ## Start the whole service on this machine, on http://localhost:8089
	@$(BIN)/wallet up

down: $(RUNTIME) ## Stop it, once it has answered what is in flight; data is kept
	@$(BIN)/wallet down

status: $(RUNTIME) ## Show what runs, whether it is ready and how busy it is: make status WATCH=1
	@$(BIN)/wallet status $(if $(WATCH),--watch) || true

logs: $(RUNTIME) ## Show logs: make logs NAME=serve FOLLOW=1
	@$(BIN)/wallet logs $(if $(FOLLOW),--follow) $(NAME)

clean: $(RUNTIME) ## Remove all data and logs; asks first (make clean YES=1 doesn't)
	@$(BIN)/wallet clean $(if $(YES),--yes)

migrate: $(RUNTIME) ## Bring the database's tables up to date
	@$(BIN)/wallet migrate

rebuild-projections: $(RUNTIME) ## Build the read side anew from the journal
	@$(BIN)/wallet rebuild-projections

verify: $(RUNTIME) ## Prove that the books are sound, while it runs: make verify ARGS=--stream
	@$(BIN)/wallet verify $(ARGS)

test: $(DEVELOPMENT) ## Run every test: make test ARGS="tests/unit -k money"
	@$(BIN)/pytest $(ARGS)

lint: $(DEVELOPMENT) ## Check format, style, types and the direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(DEVELOPMENT) ## Format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

simulate: $(DEVELOPMENT) ## Run seeded simulations of the whole service: make simulate SEEDS=5000, or SEED=1234
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS)))


requirements: ## Pin and hash the requirements anew, from pyproject.toml (needs uv)
	@command -v uv > /dev/null || { echo "uv is missing: pip install uv"; exit 1; }
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

# The environment of a finished installation is marked by a file; a half-made one is made again.
$(RUNTIME): requirements.txt
	@$(call make_environment)
	@echo "Installing requirements (the first time takes a minute or two) …"
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(BIN)/python -m serve_app.local.link_checkout
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	@echo "Installing development requirements …"
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@

define make_environment
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	echo "Python 3.11 or newer is needed as '$(PYTHON)': install it, or name another with make PYTHON=python3.12 …"; exit 1; }; \
$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { \
	echo "'$(PYTHON)' can't make virtual environments: install its venv module (Debian: apt install python3-venv)."; exit 1; }; \
$(BIN)/python -c '' 2> /dev/null || { \
	echo "Making the virtual environment $(VENV) …"; $(PYTHON) -m venv --clear $(VENV); }; \
$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
endef

# -- faults (specification/failure-results.md) ------------------------------------------------------

.PHONY: chaos chaos-quick overload

chaos: $(DEVELOPMENT) ## Hurt the service under load, prove its books (15 minutes): make chaos ARGS="--seed 7"
	@$(BIN)/python -m tests.faults --write $(ARGS)

chaos-quick: $(DEVELOPMENT) ## The same with fewer and shorter faults (2 minutes)
	@$(BIN)/python -m tests.faults --quick $(ARGS)

overload: $(BENCHMARK) ## Offer three times what the service can do, and see what it does (2 minutes)
	@$(BIN)/python -m bench.overload $(ARGS)

# -- benchmark (bench/README.md) --------------------------------------------------------------------

.PHONY: bench bench-quick load profile

bench: $(BENCHMARK) ## Measure everything beside its baselines, audited (about 20 minutes)
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(BENCHMARK) ## The same with short loads (under 3 minutes)
	@$(BIN)/python -m bench --quick $(ARGS)

load: $(BENCHMARK) ## Load the running service from Locust's web page, http://localhost:8090
	@$(BIN)/locust --locustfile bench/locustfile.py --host http://localhost:8089 \
		--web-host 127.0.0.1 --web-port 8090 $(ARGS)

profile: $(BENCHMARK) ## Flame graphs of a shard and a replica of the running service, under load
	@$(BIN)/python -m bench.profile $(ARGS)

$(BENCHMARK): requirements-bench.txt $(RUNTIME)
	@echo "Installing the benchmark's requirements …"
	@$(PIP) install --require-hashes --requirement requirements-bench.txt
	@touch $@

# -- specification (specification/README.md) --------------------------------------------------------

.PHONY: specification lint-openapi postman
NODE_TOOLS := node_modules/.installed

specification: $(DEVELOPMENT) ## Write openapi.json and the events' schemas anew from the code
	@$(BIN)/wallet specification

lint-openapi: $(NODE_TOOLS) ## Hold openapi.json and asyncapi.yaml to a public linter's rules (needs npm)
	@npm run --silent lint

postman: $(NODE_TOOLS) ## Run the Postman collection against the running service (needs npm)
	@WALLET_URL=$${WALLET_URL:-http://localhost:$${WALLET_HTTP_PORT:-8089}} npm run --silent postman

$(NODE_TOOLS): package.json package-lock.json
	@command -v npm > /dev/null || { echo "npm is missing: install Node.js 20 or newer."; exit 1; }
	@echo "Installing the specification's tools …"
	@npm ci --silent --ignore-scripts --no-audit --no-fund
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

docker-up: .env ## Start the whole service in containers, on http://localhost:8089 (needs docker)
	@docker compose up --detach --build --wait

docker-down: .env ## Stop the containers, once they have answered what is in flight; data is kept
	@docker compose --profile observability down

docker-test: $(DEVELOPMENT) ## Bring the containers up, test the service in them, hurt it, take them down
	@$(BIN)/pytest tests/docker $(ARGS)

cluster-test: $(DEVELOPMENT) ## Test a Ray cluster of several nodes on this machine (2 minutes)
	@WALLET_CLUSTER_TEST=1 $(BIN)/pytest tests/cluster $(ARGS)

# Made once, for nobody else to read. They begin with a letter: NATS reads some digits as numbers.
.env:
	@(umask 077; for name in RAY_AUTH_TOKEN POSTGRES_PASSWORD NATS_TOKEN GRAFANA_PASSWORD; do \
		echo "$$name=s$$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"; done > $@)
	@echo "Made .env with the secrets of the containers."
