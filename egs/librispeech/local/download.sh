#!/usr/bin/env bash
# local/download.sh DOWNLOAD_DIR DATA_DIR [--subset N --parts WHICH]: find the parts in DOWNLOAD_DIR, or fetch and unpack them.
exec python local/data.py download --download_dir "$1" --work_dir "$(dirname "$2")/downloads" "${@:3}"
