# make demo   a camera, the depth node and a viewer: INPUT=folder|video|bag OUTPUT=dir MODEL=m VIEWER=rerun
# make check  before each commit, in a minute and a half: lint, types, the tests that are not marked slow
# make test   everything CI runs: lint, types, the colcon build, all tests
# make soak   the long tests of what the node and its depth survive, then half an hour of load: MINUTES=30 OUTPUT=dir
# make humble the suite but for training in an environment with Ubuntu 22.04's numpy and OpenCV, in .venv-humble
# make openvino  what runs the network in OpenVINO, which stays out of .venv: there, auto would be it in all tests
# make gpu    on a machine with an NVIDIA GPU: its tests, the figures of docs/performance.md, a verdict: OUTPUT=dir;
#             PYTHON=python of an environment that has torch already is taken as it is
# make setup  the virtual environment in .venv, which the others make for themselves
# make lint, make build, make pins, make clean

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.ready
BUILD := .build

# On a sourced ROS 2 installation the environment sees apt's packages and keeps to their numpy 1; and
# to pytest 8, whose hooks the plugin of apt's launch_testing is written for (ros2/launch issue 979).
ifdef ROS_DISTRO
VENV_OPTIONS := --system-site-packages
REQUIREMENTS := -r requirements-dev.txt
PINS := sed -e '/^numpy==/d' -e '/^opencv-python==/d' -e '/^pytest==/d' constraints.txt \
  && echo 'numpy<2' && echo 'pytest<9'
else
REQUIREMENTS := -r requirements-dev.txt -r requirements-ros.txt
PINS := cat constraints.txt
endif

.DELETE_ON_ERROR:
.PHONY: setup pins demo picture check test soak humble openvino gpu lint build clean smoothdino-small notebooks

setup: $(STAMP)

# .venv/.unfinished stands for as long as the environment is not whole: a broken-off one is made afresh.
$(STAMP): requirements.txt requirements-dev.txt requirements-ros.txt constraints.txt setup.py setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Expected Python 3.10 to 3.13, got: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one, for example: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo '[1/3] virtual environment in .venv'
	@rm -f $@
	@if [ -e .venv/.unfinished ] || [ ! -x $(PY) ]; then \
	  mkdir -p .venv && touch .venv/.unfinished && \
	  find .venv -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf {} + && \
	  $(PYTHON) -m venv $(VENV_OPTIONS) .venv; fi
	@touch .venv/.unfinished
	@echo '[2/3] packages: a few minutes the first time, most of it PyTorch'
	@{ $(PINS); } > .venv/constraints.txt
	@$(PY) -m pip install --disable-pip-version-check -c .venv/constraints.txt $(REQUIREMENTS)
	@echo '[3/3] this package'
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@rm .venv/.unfinished
	@touch $@

# What pip is held to here, for whoever makes an environment in another way.
pins:
	@$(PINS)

demo: setup
	@$(PY) -m smoothdino_ros.demo $(if $(INPUT),--input '$(INPUT)') $(if $(OUTPUT),--output '$(OUTPUT)') \
	  $(if $(MODEL),--model '$(MODEL)') $(if $(VIEWER),--viewer '$(VIEWER)')

# docs/demo.png by the bundled model as it is now; to be committed after every change of it.
picture: setup
	$(PY) -m smoothdino_ros.demo --output $(BUILD)/demo && cp $(BUILD)/demo/strip.png docs/demo.png

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# A built tree is only worth testing whole: what an earlier build left is not in it.
build: setup
	rm -rf $(BUILD)/install
	$(PY) -m colcon --log-base $(BUILD)/log build --paths . --build-base $(BUILD)/build --install-base $(BUILD)/install

# Two files of tests at a time, each on one thread: two that wait for each other's cores take far longer.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

check: lint
	$(PYTEST) -m 'not slow'

test: lint build
	SMOOTHDINO_INSTALL=$(abspath $(BUILD)/install/smoothdino_ros) $(PYTEST)

soak: setup
	SMOOTHDINO_SOAK=1 $(PY) -m pytest test/ros/test_fuzz.py test/ros/test_survival.py test/model/test_engine.py --timeout 7200
	$(PY) -m benchmarks.soak --minutes $(or $(MINUTES),30) --output $(or $(OUTPUT),soak_output)

# Python 3.10, numpy and OpenCV are those of Ubuntu 22.04, which Humble runs on; the rest comes from PyPI.
HUMBLE := .venv-humble
humble: $(HUMBLE)/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=. $(HUMBLE)/bin/python -m pytest -n 2 --dist loadfile test/model test/ros

$(HUMBLE)/.ready: requirements.txt requirements-ros.txt constraints.txt
	rm -rf $(HUMBLE)
	python3.10 -m venv $(HUMBLE)
	{ sed -e '/^numpy==/d' -e '/^opencv-python==/d' constraints.txt \
	  && echo 'numpy==1.21.5' && echo 'opencv-python==4.5.4.60'; } > $(HUMBLE)/constraints.txt
	$(HUMBLE)/bin/python -m pip install --disable-pip-version-check -c $(HUMBLE)/constraints.txt \
	  -r requirements.txt -r requirements-ros.txt pillow pytest pytest-timeout pytest-xdist hypothesis
	touch $@

openvino: setup
	$(PY) -m pip install --disable-pip-version-check -q --upgrade --no-deps --target $(BUILD)/openvino -c constraints.txt openvino
	PYTHONPATH=$(BUILD)/openvino $(PYTEST) test/model/test_openvino.py

gpu:
	@$(PYTHON) -m benchmarks.gpu $(if $(OUTPUT),--output '$(OUTPUT)')

# With the bundled model as it is now; to be committed after every change of it.
notebooks: setup
	$(PY) notebooks/save.py

clean:
	rm -rf $(BUILD) demo_output gpu_output soak_output .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

# The bundled model: a decoder on DINOv2 as it is, from NYU_ROOT, CLIPS_ROOT and rooms, in two parts; resumed where
# it was broken off. ENCODER is a directory or a name on the Hugging Face hub, of any size; PRECISION=bf16-mixed
# takes half the time where the hardware computes in bf16.
FIT_SMALL = $(PY) -m training.train fit --config training/configs/smoothdino_small.yaml --ckpt_path last \
  $(if $(PRECISION),--trainer.precision $(PRECISION))
smoothdino-small: setup
	$(PY) -m training.render_rooms runs/rooms --rooms 36
	$(FIT_SMALL) $(if $(ENCODER),--model.network.encoder '$(ENCODER)')
	$(FIT_SMALL) --config training/configs/smoothdino_small_places.yaml
	$(PY) -m training.floor_looks runs/smoothdino_small_places/model --model runs/smoothdino_small_places/model
	@echo 'The model is in runs/smoothdino_small_places/model; its figures:'
	$(PY) -m training.evaluate --source nyu clips room --clips '7scenes_redkitchen_*' \
	  --model runs/smoothdino_small_places/model
