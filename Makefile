# 처음 부르면 .venv를 만들고, requirements.lock이 그대로이면 다시 설치하지 않는다.
.DEFAULT_GOAL := help
.PHONY: help run test lab docs bench notebooks torture fuzz audit jobs

PYTHON ?= python3
SOURCE ?= auto
PAGES ?= nbs
KILLS ?= 200
PIP_AUDIT := 2.10.0
SKYPILOT := 0.14.1
SLURM := slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15

SECONDS ?= 60
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard nbs/*.ipynb nbs/parts/*.ipynb))
export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## 이 목록을 보여 준다
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

run: .venv/ready ## 학습하고 평가하고 요약한다 (SOURCE=auto, cifar10, toy 또는 사진 폴더)
	$(BIN)/cifar-lit tutorial --data.source "$(SOURCE)"

test: .venv/ready ## ruff, 노트북(strict nbval), tests/를 돌린다. 코어마다 작업자 하나, 작업자마다 스레드 하나
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope

lab: .venv/ready ## JupyterLab으로 장을 연다
	$(BIN)/jupyter lab nbs

docs: .venv/ready ## 문서 사이트를 _docs에 만든다 (PAGES=돌린 노트북이 든 폴더)
	$(BIN)/python docs/build.py "$(PAGES)" _docs

bench: .venv/ready ## 나란히 재어 표와 그림을 만든다 (SOURCE=사진 폴더, QUICK=1이면 몇 분)
	$(BIN)/python bench "$(SOURCE)" $(if $(QUICK),--quick)

notebooks: .venv/ready ## 고친 노트북을 정리하고, 내보내고, 돌리고, README를 만든다
	$(BIN)/nbdev_clean
	$(BIN)/ruff format nbs
	$(BIN)/nbdev_export
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)
	$(BIN)/jupyter nbconvert --coalesce-streams $(NOTEBOOKS)
	$(BIN)/jupyter nbconvert --to markdown --output-dir . --output README nbs/index.ipynb

torture: .venv/ready ## 학습을 KILLS번(200) 죽이고 이어서 한 다음, 멈추지 않은 것과 비트까지 비교한다
	$(BIN)/python tests/torture.py --kills $(KILLS)

audit: .venv/ready ## requirements.lock의 패키지에 알려진 취약점이 있는지 PyPI에 묻는다
	$(BIN)/uv pip install --quiet --target .venv/audit pip-audit==$(PIP_AUDIT)
	@PYTHONPATH=.venv/audit $(BIN)/python -m pip_audit --progress-spinner off --strict --disable-pip --require-hashes -r requirements.lock || \
	  { echo '위에 취약점의 표가 없으면 PyPI에 물어보지 못한 것입니다. 네트워크를 확인하세요.' >&2; exit 1; }

fuzz: .venv/ready ## 파일을 읽는 곳마다 SECONDS초씩(60) 망가진 파일을 지어내 읽힌다
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/uv pip install --quiet --python $(BIN)/python atheris==3.0.0
	for reader in archive folder checkpoint; do \
	  $(BIN)/python tests/fuzz.py $$reader .venv/fuzz/$$reader/corpus -max_total_time=$(SECONDS) \
	    -rss_limit_mb=1500 -timeout=20 -max_len=20000 -artifact_prefix=.venv/fuzz/$$reader/ || exit 1; \
	done

# 시스템에 srun이 있으면 Lightning이 노트북마다 쓰라고 알리므로, SLURM은 설치하지 않고 풀어만 둔다.
jobs: .venv/ready ## jobs/의 작업 파일을 이 자리에서 만든 SLURM에서 돌리고, SkyPilot의 검사에 보인다
	test -x .venv/sky/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv/sky
	$(BIN)/uv pip install --quiet --python .venv/sky/bin/python skypilot==$(SKYPILOT)
	@test -d .venv/slurm || { \
	  mkdir -p .venv/debs && (cd .venv/debs && apt-get download -qq $(SLURM)) && \
	  for file in .venv/debs/*.deb; do dpkg -x $$file .venv/slurm.part || exit; done && \
	  mv .venv/slurm.part .venv/slurm; } || \
	  echo 'SLURM을 받지 못해 그 시험은 건너뜁니다. Debian이나 Ubuntu에서 apt-get update를 하고 다시 부르세요.' >&2
	$(BIN)/python -m pytest tests/test_jobs.py

.venv/ready: requirements.lock settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 이상이 필요합니다. 지금은 {sys.version.split()[0]}입니다. make PYTHON=python3.11 처럼 부르세요.")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	awk '/^[^ ]/ { keep = /^uv==/ } keep' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock || \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock --system-certs
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
