#!/usr/bin/env bash
# local/data.sh DOWNLOAD_DIR DATA_DIR NJ [--config FILE]: synthesise the corpus; nothing is downloaded.
exec python local/data.py --config conf/corpus.yaml --data_dir "$2" --nj "$3" "${@:4}"
