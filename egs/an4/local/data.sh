#!/usr/bin/env bash
# local/data.sh DOWNLOAD_DIR DATA_DIR NJ: Kaldi directories train, dev and test from the unpacked corpus.
exec python local/data.py prepare --data_dir "$2"
