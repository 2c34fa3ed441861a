# Sourced by the driver: `--name value` sets a variable of its header; an unknown name is an error, --help lists the header.
# A recipe's run.sh with a header of its own sources it first, and what it does not know stays in "$@" for the driver.
# shellcheck shell=bash

recipe=$(basename "$PWD")/run.sh
driver=$(dirname "${BASH_SOURCE[0]}")/run.sh
header=run.sh  # of the recipe, in whose directory we are
if [ "${BASH_SOURCE[1]}" -ef "$driver" ]; then header=$driver; fi
names=" $(sed -n '/^# options/,/^# end/s/^\([a-z_]*\)=.*/\1/p' "$header" | tr '\n' ' ')"
rest=() given=" "

show_help() {
    local title="Usage: $recipe [--name value ...]; names, their values here, and what they mean:"
    if [ "$header" != "$driver" ]; then title="Options of this recipe alone:"; fi
    echo "$title"
    sed -n '/^# options/,/^# end/s/^\([a-z_]*\)=[^#]*#* *\(.*\)/\1 \2/p' "$header" | while read -r name meaning; do
        if [ "$header" = "$driver" ] || ! grep -q "^$name=.*#" "$driver"; then
            printf '  --%-13s %-16s %s\n' "$name" "${!name:-\"\"}" "$meaning"
        fi
    done
    if [ "$header" != "$driver" ]; then return; fi
    echo "Stages: $(sed -n 's/^ *stage \([0-9]*\) \([a-z]*\) .*/\1 \2/p' "$driver" | paste -s -d , - | sed 's/,/, /g')"
    echo "Paths are relative to the recipe's directory, $PWD"
}

remember() {  # remember NAME...: note the values of options for the later runs on this datadir, which may leave them out
    local name note old where  # the notes are in the recipe, because a data directory may be a stranger's
    # shellcheck disable=SC2154  # datadir is in the driver's header
    mkdir -p "$datadir" 2> /dev/null && where=$(cd "$datadir" && pwd -P) || return 0  # `asrprune stage` says what is wrong
    for name in "$@"; do
        note=.remembered/${where#"$(pwd -P)/"}/$name old=$datadir/.done/$name  # old: written by earlier versions
        if [[ $given == *" $name "* ]]; then
            printf '%s' "${!name}" | cmp -s - "$note" || note "$note" "${!name}"
        elif [ -f "$note" ]; then
            printf -v "$name" '%s' "$(< "$note")"
        elif [ -f "$old" ] && ! printf '%s' "${!name}" | cmp -s - "$old"; then
            die "$old: is not trusted, because a data directory may be a stranger's; read it, and give --$name once"
        fi
    done
}

note() {  # note FILE VALUE
    if ! { mkdir -p "${1%/*}" && printf '%s' "$2" > "$1"; } 2> /dev/null; then
        echo "$recipe: $PWD/$1: cannot be written; give --${1##*/} in every run" >&2
    fi
}

wrong_usage() {
    echo "$recipe: $1; --help lists the options" >&2
    exit 1
}

one_of() {  # one_of NAME VALUE...: the variable NAME holds one of the values
    local name=$1 value
    shift
    for value in "$@"; do if [ "${!name}" = "$value" ]; then return; fi; done
    wrong_usage "--$name ${!name}: must be one of $(printf '%s, ' "$@" | sed 's/, $//')"
}

while [ $# -gt 0 ]; do
    case $1 in
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --help | -h)
            show_help
            if [ "$header" = "$driver" ]; then exit; fi
            rest+=("$1")
            shift
            ;;
        --*)
            name=${1#--}
            name=${name//-/_}
            if [[ $names != *" $name "* ]]; then
                if [ "$header" = "$driver" ]; then wrong_usage "unknown option $1"; fi
                rest+=("${@:1:2}")
                shift $(($# > 1 ? 2 : 1))
                continue
            fi
            [ $# -gt 1 ] || wrong_usage "option $1 needs a value"
            if [[ ${!name} =~ ^[0-9]+$ && ! $2 =~ ^[0-9]+$ ]]; then wrong_usage "option $1 needs a number, not '$2'"; fi
            printf -v "$name" '%s' "$2"
            given+="$name "
            shift 2
            ;;
        *)
            if [ "$header" = "$driver" ]; then wrong_usage "'$1' is not an option, write --name value, and a value with blanks in quotes"; fi
            rest+=("$1")
            shift
            ;;
    esac
done
set -- ${rest[@]+"${rest[@]}"}
# shellcheck disable=SC2154  # both are in the driver's header
if [ "$header" = "$driver" ]; then
    if [ "$stage" -gt "$stop_stage" ]; then wrong_usage "--stage $stage comes after --stop_stage $stop_stage"; fi
    for name in config expdir datadir download_dir train_set dev_set test_sets; do
        if [ -z "${!name// /}" ]; then wrong_usage "--$name: must not be empty"; fi
    done
    if [ "$train_set" = "$dev_set" ]; then wrong_usage "--dev_set $dev_set: is the training set, too; give another set"; fi
fi
case ${exp_tag:=$(basename -- "${config:-}" .yaml)} in */* | . | .. | -*) wrong_usage "--exp_tag $exp_tag: must be the name of a directory below --expdir, without a /" ;; esac
