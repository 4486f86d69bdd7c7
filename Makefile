# make demo   a sample call through a real daemon, watched live (no GPU, no microphone, no network once installed)
# make test   everything, with what the tests need installed into .venv
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint bench system-deps clean

demo: .venv/installed-base
	$(BIN)/serstream demo

test: .venv/installed-dev
	$(BIN)/pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-bench
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/resample.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/offline.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/rtp_ingest.py
	$(BIN)/python benchmarks/feed.py
	$(BIN)/python benchmarks/live_view.py

# What the tests need from Debian; tests whose part is missing skip and say so.
system-deps:
	@if ! command -v apt-get >/dev/null; then echo "system-deps: no apt-get here; install the packages of the Makefile by hand"; \
	elif [ "$$(id -u)" != 0 ]; then echo "system-deps: needs root: sudo make system-deps"; exit 1; \
	else apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		$(SYSTEM_PACKAGES); fi

SYSTEM_PACKAGES := ffmpeg libportaudio2 libasound2-plugins pulseaudio pulseaudio-utils tmux chromium \
	gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good baresip

# Each stamp holds until pyproject.toml changes, so that a second run starts in seconds.
.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "serstream needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/installed-base: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev,trainer]'
	touch $@ .venv/installed-base

.venv/installed-bench: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev,trainer,bench]'
	touch $@ .venv/installed-dev .venv/installed-base

clean:
	rm -rf .venv build dist *.egg-info
