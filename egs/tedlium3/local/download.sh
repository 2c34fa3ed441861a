#!/usr/bin/env bash
# local/download.sh DOWNLOAD_DIR DATA_DIR [--parts WHICH]: find the corpus in DOWNLOAD_DIR, or fetch and unpack it.
exec python local/data.py download --release 3 --download_dir "$1" --work_dir "$(dirname "$2")/downloads" "${@:3}"
