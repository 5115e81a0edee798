# Everything runs in .venv, which is made from constraints.txt when it is missing or out of date:
# first with what the demo needs, and with all that tests and checks need when one of them is run.
# With another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

FUZZ_SECONDS ?= 600
ALL := -m 'not torture'
# Where it is set, each process of pytest compiles all test files again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all newest torture fuzz check docs pictures tour bits bench-dsp bench-load bench-build clean

$(DEMO): pyproject.toml constraints.txt dsp/kernel/kernel.c dsp/kernel/lanes.h
	@echo "making $(VENV) with what the demo needs: about 110 packages, 1 GB; a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-compile -e '.[demo]' # to compile all of it takes longer than the demo
	touch $(DEMO)

$(READY): $(DEMO)
	@echo "adding to $(VENV) what tests and checks need: a few minutes"
	$(INSTALL) -e '.[test]'
	-$(BIN)/python -m compileall -q -j 2 $(VENV)/lib > /dev/null # what the demo's install left out
	touch $(READY)

demo: $(DEMO)  ## Synthesise a corpus, build a feature set, train on it
	$(BIN)/python -m basilar.workflows.demo

test: $(READY)  ## The tests to run while one works: under 4 minutes
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(READY)  ## All tests but those of make torture
	$(BIN)/python -m pytest $(ALL) -n 2 --dist worksteal

newest:  ## All tests with whatever pip finds today, without constraints.txt
	.ci/newest

torture: $(READY)  ## The tests that take long
	$(BIN)/python -m pytest -m torture
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest $(ALL) tests/dsp

fuzz: $(READY)  ## Fresh random input: FUZZ_SECONDS of damaged audio, and recipes, tables, stores
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest $(ALL) tests/fuzz

check: $(READY)  ## Lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## The pages and an API reference, in docs/_build, and the tour run; dead links are errors
	$(INSTALL) -e '.[docs]'
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . docs/_build
	$(BIN)/python -m pytest -m torture tests/test_tour.py

bits: $(READY)  ## The same bits by all supported versions of NumPy
	$(BIN)/python -m pytest $(ALL) tests/test_bits.py
	.ci/bits

sanitize: $(READY)  ## The kernel's tests with sanitizers of addresses and undefined behaviour
	.ci/sanitize

bits-arm: $(READY)  ## The same bits on an emulated 64-bit Arm; installs Debian's packages for it
	.ci/bits-arm

bench-dsp: $(READY)  ## Representations against peers
	$(BIN)/python -m benchmarks.dsp
	$(BIN)/python -m benchmarks.resampling

bench-load: $(READY)  ## Training reads against peers
	$(BIN)/python -m benchmarks.load

bench-build: $(READY)  ## Builds against peers, and of ever more clips
	$(BIN)/python -m benchmarks.build

pictures: $(READY)  ## Those of docs/representations.md
	$(BIN)/python docs/pictures/make.py

tour: $(READY)  ## Run docs/tour.ipynb, and keep what it prints
	$(BIN)/python docs/run_tour.py

clean:  ## Remove the environments and the demo
	rm -rf .venv .venv-* demo docs/_build docs/tour .pytest_cache .mypy_cache .ruff_cache .hypothesis
