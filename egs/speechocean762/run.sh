#!/usr/bin/env bash
# speechocean762: 5.6 hours of English, read by speakers of Mandarin. Options: those below and those of ../common/run.sh, or --help.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

# options
units=                  # what is recognised: words or phones; by default phones with a config called phones*, else words
config=                 # all numbers; by default conf/train.yaml for words and conf/phones.yaml for phones
datadir=                # data directories; by default data for words and data_phones for phones
# end
source ../common/parse_options.sh

if [[ $(basename "$config") = phones* ]]; then units=${units:-phones}; fi
units=${units:-words}
one_of units words phones
if [ "$units" = phones ]; then config=${config:-conf/phones.yaml} datadir=${datadir:-data_phones}; fi
exec ../common/run.sh --config "${config:-conf/train.yaml}" --datadir "${datadir:-data}" --local_opts "--units $units" \
    --licence "free for commercial and non-commercial purposes" "$@"
