#!/usr/bin/env bash
# CMU AN4: 48 minutes of spelled names, numbers and dates, read by real people. Options: ../common/run.sh, or --help.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
exec ../common/run.sh --config conf/train.yaml --licence "free for any purpose (an4/LICENSE)" "$@"
