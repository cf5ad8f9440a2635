#!/usr/bin/env bash
# Checks and times the library on the accelerator that JAX finds. Arguments go on to gpu_check.py:
#
#     bash scripts/launch/gpu_check.sh                     # about 4 minutes on one H100; writes results/gpu_check.json
#     bash scripts/launch/gpu_check.sh --tiny              # the same parts at tiny sizes, on any device
#
# PYTHON=... chooses the interpreter. Without it: .venv/bin/python if it exists, else python3. An interpreter without a
# CUDA build of JAX needs `pip install -e .[cuda12]` or `.[cuda13]` first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
default=python3
[ -x .venv/bin/python ] && default=.venv/bin/python
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-$default}" -m scripts.launch.gpu_check "$@"
