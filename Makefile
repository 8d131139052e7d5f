# Two commands matter: make demo, make test. Both set everything up first, in .venv beside this file.
# More than the defaults: make demo ARGS="--budget 1min"   make test ARGS="-m 'not slow' tests/data"

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help setup demo test check bench docs prove-long
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole life of one model, on data this machine already has"
	@echo "make test    all tests"
	@echo "make check   style, types, architecture, sizes; a few seconds"
	@echo "make docs    write docs/*/reference from the code, and what the programs in the pages print"
	@echo "make bench   measure danlu beside its peers, and show the tables in README.md; 33 minutes"
	@echo "make setup   only set up"
	@echo "make prove-long   kill trainings at 3,000 moments and the command at 50, try the loss rule at 60 cases a task; minutes"

setup: .venv/.ok

# uv installs in a third of pip's time, byte code included (every start gains two seconds). It does not read pip's configuration, so a folder of local wheels is handed on.
.venv/.ok: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("danlu needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 setup" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv
	links="$$(echo $${PIP_FIND_LINKS:-$$($(BIN)/pip config get global.find-links 2>/dev/null)} | tr -s ' \n' ',')"; \
	if [ -n "$${links%,}" ]; then export UV_FIND_LINKS="$${links%,}"; fi; \
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt -e '.[dev]' \
	|| $(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/danlu demo $(ARGS)

# One thread per worker: two workers of many threads each would only wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# The tests of accidents with ten times the kills of make test, and the loss rule at six times the cases.
prove-long: setup
	PROVE_POINTS=3000 PROVE_KILLS=50 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --timeout 3600 \
		tests/faults $(ARGS)
	PROVE_EXAMPLES=60 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --timeout 3600 tests/train/test_loss_rule.py $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --timeout 3600 -m long $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.check.sizes
	$(BIN)/python -m pytest -p no:xdist tests/check

# With peers: make bench ARGS="--peers FOLDER --text input.txt" (benchmarks/README.md says how to get them).
bench: setup
	for script in front_door training_step time_to_quality forecast ranks saving tables; do $(BIN)/python benchmarks/$$script.py $(ARGS) || exit $$?; done

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/run.py
