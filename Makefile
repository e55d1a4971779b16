# `make setup` installs everything that a fresh machine needs except make and Python 3.11 or 3.12.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
UV := .uv/bin/uv
RUN := .venv/bin/python
export UV_PYTHON_DOWNLOADS := never

.PHONY: setup demo picture app browser-test weights test quick lint requirements

setup: .venv/.ready

.uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "error: Python 3.11 or 3.12 is needed (MediaPipe has no other builds); give it as make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet 'uv>=0.9,<1'

.venv/.ready: pyproject.toml uv.lock | .uv/bin/uv
	$(UV) sync --frozen --quiet --compile-bytecode --python $(PYTHON)
	@touch $@

demo: setup
	@mkdir -p outputs
	$(RUN) inference.py --video assets/portrait.png --audio assets/speech.flac --output outputs/demo.mp4
	@echo "The result: outputs/demo.mp4"
	@echo "Your own:   $(RUN) inference.py --video YOUR_VIDEO --audio YOUR_SPEECH --output dubbed.mp4"

# Makes the animated picture of the README with the weights that ship.
picture: setup
	@mkdir -p outputs
	$(RUN) inference.py --video assets/portrait.png --audio assets/speech.flac --output outputs/panel.mp4 --panel --lossless
	$(RUN) -m examples.teaser

# Serves the page in a browser. Flags of app.py: APP="--port 8000".
app: setup
	$(UV) sync --frozen --quiet --compile-bytecode --group app --python $(PYTHON)
	@touch .venv/.ready  # uv may have recreated the environment
	$(RUN) app.py $(APP)

# Installs what the tests of the page need, except Chromium and its driver.
browser-test: setup
	$(UV) sync --frozen --quiet --compile-bytecode --group browser-test --python $(PYTHON)
	@touch .venv/.ready

# The recipe of the weights in checkpoints/lite: about four hours on one CPU core, plus preprocessing. For your own videos
# give your own lists. Ctrl-C saves what is running; the same command continues there.
VIDEOS ?= ../shared/clips
SHIFTS ?= $(if $(filter ../shared/clips,$(VIDEOS)),--audio-shift checkpoints/clips_audio_shift.txt)
LISTS ?= $(if $(filter ../shared/clips,$(VIDEOS)),--train-list checkpoints/clips_train.txt --val-list \
	checkpoints/clips_val.txt,$(error give the lists of clips: LISTS="--train-list FILE --val-list FILE"))
RENDER_LISTS ?= $(subst checkpoints/clips_train,checkpoints/clips_render,$(LISTS))
VGG ?= checkpoints/vgg19-dcbb9e9d.pth
LANDMARK_STEPS ?= 34000
RENDER_STEPS ?= 362
ADVERSARIAL_STEPS ?= 600
weights: setup
	$(RUN) -m preprocess --videos $(VIDEOS) --cache cache/weights $(SHIFTS)
	$(RUN) train_landmark.py --cache cache/weights --run runs/weights/landmark --steps $(LANDMARK_STEPS) $(LISTS)
	$(RUN) train_render.py --cache cache/weights --run runs/weights/render --steps $(RENDER_STEPS) --vgg $(VGG) $(RENDER_LISTS)
	$(RUN) train_render.py --cache cache/weights --run runs/weights/adversarial --init runs/weights/render/renderer.safetensors \
		--loss.adversarial 0.25 --loss.feature-matching 2.5 --initial-motion-steps 0 --steps $(ADVERSARIAL_STEPS) \
		--vgg $(VGG) $(RENDER_LISTS)
	cp runs/weights/landmark/landmark_generator.safetensors runs/weights/adversarial/renderer.safetensors runs/weights/
	$(RUN) -m evaluation validate --cache cache/weights --weights runs/weights --output runs/weights/scores $(LISTS)

test: setup
	$(RUN) -m pytest -q

quick: setup
	$(RUN) -m pytest -q -m "not slow"

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

requirements: setup
	$(UV) export --frozen --no-dev --no-hashes --no-header --quiet --output-file requirements.txt
