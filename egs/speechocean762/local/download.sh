#!/usr/bin/env bash
# local/download.sh DOWNLOAD_DIR DATA_DIR [--units U]: find the corpus in DOWNLOAD_DIR, or fetch and unpack it beside DATA_DIR.
exec python local/data.py download --download_dir "$1" --work_dir "$(dirname "$2")/downloads" "${@:3}"
