# make view: a trained scene in a browser, at a free port or at PORT=8080. make demo: a scene, a trained model and its video in a few minutes.
# make test: ruff, pyrefly and pytest.
# make docs: the site, in docs/_build/index.html; any warning fails.
# make test-browser: the viewer in Chromium, which is installed if it may be. make test-cluster: experiments on a SLURM of
# two nodes on this machine, which is installed if it may be; without it the tests are skipped.
# They first install into .venv what they need, when it is missing or its list is newer: requirements.txt for the demo,
# requirements-dev.txt too for the tests. A torch that already is in .venv and new enough stays.
PYTHON ?= python3
PY := .venv/bin/python

DEMO ?= demo
DEMO_STEPS ?= 1000
DEMO_TRAIN_VIEWS ?= 150
DEMO_TEST_VIEWS ?= 60

# The first port from 8080 on at which nothing answers.
FREE_PORT = import socket; \
	print(next(port for port in range(8080, 9080) if socket.socket().connect_ex(('127.0.0.1', port))))

.PHONY: view demo test test-long test-browser test-cluster docs clean

.venv/installed: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and \
		'Python 3.11 to 3.14 is needed (PyTorch has no packages for newer ones): make PYTHON=...')"
	@echo "installing PyTorch and the other packages into .venv: about 6 GB on Linux, which may take some minutes"
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt integrations/nerfbaselines/requirements.txt
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip install --disable-pip-version-check --no-deps -r integrations/nerfbaselines/requirements.txt
	touch $@

view: .venv/installed
	$(PY) -m viewer --checkpoint example/lego.pth --data_root example/lego --logging_root example/logs \
		--port $(or $(PORT),$(shell $(PY) -c "$(FREE_PORT)"))

demo: .venv/installed
	rm -rf $(DEMO)
	$(PY) -m scenes.render --out $(DEMO)/cube --sidelength 256 --train_views $(DEMO_TRAIN_VIEWS) \
		--test_views $(DEMO_TEST_VIEWS)
	$(PY) run_deepvoxels.py --train_test train --data_root $(DEMO)/cube/train --logging_root $(DEMO) --size small \
		--recipe fast --max_steps $(DEMO_STEPS) --validate_every 250 --experiment_name cube
	$(PY) run_deepvoxels.py --train_test test --data_root $(DEMO)/cube/test --logging_root $(DEMO) \
		--checkpoint latest --experiment_name cube --video_sidelength 720
	@echo
	@echo "That was the demo: open the video and the picture above. To go on:"
	@echo "  $(PY) -m viewer --checkpoint latest --logging_root $(DEMO)   # fly through it, in a browser"
	@echo "  $(PY) -m tensorboard.main --logdir $(DEMO)/runs       # how it learned, in a browser"
	@echo "  $(PY) run_deepvoxels.py --train_test train --logging_root $(DEMO) --resume latest --max_steps 3000   # learn longer"
	@echo "  $(PY) colmap_wrapper.py --img_dir PHOTOS --trgt_dir mine   # a scene of your own photos"

test: .venv/installed-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyrefly check
	$(PY) -m pytest -n auto --dist worksteal

test-long: .venv/installed-dev
	$(PY) -m pytest -m long -s

test-browser: .venv/installed-dev
	command -v chromium > /dev/null || { apt-get update -qq && apt-get install -y --no-install-recommends chromium; }
	$(PY) -m pytest -m browser

test-cluster: .venv/installed-dev
	@PATH="$$PATH:/usr/sbin"; { command -v slurmctld && command -v munged; } > /dev/null || { \
		apt-get update -qq && apt-get install -y --no-install-recommends slurm-wlm munge; } || \
		echo "SLURM could not be installed"
	$(PY) -m pytest -m cluster -rs

docs: .venv/installed-dev
	$(PY) -m sphinx -W --keep-going -n -q docs docs/_build
	@echo "open docs/_build/index.html"

clean:
	rm -rf .venv $(DEMO) docs/_build
