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
TO ?= dist
OVERLAY ?=
CODE := core registry agents gateway cli examples/lab
TOOLS := meshwright.agents.remembering meshwright.agents.library.researcher.tools meshwright.agents.library.summarizer.tools meshwright.agents.library.planner.tools meshwright.agents.library.reviewer.tools examples/accountant.py examples/tools.py
BUNDLED := $(patsubst agents/meshwright/agents/library/%/Dockerfile,%,$(wildcard agents/meshwright/agents/library/*/Dockerfile))
COMMA := ,
SPACE := $(subst ,, )
AGENT ?=
DIGEST ?=
PREFIX ?=
# As they are: a question may hold quotes and dollar signs.
override Q := $(value Q)
override DOCS := $(value DOCS)
override AGENT := $(value AGENT)
override DIGEST := $(value DIGEST)
override OVERLAY := $(value OVERLAY)
export DOCS Q MODEL AGENT DIGEST OVERLAY
# Tests start hundreds of processes: each module is compiled once.
unexport PYTHONDONTWRITEBYTECODE
# What a change is held against: where it left main; on main itself, the commit before.
AGAINST = $(shell base=$$(git merge-base HEAD origin/main 2>/dev/null || true); \
  if [ -z "$$base" ] || [ "$$base" = "$$(git rev-parse HEAD)" ]; then base=$$(git rev-parse --verify --quiet HEAD~1 || git rev-parse HEAD); fi; echo $$base)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

.PHONY: install
install: .venv/.runtime ## Install what Meshwright needs

.PHONY: install-dev
install-dev: .venv/.dev ## Install what tests and checks need as well: pytest, buf, kubectl

.PHONY: demo
demo: .venv/.runtime ## Start a mesh, ask it a real question, watch every step: DOCS=~/notes Q="…" MODEL=… KILL=1
	@$(BIN)/meshwright demo --docs "$$DOCS" --question "$$Q" --model "$$MODEL" $(if $(filter-out 0 no,$(KILL)),--kill)

.PHONY: test
test: .venv/.dev ## The whole suite, on real Valkey, Envoy and servers
	$(BIN)/python -m pytest

.PHONY: lab
lab: .venv/.runtime ## A mesh with a coordinator, held against every criterion of examples/lab: MODEL=…
	@$(BIN)/python examples/lab/check.py --model "$$MODEL"

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

.PHONY: test-images
test-images: .venv/.dev ## Images as podman builds them, and a mesh of them (root, ten minutes; installs Debian's podman): BASE=…
	type podman runc debootstrap >/dev/null 2>&1 || (apt-get update -qq && apt-get install -y -qq --no-install-recommends podman runc netavark aardvark-dns iptables debootstrap)
	TEST_IMAGES=1 BASE="$(BASE)" $(BIN)/python -m pytest -n0 tests/images

.PHONY: monitoring
monitoring: .venv/.dev ## Render alerts and dashboards: k8s/components/monitoring
	$(BIN)/python -m k8s.components.monitoring

.PHONY: test-k8s
test-k8s: .venv/.dev ## The manifests as kubectl renders them, every overlay; the short rehearsal; or one of yours: OVERLAY=FOLDER
	@$(BIN)/python -m $(if $(OVERLAY),tests.k8s.own "$$OVERLAY",pytest tests/k8s)

.PHONY: rehearsal
rehearsal: .venv/.dev ## The rendered manifests as processes of this machine: rolled, emptied, killed under load (6 minutes, Linux)
	$(BIN)/python -m k8s.rehearsal

.PHONY: ci
ci: ## What every change must pass: checks, tests, ratios
	.ci/run

.PHONY: lint
lint: .venv/.dev ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	MYPYPATH=.ci $(BIN)/mypy .ci/*.py k8s
	$(BIN)/basedpyright

.PHONY: check
check: .venv/.dev ## Format, lint, types, contract, evals, generated code
	@$(MAKE) --no-print-directory lint
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf lint
	@$(MAKE) --no-print-directory breaking
	@$(MAKE) --no-print-directory compatible
	$(BIN)/meshwright tool check contracts $(TOOLS)
	@$(MAKE) --no-print-directory eval
	@$(MAKE) --no-print-directory gen
	@git diff --exit-code --stat -- gen gateway/envoy.json gateway/openapi.json k8s/agents k8s/components/rollouts .github examples/lab/k8s || { echo "error: generated files differ: commit what \`make gen\` wrote"; exit 1; }

.PHONY: eval
eval: .venv/.dev ## What the bundled agents promise, or one: AGENT=researcher; a real model: MODEL=openai:NAME@URL MIN=0.8
	$(BIN)/meshwright eval $(filter-out registry gateway,$(AGENT)) --model "$$MODEL" --min $(MIN)

.PHONY: breaking
breaking: .venv/.dev ## Whether the contract breaks callers of main's, or of AGAINST=REVISION
	@base=$(AGAINST); echo "buf breaking against $$base"; $(BIN)/buf breaking --against ".git#ref=$$base"

.PHONY: compatible
compatible: .venv/.dev ## Whether tools keep what they promise on main, or at AGAINST=REVISION, even where a committed contract was changed
	@base=$(AGAINST); echo "tools against $$base"; rm -rf dist/contracts && mkdir -p dist && cp -R contracts dist/contracts && \
	 git archive "$$base" contracts | tar -x -C dist && $(BIN)/meshwright tool check dist/contracts $(TOOLS)

.PHONY: test-agent
test-agent: .venv/.dev ## The tests of one agent or server, its image put together and run among them: AGENT=researcher
	@case "$$AGENT" in registry|gateway|$(subst $(SPACE),|,$(BUNDLED))) ;; *) \
	  echo "error: AGENT is one of registry, gateway, $(subst $(SPACE),$(COMMA) ,$(BUNDLED)): a project of your own is tested in its folder" >&2; exit 2;; esac
	$(BIN)/python -m pytest $(if $(wildcard tests/$(AGENT)/),tests/$(AGENT),tests/agents/library)
	$(BIN)/python -m pytest tests/operate/test_images.py -k "$$AGENT"

.PHONY: bench
bench: .venv/.dev ## What calls, tasks and watchers cost, in ratios, held against the recorded ones (a minute): SLACK=1.25
	$(BIN)/python -m benchmarks smoke $(if $(SLACK),--slack $(SLACK))

.PHONY: bench-full
bench-full: .venv/.dev ## The same at length, into benchmarks/results/ (6 minutes)
	$(BIN)/python -m benchmarks full

.PHONY: gen
gen: .venv/.dev ## Regenerate stubs, descriptor set, OpenAPI document, Envoy's bootstrap, manifests and workflows of agents
	$(BIN)/python gen/generate.py
	$(BIN)/python -m k8s.generate
	$(BIN)/python .ci/workflows.py
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

.PHONY: wheel
wheel: .venv/.runtime ## The wheel of this checkout and the pins it was tested with, for an index or a folder of yours: TO=dist
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir "$(TO)" .
	@sed -E '/^ +--hash=/d; s/ *\\$$//' requirements.lock > "$(TO)/constraints.txt"
	@ls "$(TO)"/meshwright-*.whl "$(TO)/constraints.txt"

.PHONY: image-digests
image-digests: .venv/.runtime ## What decides what each image is: one digest a line; a change in an agent's folder changes one
	@$(BIN)/python .ci/images.py digests $(if $(BASE),--base $(BASE)) $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: images
images: .venv/.runtime ## Build images with docker or podman: BASE=python:3.11-slim-bookworm@sha256:… PREFIX=registry.example/mesh ONLY="researcher" ENGINE=podman
	@$(BIN)/python .ci/images.py build $(ONLY) --base "$(BASE)" $(if $(PREFIX),--prefix $(PREFIX)) $(if $(ENGINE),--engine $(ENGINE))

.PHONY: affected
affected: .venv/.runtime ## Which images a change is part of: AGAINST=REVISION
	@$(BIN)/python .ci/images.py affected --against "$(AGAINST)"

.PHONY: login
login: ## Log in to the registry of PREFIX as REGISTRY_USER, by REGISTRY_TOKEN out of the environment
	@printf %s "$$REGISTRY_TOKEN" | docker login "$(firstword $(subst /, ,$(PREFIX)))" --username "$$REGISTRY_USER" --password-stdin

.PHONY: image
image: .venv/.runtime ## Build and push one image, unless the registry has it: AGENT=researcher BASE=… PREFIX=registry.example/mesh
	@$(BIN)/python .ci/images.py publish "$$AGENT" --base "$(BASE)" $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: images-push
images-push: .venv/.runtime ## Build and push all images that the registry has not: BASE=… PREFIX=registry.example/mesh ONLY="researcher"
	@$(BIN)/python .ci/images.py publish $(ONLY) --base "$(BASE)" $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: images-lock
images-lock: .venv/.runtime ## Write what production runs, by digest, of this revision: BASE=… PREFIX=registry.example/mesh
	@$(BIN)/python .ci/images.py lock --base "$(BASE)" $(if $(PREFIX),--prefix $(PREFIX))

.PHONY: canary
canary: .venv/.runtime ## Start a version in the cluster and judge it by the alerts: AGENT=researcher DIGEST=sha256:… PROMETHEUS_URL=…
	@PYTHONPATH=. $(BIN)/python .ci/delivery.py canary "$$AGENT" "$$DIGEST"

.PHONY: promote
promote: .venv/.runtime ## Have the new version take over, or the one of DIGEST=sha256:…: AGENT=researcher
	@PYTHONPATH=. $(BIN)/python .ci/delivery.py promote "$$AGENT" $(if $(DIGEST),"$$DIGEST")

.PHONY: rollback
rollback: .venv/.runtime ## Take the new version back, to the one before or to DIGEST=sha256:…: AGENT=researcher
	@PYTHONPATH=. $(BIN)/python .ci/delivery.py rollback "$$AGENT" $(if $(DIGEST),"$$DIGEST")

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
