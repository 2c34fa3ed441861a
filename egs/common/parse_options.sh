# Sourced by run.sh: `--name value` sets a variable of its header; an unknown name is an error, --help lists the header.
# shellcheck shell=bash

recipe=$(basename "$PWD")/run.sh
driver=${BASH_SOURCE[1]}
names=" $(sed -n '/^# options/,/^# end/s/^\([a-z_]*\)=.*/\1/p' "$driver" | tr '\n' ' ')"

show_help() {
    echo "Usage: $recipe [--name value ...]; names, their values here, and what they mean:"
    sed -n '/^# options/,/^# end/s/^\([a-z_]*\)=[^#]*#* *\(.*\)/\1 \2/p' "$driver" | while read -r name meaning; do
        printf '  --%-13s %-16s %s\n' "$name" "${!name:-\"\"}" "$meaning"
    done
    echo "Stages: $(sed -n 's/.*run_stage \([0-9]*\) \([a-z]*\) .*/\1 \2/p' "$driver" | paste -s -d , - | sed 's/,/, /g')"
    echo "Paths are relative to the recipe's directory, $PWD"
}

wrong_usage() {
    echo "$recipe: $1; --help lists the options" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) show_help; exit ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --*)
            name=${1#--}
            name=${name//-/_}
            [[ $names == *" $name "* ]] || wrong_usage "unknown option $1"
            [ $# -gt 1 ] || wrong_usage "option $1 needs a value"
            if [[ ${!name} =~ ^[0-9]+$ && ! $2 =~ ^[0-9]+$ ]]; then wrong_usage "option $1 needs a number, not '$2'"; fi
            printf -v "$name" '%s' "$2"
            shift 2
            ;;
        *) wrong_usage "'$1' is not an option, write --name value" ;;
    esac
done
# shellcheck disable=SC2154  # both are in the header
[ "$stage" -le "$stop_stage" ] || wrong_usage "--stage $stage comes after --stop_stage $stop_stage"
