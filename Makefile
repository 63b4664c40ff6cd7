# make demo | demo-comfy | test | test-all | test-quick | fuzz | chaos | coverage | bench | lint: on a machine with Python 3.10+ and package registries each is all the set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a ComfyUI: COMFYUI_PATH, else the one this folder is installed in, else comfy-cli's default
HOSTS := $(if $(COMFYUI_PATH),$(COMFYUI_PATH),../.. $(HOME)/comfy/ComfyUI)
HOST := $(patsubst %/comfy/ldm/flux/model.py,%,$(firstword $(wildcard $(addsuffix /comfy/ldm/flux/model.py,$(HOSTS)))))
HOST_READY := $(if $(HOST),$(VENV)/host-ready)
# in the files' order: by default those of few tests come last, the longest ones among them, and one of the two cores waits
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-comfy test test-all test-quick fuzz chaos coverage bench lint

demo: $(if $(wildcard $(VENV)/ready),$(VENV)/ready $(HOST_READY),$(VENV)/small)
	$(BIN)/cologen demo

demo-comfy: $(VENV)/ready $(HOST_READY)
	$(BIN)/cologen demo --comfy

test: $(VENV)/ready $(HOST_READY)
	$(PYTEST) -m "not long" --durations 20 $(ARGS)

# with the few that take minutes, before a release
test-all: $(VENV)/ready $(HOST_READY)
	$(PYTEST) --durations 20 $(ARGS)

# what one runs while working; make test ARGS="-p pytest_randomly" shuffles them all
test-quick: $(VENV)/ready $(HOST_READY)
	$(PYTEST) -m "not slow and not long and not server and not browser" $(ARGS)

# so many attempts each, from the FIRST on: make fuzz N=10000 FIRST=5000; their counts stand at the end
fuzz: $(VENV)/ready $(HOST_READY)
	FUZZ=$(or $(N),1000) FUZZ_FIRST=$(or $(FIRST),0) $(PYTEST) --dist worksteal tests/fuzz $(ARGS)

# N faults in training runs, on one process and on two
chaos: $(VENV)/ready
	$(BIN)/python tests/tools/chaos.py $(or $(N),200)

# processes that tests start are not counted
coverage: $(VENV)/ready $(HOST_READY)
	$(PYTEST) --cov --cov-report term-missing:skip-covered $(ARGS)

bench: $(VENV)/ready $(HOST_READY)
	$(BIN)/cologen bench inference
	$(BIN)/cologen bench controls --width 2048 --double 1 --single 2
	$(BIN)/cologen bench experts
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m cologen.training bench scaling --device cpu
	$(BIN)/cologen bench training --width 512 --target 256 --source 256 --text 64 --batch 2
	$(if $(HOST),$(BIN)/cologen bench inference --host comfyui --width 2048 --double 1 --single 2 --repeats 3)
	$(if $(HOST),$(BIN)/cologen bench inference --host comfyui --preset klein4b --double 1 --single 4 --dtype float32 --repeats 3)
	$(if $(HOST),$(BIN)/cologen bench import)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

# enough for the demo
$(VENV)/small: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e .
	touch $@

# the host comes first: with it, torch, torchvision and torchaudio must belong together
$(VENV)/ready: pyproject.toml $(HOST_READY)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e ".[test]"
	touch $@

$(VENV)/host-ready: $(if $(HOST),$(HOST)/requirements.txt) tests/host-constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r $< -c tests/host-constraints.txt
	touch $@
