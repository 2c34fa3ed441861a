# Sourced by the driver: what all its commands run in.
# shellcheck shell=bash

die() {
    echo "$recipe: $1" >&2
    exit 1
}

export LC_ALL=C PYTHONUTF8=1 PYTHONUNBUFFERED=1  # files are sorted bytewise
command -v asrprune > /dev/null || PATH=$common/../../.venv/bin:$PATH
command -v asrprune > /dev/null || die "asrprune is not installed; run 'make demo', or pip install -e '.[train]' in the project's root"
python -c "import asrprune" 2> /dev/null || die "$(command -v python) has no asrprune, which local/ may need;\
 activate the environment that asrprune is installed in, or run 'make demo' once"
