# Sourced by the driver: what all its commands run in.
# shellcheck shell=bash

die() {
    echo "$recipe: $1" >&2
    exit 1
}

from_config() {  # from_config VARIABLE=NUMBER...: set variables to numbers of the config
    local values variable
    # shellcheck disable=SC2154  # of the driver
    values=$(asrprune number "${@#*=}" "${numbers[@]}") || die "nothing was run (paths are relative to $PWD)"
    for variable in "${@%%=*}"; do read -r "$variable"; done <<< "$values"
}

if_true() {  # if_true VALUE WORD: print the word if the value is true
    if [ "$1" = true ]; then echo "$2"; fi
}

check_language_model() {  # an option for it has an effect, and it is in one place
    # shellcheck disable=SC2154  # of the driver
    if [[ $lm_text && ( -z $lm || -f $lm ) ]]; then
        wrong_usage "--lm_text $lm_text: no language model is trained; remove it, or set decode.decoder.lm to 3gram.arpa"
    fi
    if [[ $lm && -f $lm && -f $exp/lang/$lm ]]; then
        die "decode.decoder.lm $lm: is here and in $exp/lang, and decoding would take the second; remove one of the two"
    fi
}

export LC_ALL=C PYTHONUTF8=1 PYTHONUNBUFFERED=1  # files are sorted bytewise
command -v asrprune > /dev/null || PATH=$common/../../.venv/bin:$PATH
command -v asrprune > /dev/null || die "asrprune is not installed; run 'make demo', or pip install -e '.[train]' in the project's root"
python -c "import asrprune" 2> /dev/null || die "$(command -v python) has no asrprune, which local/ may need;\
 activate the environment that asrprune is installed in, or run 'make demo' once"
