# `make demo` and `make test` set up everything they need in .venv; nothing else has to be run first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt

# $(call timed,NAME,COMMAND) says how long a command took.
timed = @begin=$$(date +%s); $(2) && echo "$(1): $$(($$(date +%s) - begin)) s"

.PHONY: demo test tests test-slow soak scale load links lint types constraints clean

demo: $(VENV)/installed
	$(BIN)/resca render jobs/demo/prompts.jsonl --out out/demo --ulysses 2

# Type checks beside the tests, which wait a third of their time.
test: lint
	@$(MAKE) --no-print-directory --jobs=2 types tests

tests: $(VENV)/installed-test
	$(call timed,tests,OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow")

test-slow: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# Kills ranks, nodes and drivers at random for ten minutes.
soak: $(VENV)/installed-test
	$(BIN)/python -m tests.jobs.survival.soak --items 200 --gangs 3 --minutes 10

# A batch of 100,000 prompts: seconds and memory.
scale: $(VENV)/installed-test
	$(BIN)/python -m tests.jobs.survival.hundred_thousand

# 200 clients that submit 2,000 videos to `resca serve`: seconds of an answer and memory.
load: $(VENV)/installed-test
	$(BIN)/python -m tests.jobs.serve.load

# Videos shared by two ranks over links of 10 and 1 Gbit/s and of 2 ms, predicted and measured. Needs root.
links: $(VENV)/installed-test
	OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m tests.jobs.measure.links --report out/links

lint: $(VENV)/installed-test
	$(call timed,lint,$(BIN)/ruff check . && $(BIN)/ruff format --check .)

types: $(VENV)/installed-test
	$(call timed,types,$(BIN)/pyright --pythonpath $(BIN)/python)

# PyPI's torch brings gigabytes of CUDA. Where there is no GPU, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu:
# pip prefers 2.13.0+cpu, which is there, to 2.13.0. The rest is installed by uv, which needs seconds where pip needs
# minutes, but knows nothing of pip's settings; for an index of your own, set UV_DEFAULT_INDEX too.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or 3.12; name one that is, as in: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile uv==0.13.9 torch==2.13.0
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(INSTALL) -e '.[test]'
	touch $@

# The newest versions that pyproject.toml allows, of everything, for everyone. The libraries of CUDA are left to torch.
constraints: $(VENV)/installed
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade --no-annotate --no-header \
		pyproject.toml --output-file $(VENV)/constraints.txt
	grep --invert-match --extended-regexp '^(nvidia|cuda)-' $(VENV)/constraints.txt > constraints.txt

clean:
	rm -rf $(VENV) out
