# Sourced by run.sh: `--name value` sets the variable `name` of the header; an unknown name is an error, --help shows the header.

while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)
            echo "Usage: $recipe [--name value ...]; names, their values here and their meaning:"
            sed -n '/^# options/,/^# end/p' "${BASH_SOURCE[1]}" | sed -n 's/^\([a-z_]*\)=\(.*\)$/  --\1 \2/p'
            exit 0
            ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --*)
            name=${1#--}
            name=${name//-/_}
            if [ -z "${!name+set}" ]; then
                echo "$recipe: unknown option $1; --help lists those there are" >&2
                exit 1
            fi
            if [ $# -lt 2 ]; then
                echo "$recipe: option $1 needs a value" >&2
                exit 1
            fi
            printf -v "$name" '%s' "$2"
            shift 2
            ;;
        *)
            echo "$recipe: '$1' is not an option; write --name value, --help lists the names" >&2
            exit 1
            ;;
    esac
done
