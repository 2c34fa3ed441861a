#!/usr/bin/env bash
# Checks and measures on a GPU, in at most 8 minutes: tests, speed by depth, training, AN4. Needs Python with torch, alone with
# the checkout and, for AN4, ../shared/data; pip installs what else is missing. To try the script itself: --device cpu --tiny
#
#   tools/gpu_check.sh [--out DIR] [--device cuda|cpu] [--tiny] [--parts tests,depth,training,an4]
#
# Writes DIR/gpu.json, DIR/gpu.md (to be committed as docs/gpu.md) and the log of each part; DIR is exp_gpu_check by default.
# PYTHON=... chooses the interpreter, PIP_LIMIT_S=... gives pip more time. Exits with 1 if a part failed.
set -euo pipefail
export GPU_CHECK_STARTED=${GPU_CHECK_STARTED:-$(date +%s)}  # the 8 minutes begin here
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pip_limit_s=${PIP_LIMIT_S:-100}

python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" > /dev/null || python=python3
"$python" -c 'import torch' || { echo "$python: has no torch; install it, or name another interpreter: PYTHON=..." >&2; exit 1; }

missing() { "$python" "$root/tools/gpu_check/missing.py" "$root/pyproject.toml"; }  # a requirement a line
if [ -n "$(missing)" ]; then
    # The machine's own torch stays, as it fits the driver; if constraints.txt names another, pip finds the torchaudio for it.
    here=$("$python" -c 'import sys; print("\n".join(filter(None, sys.path)))')
    if "$python" -m venv "$root/.venv_gpu_check"; then
        python=$root/.venv_gpu_check/bin/python
        echo "$here" > "$("$python" -c 'import site; print(site.getsitepackages()[0])')/machine.pth"
    fi
    constraints=$(mktemp)
    torch=$("$python" -c 'from importlib.metadata import version; print(version("torch"))')
    pinned='^torch=='
    grep -qx "torch==${torch%+*}" "$root/constraints.txt" || pinned='^torch(audio)?=='
    { grep -Ev "$pinned" "$root/constraints.txt"; echo "torch==$torch"; } > "$constraints"
    mapfile -t wanted < <(missing)
    if [ ${#wanted[@]} != 0 ]; then
        echo "installing ${wanted[*]}"
        timeout $pip_limit_s "$python" -m pip install -q --disable-pip-version-check --retries 1 --timeout 10 \
            -c "$constraints" "${wanted[@]}" ||
            echo "pip could not, in $pip_limit_s s (no network?); going on with what is here; without: $(missing | paste -s -d ' ')"
    fi
    rm -f "$constraints"
fi
exec "$python" "$root/tools/gpu_check/check.py" "$@"
