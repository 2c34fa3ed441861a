#!/usr/bin/env bash
# local/lm.sh DOWNLOAD_DIR DATA_DIR TARGET: a published language model, found in DOWNLOAD_DIR or fetched, copied to TARGET.
exec python local/lm.py --download_dir "$1" --work_dir "$(dirname "$2")/downloads" "$3"
