#!/usr/bin/env bash
# LibriSpeech: 100 or 960 hours of audio books. Options: those below and those of ../common/run.sh, or --help.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

# options
subset=100              # hours of training speech: 100, or 960 for all three parts
parts=                  # all: the whole published parts, fetched if need be; found: what download_dir holds of them, a sample
config=                 # all numbers; by default conf/train.yaml, or conf/train_960.yaml for subset 960
# end
source ../common/parse_options.sh

if [ "$subset" = 960 ]; then config=${config:-conf/train_960.yaml}; fi
config=${config:-conf/train.yaml}
if [[ $config = */sample.yaml ]]; then parts=${parts:-found}; fi
parts=${parts:-all}
one_of subset 100 960
one_of parts all found
exec ../common/run.sh --config "$config" --train_set "train_$subset" --test_sets "test_clean test_other" \
    --local_opts "--subset $subset --parts $parts" --licence "CC BY 4.0" "$@"
