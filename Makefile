# make demo    the main job: fine-tunes SmolLM2-135M with unmodified Unsloth on the Mac's GPU, or on a simulated Mac
# make test    every test
# make check   the part that a developer runs all day
# make lint    ruff and mypy
# make bench   benchmarks, as ratios within one run
# make fidelity  PyTorch's tests of operators, modules, optimizers on simulated Macs against PyTorch's lists: 20 minutes
# make calibrate  measures what this Mac, or a simulated one, does: FILE=calibration.json is where to; minutes
# make same-torch  PyTorch's operators, modules and optimizers, with the patches and without: every case
# make switch-off  every change switched off for itself: import, a training step, undo: three quarters of an hour
# make versions  trains with releases of Unsloth, each with the libraries of its day, and without Unsloth: what has no
#                result yet, two minutes each; VERSIONS="2026.9.14 trl-newest" only these, AGAIN=1 also what failed
# make unreplaced  tests of trainers and families without any replacement of a kernel: those of Unsloth and TRL run as
#                  they ship; with the number of launches of each, and where they ran
# make torches  the demo, parity and the trainers on Macs with the torches that macos.txt does not install
# make shaders  every case of the kernel language as a Metal shader, with both schedules, and races and bounds checked
# make triton-tests  Triton's own language tests, of a checkout: TRITON_REPO=path/to/triton; half an hour
# make census  every Triton kernel of Unsloth, unsloth_zoo and TRL, in fp32, fp16 and bf16, also as shaders, against Triton
# make clients  tests of Liger-Kernel and flash-linear-attention, from clones of them: LIGER=path FLA=path; an hour
# make wheel RELEASE=2.16.0  what torch for macOS has that the release before has not; records it for the simulated Mac
# make wheels  whether what is recorded of torch for macOS is what its wheels hold: downloads them, 380 MB
# make kills   200 kills of a training that is resumed each time: 3 minutes
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ifeq ($(shell uname -s),Darwin)
PINS = requirements/macos.txt
SIMULATE =
# Triton has no wheel for macOS, and torchvision's, in macos.txt, is whole: nothing lies beside the environment.
BESIDE =
else
PINS = requirements/linux.txt
SIMULATE = UNSLOTH_SIMULATE_MAC=$${UNSLOTH_SIMULATE_MAC:-1}
BESIDE = $(VENV)/oracle $(VENV)/torchvision
endif
TORCH = $(shell grep '^torch==' $(PINS))

.PHONY: venv demo test check fidelity calibrate same-torch lint bench shaders census clients kills switch-off unreplaced
.PHONY: versions triton-tests wheel wheels torches
venv: $(VENV)/.installed

$(VENV)/.installed: $(PINS) pyproject.toml setup.py
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed for the pinned versions') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(PINS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# Triton, as the oracle that the kernels are compared with: beside the environment, since a Mac has none.
$(VENV)/oracle: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ -r requirements/oracle.txt

# torchvision's Python part, for the image processors: PyPI's wheel for Linux holds a binary that needs CUDA, so it lies
# beside the environment. macos.txt has it: on a Mac the wheel is whole.
$(VENV)/torchvision: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ -r requirements/torchvision.txt

demo: venv
	HF_HUB_OFFLINE=1 $(BIN)/python examples/prepare_smollm2.py demo
	HF_HUB_OFFLINE=1 $(SIMULATE) $(BIN)/python examples/finetune.py

# Two processes of one thread each, in the order of tests/conftest.py: a simulated device comes before other work on torch.
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: venv $(BESIDE)
	$(PYTEST)

check: venv $(filter %/oracle,$(BESIDE))
	$(PYTEST) -m "not slow"

fidelity: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fidelity --all --processes 2

calibrate: venv
	HF_HUB_OFFLINE=1 $(SIMULATE) $(BIN)/python verify_apple.py --calibrate $(FILE)

same-torch: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.same_torch

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p patcher

bench: venv
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file; done

shaders: $(VENV)/oracle
	PATCHER_METAL_CASES=1 $(BIN)/python -m pytest tests/tiles/test_on_metal.py

# TRITON_TESTS holds more of its arguments: --interpreter for real Triton's interpreter, --device cpu, names of files.
triton-tests: $(VENV)/oracle
	$(BIN)/python -m tests.triton_suite $${TRITON_REPO:?names a checkout of Triton} $${TRITON_OUT:-build/triton-tests} $(TRITON_TESTS)

census: $(VENV)/oracle
	PATCHER_CENSUS=all $(BIN)/python -m pytest tests/census

clients: venv
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.clients build/clients $(if $(LIGER),--liger $(LIGER)) $(if $(FLA),--fla $(FLA))
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.clients.models build/clients/site-packages

kills: venv
	PATCHER_KILLS=200 $(BIN)/python -m pytest tests/e2e/test_kills.py

switch-off: venv
	mkdir -p build/switch-off
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.e2e.switched_off build/switch-off build/switch-off/found.json

# Tests of training, each whole in processes of its own.
TRAINING = parity trainers 4bit families vision sound generation generated distillation sentences features
unreplaced: $(VENV)/oracle $(VENV)/torchvision
	rm -rf build/unreplaced
	PATCHER_UNREPLACED=build/unreplaced $(PYTEST) $(TRAINING:%=tests/e2e/test_%.py)
	$(BIN)/python -m tests.unreplaced build/unreplaced

torches: $(VENV)/oracle $(VENV)/torchvision
	for release in $${TORCHES:-2.13 2.15}; do \
		PATCHER_SIMULATE_TORCH=$$release $(PYTEST) $(TRAINING:%=tests/e2e/test_%.py) tests/e2e/test_demo.py || exit 1; \
	done

versions: $(VENV)/torchvision
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.versions build/versions $(if $(AGAIN),--again) $(VERSIONS)

WHEELS = build/wheels
WHEEL = $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --platform macosx_14_0_arm64 \
	--only-binary=:all: --python-version 3.12 --dest $(WHEELS)

wheel: venv
	$(WHEEL) torch==$${RELEASE:?is the version of a torch}
	$(BIN)/python -m patcher.simulator.wheels --record $(WHEELS)/torch-$(RELEASE)-*.whl
	$(BIN)/python -m tests.fidelity.wheel --record $(WHEELS)/torch-$(RELEASE)-*.whl

wheels: venv
	for version in $$(sed -n 's/^torch: //p' patcher/simulator/wheels/data/*.txt); do \
		$(WHEEL) torch==$$version && $(BIN)/python -m patcher.simulator.wheels --check $(WHEELS)/torch-$$version-*.whl \
			&& $(BIN)/python -m tests.fidelity.wheel --check $(WHEELS)/torch-$$version-*.whl || exit 1; \
	done
