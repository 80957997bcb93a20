# The two commands: `make demo` and `make test`. Each needs nothing but Python >= 3.11 and make.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := $(VENV)/.demo

# What one file of tests starts is its own, so that files can run beside one another.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test check format docs bench bench-pages instructions rollout fuzz test-long test-lowest clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 22

demo: $(DEMO) ## A guarded FastAPI app on 127.0.0.1:8000, with a local issuer and calls to try
	@$(BIN)/asgi-guard demo examples.fastapi_app:app $(DEMO_ARGS)

test: $(READY) ## Lint, types, and the tests with their coverage gate; up to ten minutes
	@$(MAKE) --no-print-directory check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(READY) ## Lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Put the code in order
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(READY) ## Put what README.md and docs/ hold of the code there: variables, reasons, public names
	$(BIN)/python -m tests.pages

bench: $(READY) ## What the guard costs, on this machine, in less than a minute
	@$(BIN)/python -m benchmarks --quick

bench-pages: $(READY) ## Measure everything in full, thirty-five minutes, and put it into README.md and docs/
	@$(BIN)/python -m benchmarks --json $(VENV)/benchmarks.json
	@$(BIN)/python -m benchmarks pages $(VENV)/benchmarks.json

instructions: $(READY) ## Whether a guarded request costs more instructions than recorded; a minute or so
	@$(BIN)/python -m benchmarks instructions

fuzz: $(READY) ## A million made-up Authorization headers, none of which may be let in; some minutes
	@$(BIN)/python -m tests.fuzz

rollout: $(READY) ## Whether a request is lost while guarded processes are replaced; a minute or so
	@$(BIN)/python -m benchmarks rollout --check

test-long: $(READY) ## Tests that `make test` leaves out: the wheel, the production example, suites of benchmarks; some minutes
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

test-lowest: ## The tests, against the lowest versions that pyproject.toml allows; some minutes
	@test -n "$(PYTHON)" || { echo "asgi-guard needs Python 3.11 or newer: say make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python -m pip install --disable-pip-version-check --quiet -c tests/lowest.txt -e '.[dev]'
	.venv-lowest/bin/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

# The demo takes what it serves with and no more: a small part of what the tests need.
$(DEMO): pyproject.toml
	$(call set-up,demo,some twenty seconds)
	@touch $(DEMO)

$(READY): pyproject.toml
	$(call set-up,$(DEVELOPING),a minute or two)
	@touch $(DEMO) $(READY)

DEVELOPING := dev,bench,mcp,production,browser

define set-up
	@test -n "$(PYTHON)" || { echo "asgi-guard needs Python 3.11 or newer, and none was found: install one, or say make PYTHON=/path/to/python3"; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON); the first time takes $(2)."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --quiet -e '.[$(1)]'
endef

clean: ## Remove what these commands made
	rm -rf $(VENV) .venv-lowest dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
