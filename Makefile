# Options for pip, say an index of CPU wheels of torch:   make demo PIP_OPTIONS="--index-url ... --extra-index-url ..."
PIP_OPTIONS ?=
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python -m

# What is imported is compiled once, and kept: installing compiles all of it, which takes longer.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint docs install wheel-check lowest clean

# The environment, made once and again whenever what it is made from changes.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --no-compile $(PIP_OPTIONS) --constraint constraints.txt --editable ".[all,docs,dev]"
	touch $@

install: $(VENV)/installed

# The main job on MovieLens-100K: all models, the table with intervals, the page, a few recommendations.
demo: install
	$(RUN) seqrec data download ml-100k
	$(RUN) seqrec benchmark ml-100k-leave-one-out-v1 --seeds 1 --results runs/demo --report runs/demo/report.html
	$(RUN) seqrec train --data ml-100k --model gru4rec --output runs/demo/gru4rec train.epochs=5
	$(RUN) seqrec recommend runs/demo/gru4rec --user 1 --user 196 -k 5

# A worker a core and one more, since some tests wait for programs; each with one thread, since threads that wait
# for each other would make the small tests slow.
test: install
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 1)") --dist loadfile --no-loadscope-reorder

lint: install
	$(RUN) ruff check src tests benchmarks docs
	$(RUN) ruff format --check src tests benchmarks docs
	$(RUN) mypy

# The documentation as a site, in site/.
docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

# The built wheel in an environment of its own: the README runs there; its size, packages and start are printed.
wheel-check: install
	$(VENV)/bin/python benchmarks/install.py --pip="$(PIP_OPTIONS)"

# The tests with the oldest versions that pyproject.toml allows, in runs/lowest. Of torch, wheels without CUDA are
# rare: say which there is, as TORCH=2.13.0.
TORCH ?=
lowest: install
	$(RUN) pip install --quiet $(PIP_OPTIONS) uv
	$(VENV)/bin/python benchmarks/lowest.py $(if $(TORCH),--torch $(TORCH)) --pip="$(PIP_OPTIONS)"

clean:
	rm -rf $(VENV) runs site
