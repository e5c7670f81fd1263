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

# The main job on MovieLens-100K: HRM, GRU4Rec and SASRec beside what they must beat, the table with intervals, the
# page, a model to serve, a few recommendations, and a notebook that does the same with a file. Half the epochs of
# the leaderboard's settings, so that it is soon done.
DEMO ?= runs/demo
demo: install
	$(RUN) seqrec data download ml-100k
	$(RUN) seqrec benchmark ml-100k-leave-one-out-v1 --models popularity,markov,item_knn,hrm,gru4rec,sasrec --seeds 1 \
		--set hrm.train.epochs=6 --set gru4rec.train.epochs=7 --set sasrec.train.epochs=7 --results $(DEMO)/results --report $(DEMO)/report.html
	$(RUN) seqrec train --data ml-100k --model gru4rec --output $(DEMO)/gru4rec train.epochs=4
	$(RUN) seqrec recommend $(DEMO)/gru4rec --user 1 --user 196 -k 5
	cp docs/notebooks/from-a-csv.ipynb $(DEMO)/from-a-csv.ipynb
	@echo
	@echo "$(DEMO)/report.html        the table above as a page: open it in a browser"
	@echo "$(DEMO)/gru4rec            the model: $(VENV)/bin/seqrec serve $(DEMO)/gru4rec"
	@echo "$(DEMO)/from-a-csv.ipynb   a notebook, from a CSV to recommendations"
	@echo
	@echo "Now with your own file, which has the columns user_id, item_id and timestamp:"
	@echo "  $(VENV)/bin/seqrec data check YOUR.csv         what is in it, and what to beware of"
	@echo "  $(VENV)/bin/seqrec choose YOUR.csv -o chosen   the best model for it, in 30 minutes (--minutes)"
	@echo "  $(VENV)/bin/seqrec serve chosen                recommendations over HTTP, with a page to try them"
	@echo "Columns of other names: --column user_id=customer. More: docs/tutorial.md"

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
