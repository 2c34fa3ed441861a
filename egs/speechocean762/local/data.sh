#!/usr/bin/env bash
# local/data.sh DOWNLOAD_DIR DATA_DIR NJ [--units U]: Kaldi directories train, dev and test from what local/download.sh found.
exec python local/data.py prepare --download_dir "$1" --work_dir "$(dirname "$2")/downloads" --data_dir "$2" "${@:4}"
