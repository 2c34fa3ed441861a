#!/usr/bin/env bash
# local/download.sh DOWNLOAD_DIR DATA_DIR: find the archive in DOWNLOAD_DIR, or fetch it, and unpack it beside DATA_DIR.
exec python local/data.py download --download_dir "$1" --corpus_dir "$(dirname "$2")/downloads/an4"
