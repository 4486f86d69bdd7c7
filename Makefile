# make demo   a sample call through a real daemon, watched live (no GPU, no microphone, no network once installed)
# make retrain-demo   train a model, publish it, activate it in a running daemon while a call goes on
# make test   everything, with what the tests need installed into .venv
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo retrain-demo test lint bench system-deps clean install uninstall soak test-systemd

demo: .venv/installed-base
	$(BIN)/serstream demo

retrain-demo: .venv/installed-dev
	$(BIN)/python -m trainer.retrain_demo

# Three at a time on two cores: most tests wait for real time to pass.
test: .venv/installed-dev
	$(BIN)/pytest --numprocesses 3 --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --recursive serstream trainer
	$(BIN)/mypy

bench: .venv/installed-bench
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/resample.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/offline.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/rtp_ingest.py
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/serstream bench capacity --streams 50,500,1000
	$(BIN)/python benchmarks/feed.py
	$(BIN)/python benchmarks/live_view.py
	$(BIN)/python benchmarks/swap.py

# What the tests need from Debian; tests whose part is missing skip and say so.
system-deps:
	@if ! command -v apt-get >/dev/null; then echo "system-deps: no apt-get here; install the packages of the Makefile by hand"; \
	elif [ "$$(id -u)" != 0 ]; then echo "system-deps: needs root: sudo make system-deps"; exit 1; \
	else apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		$(SYSTEM_PACKAGES); fi

SYSTEM_PACKAGES := ffmpeg libportaudio2 libasound2-plugins pulseaudio pulseaudio-utils tmux chromium \
	gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good sip-tester libbcg729-0 prometheus \
	debootstrap systemd-container iproute2

# Debian keeps what makes environments in a package of its own; without it one without pip would be left behind.
VENV := $(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make environments; on Debian:" \
	"apt install python3-venv"; exit 1; }; $(PYTHON) -m venv

# Each stamp holds until something of these changes, so that a second run starts in seconds.
BUILT_FROM := pyproject.toml hatch_build.py serstream/emotion/spectra.c
.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "serstream needs Python 3.11 or newer, this is " + sys.version)'
	@$(VENV) .venv

.venv/installed-base: $(BUILT_FROM) | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/installed-dev: $(BUILT_FROM) | .venv/bin/python
	$(PIP) --editable '.[dev,trainer]'
	touch $@ .venv/installed-base

.venv/installed-bench: $(BUILT_FROM) | .venv/bin/python
	$(PIP) --editable '.[dev,trainer,bench]'
	touch $@ .venv/installed-dev .venv/installed-base

# The service, as root: an environment of its own, the units, the configuration and the models. Running it again
# upgrades; it never touches a configuration or a model that is there.
PREFIX := /opt/serstream
UNITS := /usr/local/lib/systemd/system
PACKAGE ?= .
PIP_OPTIONS ?=
SYSTEMCTL := $(if $(wildcard /run/systemd/system),systemctl,@echo "no systemd here, not done: systemctl")

install:
	@test "$$(id -u)" = 0 || { echo "install: needs root: sudo make install"; exit 1; }
	@test -x $(PREFIX)/bin/python || { $(VENV) $(PREFIX); }
	$(PREFIX)/bin/python -m pip --disable-pip-version-check install --quiet --upgrade $(PIP_OPTIONS) $(PACKAGE)
	install -D -m 644 -t $(UNITS) systemd/serstream.service systemd/serstream.socket
	install -m 644 systemd/serstream.service $(UNITS)/serstream@.service
	install -D -m 644 systemd/sysusers.conf /usr/local/lib/sysusers.d/serstream.conf
	install -D -m 644 systemd/tmpfiles.conf /usr/local/lib/tmpfiles.d/serstream.conf
	install -D -m 644 -t $(PREFIX)/share/serstream systemd/drop-ins/*.conf
	systemd-sysusers /usr/local/lib/sysusers.d/serstream.conf
	systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/serstream.conf
	test -e /etc/serstream/serstream.toml || sed 's|^#repository = ""|repository = "/var/lib/serstream/models"|' \
		config/serstream.toml | install -m 644 /dev/stdin /etc/serstream/serstream.toml
	cp --recursive --no-clobber models/. /var/lib/serstream/models
	chown --recursive serstream:serstream /var/lib/serstream
	ln -sf $(PREFIX)/bin/serstream /usr/local/bin/serstream
	$(SYSTEMCTL) daemon-reload
	$(SYSTEMCTL) enable serstream.service
	$(SYSTEMCTL) restart serstream.service
	$(SYSTEMCTL) try-restart 'serstream@*.service'

# Leaves the configuration and the models.
uninstall:
	@test "$$(id -u)" = 0 || { echo "uninstall: needs root: sudo make uninstall"; exit 1; }
	-$(SYSTEMCTL) disable --now serstream.socket serstream.service
	-$(SYSTEMCTL) stop 'serstream@*.service'
	-$(SYSTEMCTL) disable serstream@.service
	rm -rf $(PREFIX) $(UNITS)/serstream.service $(UNITS)/serstream@.service $(UNITS)/serstream.socket \
		/usr/local/bin/serstream /usr/local/lib/sysusers.d/serstream.conf /usr/local/lib/tmpfiles.d/serstream.conf
	$(SYSTEMCTL) daemon-reload
	! test -e /var/lib/serstream || chown --recursive root:root /var/lib/serstream /etc/serstream
	! getent passwd serstream >/dev/null || userdel serstream

# The service in a real systemd: install, boot, reload, kill, stop, uninstall. Says why when it cannot.
test-systemd: .venv/installed-dev
	$(BIN)/python tests/systemd_rehearsal.py

soak: .venv/installed-base
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf .venv build dist *.egg-info serstream/emotion/libspectra.so
