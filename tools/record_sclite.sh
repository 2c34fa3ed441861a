#!/usr/bin/env bash
# Record what NIST's sclite says about seeded transcripts: the oracle of test/decode/test_score.py.
#
#   tools/record_sclite.sh [DIR]      default: test/fixtures/sclite
#
# Needs Debian's sctk (apt-get install sctk; recorded with 2.4.10). Deterministic: same package, same bytes.
# Writes ref.trn and hyp.trn (made here), pra.txt (every alignment) and sum.txt (the table by speaker).
set -euo pipefail

dir=$(realpath -m "${1:-$(dirname "$0")/../test/fixtures/sclite}")
sclite=$(PATH=$PATH:/usr/lib/sctk/bin command -v sclite) || { echo "sclite not found: apt-get install sctk" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$dir"

python3 - "$scratch" <<'PYTHON'
"""Write ref.trn and hyp.trn: 441 utterances by 10 speakers with the errors recognisers make."""

import random
import sys
from pathlib import Path

# Only rng.random() is promised to give the same numbers in every Python version.
rng = random.Random(20240917)
WORDS = """the of and to a in that it is was he for on with as his they be at one have this from or had by hot but some
what there we can out other were all your when up use word how said an each she which do their time if will way about many
then them would write like so these her long make thing see him two has look more day could go come did my sound no most
number who over know water than call first people may down side been now find any new work part take get place made live
where after back little only round man year came show every good me give our under name very through just form great think
say help low line before turn cause same mean differ move right boy old too does tell sentence set three want air well also
play small end put home read hand port large spell add even land here must big high such follow act why ask men change went
it's don't straightforward recognition café über naïve ninety-nine""".split()
CONFUSED = {"the": "a", "a": "the", "to": "two", "two": "to", "their": "there", "there": "their", "it's": "its", "in": "and"}
# sclite's choice among equal costs shows here: three substitutions, or two deletions with two insertions.
TIES = [
    ("x x y z w", "z w w z"), ("a a c d b", "d b b d"), ("a d c c e", "c e b c"), ("b b b c e", "c e e c"),
    ("c c a a b", "a b d a"), ("a b b c d a", "d e a c"), ("a a b c c a d", "c d c d b a"), ("a b a b c c d a", "d c d e e c"),
    ("a b b c a a d a", "c d e d b e d"), ("a a b c c c d d e", "a d d e d f d"), ("a b c b d c e e f d g", "g f h d g f"),
    ("a b c c d c e a a f a", "d d e f c a d f b b b"),
]  # fmt: skip
ACCENTS = ("naïve über café", "naive uber")


def below(n: int) -> int:
    return int(rng.random() * n)


def words(count: int, vocabulary: int) -> list[str]:
    """A few words are frequent and most are rare, as in speech."""
    return [WORDS[int(vocabulary * rng.random() ** 2)] for _ in range(count)]


def recognised(ref: list[str], rate: float, vocabulary: int) -> list[str]:
    """``ref`` with errors on about ``rate`` of its words: wrong, missing, added, said twice, swapped, split, joined."""
    hyp: list[str] = []
    for word in ref:
        kind = below(12) if rng.random() < rate else -1
        if kind < 0:
            hyp.append(word)
        elif kind < 5:
            hyp.append(CONFUSED.get(word) or words(1, vocabulary)[0])
        elif kind == 7:
            hyp += [word, *words(1 + below(2), vocabulary)]
        elif kind == 8:
            hyp += [word, word]
        elif kind == 9 and hyp:
            hyp.insert(len(hyp) - 1, word)
        elif kind == 10 and len(word) > 4:
            hyp += [word[:3], word[3:]]
        elif kind == 11 and hyp:
            hyp[-1] += word
    return hyp


def pairs() -> list[tuple[list[str], list[str]]]:
    made = [(ref.split(), hyp.split()) for ref, hyp in [*TIES, ACCENTS]]
    for number in range(427):
        vocabulary = 4 if number % 6 == 0 else len(WORDS)
        ref = words(1 + below(60 if number % 29 == 0 else 14), vocabulary)
        rate = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)[below(6)]
        made.append((ref, [] if number % 43 == 7 else recognised(ref, rate, vocabulary)))
    return made


speakers = ["fc01", "fc02", "fc03", "mb11", "mb12", "mb13", "mb14", "speaker0015", "z"]
# One error in 16 words: sclite prints 6.25 % as 6.3, rounding halves up.
half = ("half-0441", WORDS[:16], [*WORDS[:15], "wrong"])
made = ((f"{speakers[int(9 * rng.random() ** 1.3)]}-{number:04d}", *pair) for number, pair in enumerate(pairs()))
lines = sorted([half, *made])
for part, file in ((1, "ref.trn"), (2, "hyp.trn")):
    text = "".join(" ".join([*line[part], f"({line[0]})"]) + "\n" for line in lines)
    Path(sys.argv[1], file).write_text(text, encoding="utf-8")
PYTHON

cd "$scratch"
"$sclite" -r ref.trn -h hyp.trn -i rm -e utf-8 -f 0 -o sum pra -O "$scratch"
mv ref.trn "$dir/ref.trn"
mv hyp.trn "$dir/hyp.trn"
mv hyp.trn.sys "$dir/sum.txt"
mv hyp.trn.pra "$dir/pra.txt"
