# `make demo` and `make test` each do all the set-up that they need.
PYTHON ?= python3
VENV := .venv
HARVEST := $(VENV)/bin/harvest

.PHONY: setup demo test clean

setup: $(VENV)/installed

$(VENV)/installed: setup.cfg constraints.txt
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[blazepose,dev]'
	touch $@

demo: setup
	$(HARVEST) demo --out demo

test: setup
	$(HARVEST) weights fetch blazepose
	NUMBA_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 tests

clean:
	rm -rf $(VENV) demo build dist *.egg-info
