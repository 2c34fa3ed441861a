#!/usr/bin/env bash
# TED-LIUM 3: 452 hours of TED talks. Options: those below and those of ../common/run.sh, or --help.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

# options
parts=                  # all: the whole corpus, fetched if need be; found: what download_dir holds of it, a sample
config=conf/train.yaml  # all numbers
# end
source ../common/parse_options.sh

if [[ $config = */sample.yaml ]]; then parts=${parts:-found}; fi
parts=${parts:-all}
one_of parts all found
exec ../common/run.sh --config "$config" --local_opts "--parts $parts" --licence "CC BY-NC-ND 3.0" "$@"
