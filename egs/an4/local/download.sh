#!/usr/bin/env bash
# local/download.sh DOWNLOAD_DIR: fetch (or find) the archive and unpack it into downloads/an4.
exec python local/data.py download --download_dir "$1"
