# Every target sets up what it needs. PYTHON chooses the interpreter that makes the environment.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
CODE    = src tests examples benchmarks
PEERS  ?= .venv-peers
BENCH  ?= bench-files
# Seconds that `make heavy` may take.
DEADLINE ?= 3600

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test test-all heavy check format docs bench bench-peers bench-training clean

help:
	@echo "make demo      watch a small model forget a digit, in a minute"
	@echo "make test      the tests, about three minutes"
	@echo "make test-all  the tests, the long ones included"
	@echo "make heavy     the long ones alone, the shortest first, as many as fit into DEADLINE seconds (3600)"
	@echo "make check     format, lint, types, import contract, tests"
	@echo "make bench     how fast merging is, against the disk (bench-peers: and mergekit)"
	@echo "make bench-training   how fast training is, against a DataLoader"
	@echo "make setup     only the environment (.venv)"
	@echo "make docs      write the tables of docs/formats.md from the cases of the tests"
	@echo "make format    let ruff format and fix the code"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "negmerge needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 setup" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[experiments,peft,sign,dev]'
	@touch $(STAMP)

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/negmerge demo

# worksteal: a file's tests stay in one process as long as there is work for both, so its fixtures are made once.
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m ''

heavy: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist load -m heavy --deadline $(DEADLINE)

check: $(STAMP)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

format: $(STAMP)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

docs: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m formats.table

# Speed of merging against the floor and the published loop; with bench-peers against mergekit too. About 25 GB in BENCH.
bench: $(STAMP)
	$(BIN)/python benchmarks/merge.py --folder $(BENCH)

bench-peers: $(STAMP) $(PEERS)/bin/mergekit-pytorch
	$(BIN)/python benchmarks/merge.py --folder $(BENCH) --peers $(PEERS)/bin/python

# Speed of the input pipeline and of whole training steps; about three minutes.
bench-training: $(STAMP)
	$(BIN)/python benchmarks/training.py

$(PEERS)/bin/mergekit-pytorch: constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q -c constraints.txt mergekit

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
