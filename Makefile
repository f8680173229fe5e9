# `make demo` and `make test` set up everything they need in .venv; nothing else has to be run first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow soak scale lint clean

demo: $(VENV)/installed
	$(BIN)/resca render jobs/demo/prompts.txt --out out/demo --method resca --ulysses 2

test: $(VENV)/installed-test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# Kills ranks, nodes and drivers at random for ten minutes.
soak: $(VENV)/installed-test
	$(BIN)/python -m tests.jobs.survival.soak --items 200 --gangs 3 --minutes 10

# A batch of 100,000 prompts: seconds and memory.
scale: $(VENV)/installed-test
	$(BIN)/python -m tests.jobs.survival.hundred_thousand

lint: $(VENV)/installed-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

# PyPI's torch brings gigabytes of CUDA. Where there is no GPU, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu:
# pip prefers 2.13.0+cpu, which is there, to 2.13.0.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or 3.12; name one that is, as in: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) out
