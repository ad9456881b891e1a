# Two commands do all their own set-up on a machine with Python 3.11 or newer, pip, make and a C compiler:
#   make demo    the main job on the embedded default: raw text -> pretraining -> question answering -> report
#   make test    the tests
# `make cluster` is for who has root and the packages that tests/cluster names: several hosts and SLURM on this machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without -c constraints.txt pip would take the newest CUDA build of torch, several gigabytes.
PIP := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
# pip compiles byte code one file after the other; this does it on all cores, and leaves out what is never imported.
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib \
	-x 'transformers/models/(?!bert/|auto/|__init__)|torch/testing/_internal|torch/_inductor/|/tests?/|jax/experimental'

.PHONY: demo test cluster lint format docs clean

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" IF_EXISTS=$(if $(FRESH),restart,resume) scripts/demo.sh

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

cluster: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m cluster tests/cluster

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Not --quiet: warnings that are not printed do not fail a strict build.
docs: $(VENV)/installed-docs
	$(BIN)/python -m scripts.docs --stage
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "found $$($(PYTHON) --version); expected Python 3.11 or newer; fix: make PYTHON=python3.11 ..."; exit 2; }
	@echo "installing into $(VENV) (once)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	$(COMPILE)
	@touch $@

# timm is installed without its dependencies: it asks for torchvision, which its optimizers do not import.
$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps timm
	$(COMPILE)
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
