#!/usr/bin/env bash
# What is to be measured on a GPU, in three calls of at most 8 minutes each: benchmarks/gpu.py says what they do.
#
#     bash benchmarks/gpu.sh measure OUT
#     bash benchmarks/gpu.sh compile OUT SCENE
#     bash benchmarks/gpu.sh train OUT SCENE
#
# PYTHON names the interpreter; without it that of .venv, or python3.
set -euo pipefail
root=$(dirname "$(dirname "$(realpath "$0")")")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
exec "$python" -m benchmarks.gpu "$@"
