# Every target that needs the environment makes it first. 'make help' lists what there is.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
LOWEST := .venv-lowest

DIGITS := runs/digits_ar

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
NUMBERS := $(patsubst %,tests/test_%.py,transformer attention objectives features decoding infilling sampling palette) \
  tests/probing tests/modules tests/gpu

# make palette DATA=SamplePhotos COLORS=64: any data module, any size. The values reach the shell as words, never as code.
DATA ?= CIFAR10
quoted = '$(subst ','\'',$(1))'
ifeq ($(origin COLORS),undefined)
COLORS := $(if $(filter Digits,$(value DATA)),17,512)
endif
ifeq ($(origin NAME),undefined)
NAME := $(shell printf %s $(call quoted,$(value DATA)) | tr '[:upper:]' '[:lower:]')
endif
unexport DATA COLORS NAME

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## create .venv and install igpt with its tested versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("igpt needs Python 3.11 or newer; try make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

palette: $(STAMP) ## build palettes/NAME.npy; DATA=CIFAR10 unless given
	$(BIN)/igpt palette --data $(call quoted,$(value DATA)) --colors $(call quoted,$(value COLORS)) \
	  --out $(call quoted,palettes/$(value NAME).npy)

demo: $(STAMP) ## the whole method on real digits, under 4 minutes: palette, training, probe, samples
	@echo "== 1/5 palette: the 17 grey levels of scikit-learn's 1,797 digits"
	@$(BIN)/igpt palette --data Digits --colors 17 --out palettes/digits.npy
	@echo "== 2/5 autoregressive pre-training: predict every pixel from those before it"
	@$(BIN)/igpt fit --config configs/digits_ar.yaml
	@echo "== 3/5 loss on the test images, in nats per pixel"
	@$(BIN)/igpt test --config configs/digits_ar.yaml --ckpt_path $(DIGITS)/checkpoints/last.ckpt
	@echo "== 4/5 what the features of each layer know about the class"
	@$(BIN)/igpt probe --ckpt $(DIGITS)/checkpoints/last.ckpt
	@echo "Raw pixels do better here: 1,300 images of 8x8 are no ground for the paper's claim, only for seeing it work."
	@echo "== 5/5 pictures: digits from nothing, and lower halves drawn anew"
	@$(BIN)/igpt sample --ckpt $(DIGITS)/checkpoints/last.ckpt --num 64 --out $(DIGITS)/samples.png
	@$(BIN)/igpt sample --ckpt $(DIGITS)/checkpoints/last.ckpt --rows 8 --num 6 --out $(DIGITS)/completions.png
	@echo "== look at"
	@ls palettes/digits.png $(DIGITS)/probe/layers.png $(DIGITS)/samples.png $(DIGITS)/completions.png
	@echo "and at the loss curves and pictures of training: $(BIN)/tensorboard --logdir runs"

SEEDS ?= 3
reproduce-mini: $(STAMP) ## the paper's experiments on digits, SEEDS=3, with a report; under 30 minutes on 2 cores
	$(BIN)/python benchmarks/reproduce.py digits --seeds $(SEEDS)

reproduce-mnist: $(STAMP) ## the same on 5,000 digits of MNIST; a run takes at most 25 minutes on 2 cores, goes on when stopped
	$(BIN)/python benchmarks/reproduce.py mnist --seeds $(SEEDS)

compare-families: $(STAMP) ## AR, BERT and other families under one protocol, SEEDS=3, on digits and MNIST; goes on when stopped
	$(BIN)/python benchmarks/families.py --seeds $(SEEDS)

test: $(STAMP) ## the test suite, under 10 minutes on 2 cores
	$(PYTEST) -m 'not slow'

test-all: $(STAMP) ## the test suite with the slow tests
	$(PYTEST)

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
	touch $@

test-lowest: $(LOWEST)/.installed ## the test suite with the lowest versions that pyproject.toml allows, in .venv-lowest
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-gpu: $(STAMP) ## a GPU against the CPU; skipped where there is none
	IGPT_TEST_DEVICE=auto $(BIN)/python -m pytest tests/gpu

# PyTorch's cache of compiled graphs does not know which instructions they were compiled for: it must be one of its own.
test-avx2: export ATEN_CPU_CAPABILITY := avx2
test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-avx2: export MKL_ENABLE_INSTRUCTIONS := AVX2
test-avx2: export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/build/inductor-avx2
test-avx2: $(STAMP) ## the demo's first steps and the tests of numbers as on a CPU without bfloat16, with a bound on the time
	rm -rf build/avx2
	timeout 30 $(BIN)/igpt palette --data Digits --colors 17 --out build/avx2/digits.npy
	timeout 60 $(BIN)/igpt fit --config configs/digits_ar.yaml --runs_dir build/avx2 --trainer.max_steps 40 \
	  --model.init_args.palette build/avx2/digits.npy
	timeout 60 $(BIN)/igpt probe --ckpt build/avx2/digits_ar/checkpoints/last.ckpt
	IGPT_TEST_DEVICE=cpu timeout 420 $(PYTEST) -m 'not slow' $(NUMBERS)

mutation: $(STAMP) ## small faults put into the core, each of which a test must find (docs/testing.md)
	$(BIN)/python benchmarks/mutation.py

docs: export CUDA_VISIBLE_DEVICES :=
docs: $(STAMP) ## the documentation as a site in build/site, with the API from the docstrings; a warning is an error
	$(BIN)/mkdocs build --quiet --strict
	$(BIN)/python -W error -m pdoc --docformat google --output-directory build/site/api $(addprefix igpt.,model palette data modules \
	  callbacks checkpoints probing interop) igpt_datamodules

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(PEERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

bench: $(PEERS) ## igpt beside its peers, in a quarter of an hour on 2 quiet cores; fills the tables of docs/performance.md
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done
	$(BIN)/python benchmarks/table.py

MINUTES ?= 9
bench-gpu: $(PEERS) ## everything that is to be known of a GPU, row by row, in MINUTES=9
	$(BIN)/python benchmarks/gpu.py --minutes $(MINUTES)
	$(BIN)/python benchmarks/table.py

clean: ## remove caches and build products; palettes, runs and data stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +

.PHONY: help setup palette demo reproduce-mini reproduce-mnist compare-families test test-all test-lowest test-gpu test-avx2 mutation docs lint bench bench-gpu clean
