#!/usr/bin/env bash
# local/data.sh DOWNLOAD_DIR DATA_DIR NJ: Kaldi directories train, dev and test from what local/download.sh unpacked.
exec python local/data.py prepare --corpus_dir "$(dirname "$2")/downloads/an4" --data_dir "$2"
