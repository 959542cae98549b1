# make demo       both models on packaged data: train, sample, evaluate
# make test       the test suite        make test-slow   the tests that take long
# make lint       ruff
#
# Each makes its own virtual environment first. PYTHON=python3.12 chooses another
# interpreter and gives it an environment of its own.

PYTHON ?= python3

ifeq ($(PYTHON),python3)
VENV := .venv
else
VENV := .venv-$(notdir $(PYTHON))
endif

BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := workdir/demo

# uv takes seconds where pip takes a minute.
ifneq ($(shell uv --version 2>&1 | grep "^uv "),)
INSTALL := uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
  uv pip install --quiet --python $(BIN)/python -e '.[dev]'
else
INSTALL := $(PYTHON) -m venv $(VENV) && \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
endif

.PHONY: demo demo-symphony demo-equijump test test-slow lint

# Both models at the same time, since compilation keeps one core busy.
demo: $(READY)
	@echo "both models side by side; what a command prints comes when it has ended"
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=line \
	  demo-symphony demo-equijump

demo-symphony: $(READY)
	$(BIN)/symphony train --config=demo --workdir=$(DEMO)/train
	$(BIN)/symphony sample --num_molecules=100 --output=$(DEMO)/molecules.sdf
	$(BIN)/symphony evaluate --samples=$(DEMO)/molecules.sdf --output=$(DEMO)/report --overwrite

demo-equijump: $(READY)
	$(BIN)/equijump train --config=demo --workdir=$(DEMO)/train_ala2
	$(BIN)/equijump sample --num_jumps=500 --replicas=20 --output=$(DEMO)/rollout
	$(BIN)/equijump evaluate --trajectory '$(DEMO)/rollout/*.xtc' \
	  --output=$(DEMO)/report_ala2 --overwrite
	$(BIN)/equijump sample --sequence=YGGFL --num_jumps=100 --replicas=4 \
	  --output=$(DEMO)/enkephalin
	$(BIN)/equijump evaluate --trajectory '$(DEMO)/enkephalin/*.xtc' \
	  --output=$(DEMO)/report_enkephalin --overwrite

# Two processes, each with files of its own: compilation keeps one core busy.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "expected Python 3.11 or later, found " + sys.version.split()[0])'
	@echo "installing into $(VENV); this is done once"
	@$(INSTALL)
	@echo '*' > $(VENV)/.gitignore
	@touch $@
