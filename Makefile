.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
DOCS ?= docs
Q ?=
MODEL ?= offline
KILL ?=
ONLY ?=
SEED ?=
MIN ?= 1
CODE := core registry agents gateway cli
TOOLS := meshwright.agents.remembering meshwright.agents.library.researcher.tools meshwright.agents.library.summarizer.tools meshwright.agents.library.planner.tools meshwright.agents.library.reviewer.tools examples/accountant.py examples/tools.py
# As they are: a question may hold quotes and dollar signs.
override Q := $(value Q)
override DOCS := $(value DOCS)
export DOCS Q MODEL
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.runtime: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing what Meshwright needs (about 60 MB of downloads, once) …"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "installing what the tests and checks need (once) …"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: demo
demo: .venv/.runtime ## Start a mesh, ask it a real question, watch every step: DOCS=~/notes Q="…" MODEL=… KILL=1
	@$(BIN)/meshwright demo --docs "$$DOCS" --question "$$Q" --model "$$MODEL" $(if $(filter-out 0 no,$(KILL)),--kill)

.PHONY: test
test: .venv/.dev ## The whole suite, on real Valkey, Envoy and servers
	$(BIN)/python -m pytest

.PHONY: guardrails
guardrails: .venv/.dev ## How often guardrails are right: precision and recall on the sets of the tests
	$(BIN)/python -m pytest -n0 -q -s tests/agents/guardrails/test_sets.py

.PHONY: schemathesis
schemathesis: .venv/.dev ## 2,000 generated calls of every operation against a real mesh: all as the OpenAPI document says
	OPENAPI_EXAMPLES=65 $(BIN)/python -m pytest -n0 -q tests/e2e/test_openapi_cases.py

.PHONY: chaos
chaos: .venv/.dev ## Break a mesh on purpose, in short: which promises hold? ONLY="kills power" SEED=7
	$(BIN)/meshwright chaos $(ONLY) $(if $(SEED),--seed $(SEED))

.PHONY: chaos-full
chaos-full: .venv/.dev ## The same in full size: about an hour
	$(BIN)/meshwright chaos $(ONLY) $(if $(SEED),--seed $(SEED)) --full
	$(if $(ONLY),,JOURNAL_EXAMPLES=500 $(BIN)/python -m pytest -n0 -q tests/agents/test_journal_machine.py)

.PHONY: test-browser
test-browser: .venv/.dev ## The page in a real Chromium (installs Debian's chromium)
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	$(PIP) install playwright
	$(BIN)/python -m pytest tests/browser

.PHONY: check
check: .venv/.dev ## Format, lint, types, contract, evals, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/basedpyright
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf lint
	@$(MAKE) --no-print-directory breaking
	$(BIN)/meshwright tool check contracts $(TOOLS)
	@$(MAKE) --no-print-directory eval
	@$(MAKE) --no-print-directory gen
	@git diff --exit-code --stat -- gen gateway/envoy.json gateway/openapi.json || { echo "error: generated files differ: commit what \`make gen\` wrote"; exit 1; }

.PHONY: eval
eval: .venv/.dev ## What the bundled agents promise, offline; a real model: MODEL=openai:NAME@URL MIN=0.8
	$(BIN)/meshwright eval --model "$$MODEL" --min $(MIN)

.PHONY: breaking
breaking: .venv/.dev
	@base=$$(git merge-base HEAD origin/main 2>/dev/null || true); \
	 if [ -z "$$base" ] || [ "$$base" = "$$(git rev-parse HEAD)" ]; then base=$$(git rev-parse --verify --quiet HEAD~1 || git rev-parse HEAD); fi; \
	 echo "buf breaking against $$base"; $(BIN)/buf breaking --against ".git#ref=$$base"

.PHONY: bench
bench: .venv/.dev ## What calls, tasks and watchers cost, in ratios, held against the recorded ones (a minute): SLACK=1.25
	$(BIN)/python -m benchmarks smoke $(if $(SLACK),--slack $(SLACK))

.PHONY: bench-full
bench-full: .venv/.dev ## The same at length, into benchmarks/results/ (6 minutes)
	$(BIN)/python -m benchmarks full

.PHONY: gen
gen: .venv/.dev ## Regenerate stubs, descriptor set, OpenAPI document and Envoy's bootstrap
	$(BIN)/python gen/generate.py
	$(BIN)/python -m meshwright.gateway.bootstrap > gateway/envoy.json
	$(BIN)/python -m meshwright.gateway.openapi > gateway/openapi.json

.PHONY: format
format: .venv/.dev ## Format code and contract
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/buf format --write protos

.PHONY: lock
lock: .venv/.dev ## Pin the newest dependencies that fit
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra local --extra llm --group build --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --constraint requirements.lock --group dev --output-file requirements-dev.lock

.PHONY: clean
clean: ## Remove what was installed and built
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
