#!/usr/bin/env bash
# Reproduce the study, or run its tests, from any folder: ./run_all.sh --help
#
# The environment is the conda environment "synthtune" where there is one (conda env create -f environment.yml), and
# otherwise .venv in this clone, made from the same list. Nothing is left outside the clone but what pip caches.
set -euo pipefail

export SYNTHTUNE_STARTED_IN=$PWD
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  echo "run_all.sh needs Python 3.11 or newer and found none: install it, or name one with PYTHON=/path/to/python." >&2
  exit 1
}

conda_environment() {
  local tool
  if [ "${CONDA_DEFAULT_ENV:-}" = synthtune ] && [ -x "${CONDA_PREFIX:-}/bin/python" ]; then
    printf '%s\n' "$CONDA_PREFIX"
    return
  fi
  for tool in conda mamba micromamba; do
    if command -v "$tool" >/dev/null 2>&1; then
      "$tool" env list 2>/dev/null | awk '$1 == "synthtune" { folder = $NF } END { print folder }' || true
      return
    fi
  done
}

export PYTHONPATH=$root/lib${PYTHONPATH:+:$PYTHONPATH}

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  python=$(find_python)
  exec "$python" -m synthtune.run.reproduce --help
fi

prefix=$(conda_environment)
if [ -n "$prefix" ]; then
  python=$prefix/bin/python
else
  # The copy of requirements.txt in .venv is written last, so it says that the set-up finished, and with which list.
  if ! cmp -s requirements.txt .venv/requirements.txt; then
    bootstrap=$(find_python)
    "$bootstrap" -m synthtune.run.environment
  fi
  python=$root/.venv/bin/python
fi

export SYNTHTUNE_CACHE=${SYNTHTUNE_CACHE:-$root/.cache/synthtune}
export MPLCONFIGDIR=$root/.cache/matplotlib IPYTHONDIR=$root/.cache/ipython HF_HOME=${HF_HOME:-$root/.cache/huggingface}
export JUPYTER_DATA_DIR=$root/.cache/jupyter JUPYTER_RUNTIME_DIR=$root/.cache/jupyter/runtime
export JUPYTER_CONFIG_DIR=$root/.cache/jupyter/config JUPYTER_PREFER_ENV_PATH=1 JUPYTER_PLATFORM_DIRS=1
export HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$MPLCONFIGDIR"

if [ "${1:-}" = test ]; then
  shift
  exec "$python" -m pytest "$@"
fi
exec "$python" -m synthtune.run.reproduce "$@"
