#!/usr/bin/env bash
# Speech synthesised on the spot: the whole path in minutes on two CPU cores. Options: ../common/run.sh, or --help.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
exec ../common/run.sh --config conf/train.yaml "$@"
