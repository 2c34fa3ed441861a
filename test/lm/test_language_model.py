"""N-gram models: back-off as the ARPA format defines it, also of pruned models, and files that are broken."""

import gzip
import itertools
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from asrprune.lm.arpa import ArpaModel, write_arpa
from asrprune.lm.kneser_ney import estimate, read_sentences
from asrprune.lm.language_model import LanguageModel
from asrprune.runtime.errors import UserError

# "b a" is no bigram, so "a b a" has no suffix of two words.
PRUNED = """made by hand
\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.1\t<unk>
-99\t<s>\t-0.2
-0.9\t</s>
-0.5\ta\t-0.4
-0.7\tb\t-0.3

\\2-grams:
-0.31\t<s> a\t-0.11
-0.32\ta b\t-0.12
-0.33\tb b\t-0.13
-0.34\ta </s>

\\3-grams:
-0.21\t<s> a b
-0.22\ta b b

\\end\\
"""


def write(folder: Path, text: str | bytes, name: str = "lm.arpa") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def by_definition(grams: dict[tuple[str, ...], tuple[float, float]], history: tuple[str, ...], word: str) -> float:
    """log10 P(word | history): the longest n-gram that is there, and the back-off weights of the histories given up."""
    if (*history, word) in grams:
        return grams[(*history, word)][0]
    return grams.get(history, (0.0, 0.0))[1] + by_definition(grams, history[1:], word)


def entries(text: str) -> dict[tuple[str, ...], tuple[float, float]]:
    rows = (line.split("\t") for line in text.splitlines() if "\t" in line)
    return {tuple(row[1].split()): (float(row[0]), float(row[2]) if len(row) > 2 else 0.0) for row in rows}


def scores(model: LanguageModel, words: tuple[str, ...]) -> list[float]:
    state, found = model.start, []
    for word in words:
        score, state = model.score(state, word)
        found.append(score)
    return found


def check_all_sentences(model: LanguageModel, text: str, length: int) -> None:
    grams = entries(text)
    for words in itertools.product([word for word in model.words if word != "<s>"], repeat=length):
        history = ("<s>", *words)
        expected = [
            by_definition(grams, history[max(0, place + 1 - model.order + 1) : place + 1], word)
            for place, word in enumerate(words)
        ]
        assert scores(model, words) == pytest.approx(expected, abs=1e-5), words


def test_scores_are_those_of_the_definition_in_a_pruned_model(tmp_path: Path) -> None:
    check_all_sentences(ArpaModel(write(tmp_path, PRUNED)), PRUNED, 4)


def test_some_by_hand(tmp_path: Path) -> None:
    model = ArpaModel(write(tmp_path, PRUNED))
    assert scores(model, ("a", "b", "b", "a")) == pytest.approx([-0.31, -0.21, -0.22, -0.13 - 0.3 - 0.5], abs=1e-6)
    assert model.sentence(["c"]) == pytest.approx(-0.2 - 1.1 - 0.9, abs=1e-6)
    assert "a" in model
    assert "c" not in model
    assert "<unk>" not in model


def test_the_unknown_word_may_be_in_capitals(tmp_path: Path) -> None:
    """As in LibriSpeech's published models; KenLM reads both, too."""
    model = ArpaModel(write(tmp_path, PRUNED.replace("<unk>", "<UNK>")))
    assert scores(model, ("c",)) == pytest.approx([-0.2 - 1.1], abs=1e-6)
    assert "<UNK>" not in model


def test_a_probability_of_zero_has_a_finite_logarithm(tmp_path: Path) -> None:
    """A weight of 0, which `asrprune tune-lm` tries, would make NaN of an infinite one. Numbers are stored in float32."""
    for zero in ("-inf", "-1e300"):
        model = ArpaModel(write(tmp_path, PRUNED.replace("-0.7\tb", f"{zero}\tb")))
        assert -math.inf < scores(model, ("b",))[0] < -99


@pytest.mark.parametrize("name", ["out.arpa", "out.arpa.gz"])
def test_what_is_written_reads_back(tmp_path: Path, name: str) -> None:
    model = ArpaModel(write(tmp_path, PRUNED))
    write_arpa(tmp_path / name, model)
    again = ArpaModel(tmp_path / name)
    assert again.words == model.words
    for words in itertools.product("ab", repeat=4):
        assert scores(again, words) == scores(model, words)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", "has no line `\\data\\`, so it is no ARPA file"),
        ("ngram 2=4", "ngram 3=4", ":4: `ngram 2=` and a number must stand here, got 'ngram 3=4'"),
        ("-0.9\t</s>", "zero\t</s>", ":10: a number, a word and perhaps a number must stand here, got 'zero </s>'"),
        ("-0.32\ta b", "-0.32\ta", ":16: '-0.12' is no unigram of the model"),
        ("-0.32\ta b", "-0.32\ta c", ":16: 'c' is no unigram of the model"),
        ("-0.33\tb b", "0.33\tb b", ":17: log10 of a probability must be 0 or less"),
        ("-0.33\tb b", "nan\tb b", ":17: log10 of a probability must be 0 or less"),
        ("\t-0.13", "\t1e300", ":17: log10 of a probability must be 0 or less, and that of a back-off weight within 1000"),
        ("-0.22\ta b b", "-0.22\tb a b", ":22: all words but the last must be an n-gram of the model"),
        ("-0.22\ta b b", "-0.22\t<s> a b", ":22: has a line above; keep one of the two"),
        ("-0.34\ta </s>\n", "", ":18: a number, 2 words and perhaps a number must stand here, got nothing"),
        ("ngram 2=4", "ngram 2=3", ":18: `\\3-grams:` must stand here, got '-0.34\\ta </s>'"),
        ("\n\\end\\\n", "", ":22: `\\end\\` must stand here, got nothing"),
        ("-0.22\ta b b\n\n\\end\\\n", "", ":21: the file ends after 1 of 2 3-grams"),
        ("<s>", "<S>", "has no unigram <s>"),
        ("\tb", "\t\udcff", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PRUNED
    path = write(tmp_path, PRUNED.replace(old, new).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        ArpaModel(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_cut_short(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such language model; `asrprune lm` makes one"):
        ArpaModel(tmp_path / "none.arpa")
    with pytest.raises(UserError, match=r"lm.gz: the gzipped file is truncated or damaged"):
        ArpaModel(write(tmp_path, gzip.compress(PRUNED.encode())[:-20], "lm.gz"))


# ---- training


def slow_kneser_ney(sentences: list[list[str]], order: int):
    """P(word | history) by the formulas of Chen and Goodman, with sets of n-grams, and the words that have one."""
    padded = [("<s>", *sentence, "</s>") for sentence in sentences]
    all_grams = [
        words[end - length : end] for words in padded for length in range(1, order + 1) for end in range(length, len(words) + 1)
    ]
    kinds = set(all_grams)

    def count(gram: tuple[str, ...]) -> int:
        if gram == ("<s>",):
            return 0
        if len(gram) == order or gram[0] == "<s>":
            return all_grams.count(gram)
        return len({other[0] for other in kinds if len(other) == len(gram) + 1 and other[1:] == gram})

    vocabulary = {word for words in padded for word in words} - {"<s>"} | {"<unk>"}

    def discounts(length: int) -> list[float]:
        n = Counter(count(gram) for gram in kinds if len(gram) == length)
        if 0 in (n[1], n[2], n[3]):
            return [0.5, 1.0, 1.5]
        found = [k - (k + 1) * n[1] / (n[1] + 2 * n[2]) * n[k + 1] / n[k] for k in (1, 2, 3)]
        return found if all(0 < found[k - 1] <= k for k in (1, 2, 3)) else [0.5, 1.0, 1.5]

    by_length = {length: discounts(length) for length in range(1, order + 1)}

    def probability(word: str, history: tuple[str, ...]) -> float:
        counts = {other: count((*history, other)) for other in vocabulary}
        total = sum(counts.values())
        below = probability(word, history[1:]) if history else 1 / len(vocabulary)
        if total == 0:
            return below
        taken = {other: by_length[len(history) + 1][min(number, 3) - 1] if number else 0.0 for other, number in counts.items()}
        return (counts[word] - taken[word]) / total + sum(taken.values()) / total * below

    return probability, vocabulary


TEXT = ["a b a b c", "b a", "a a b", "c", "b c a b a", "a b"]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_is_the_formula(order: int) -> None:
    sentences = [line.split() for line in TEXT]
    model = estimate(sentences, order)
    probability, vocabulary = slow_kneser_ney(sentences, order)
    for length in range(order + 1):
        for words in itertools.product(sorted(vocabulary - {"</s>"}), repeat=length):
            state = model.start
            for word in words:
                state = model.score(state, word)[1]
            history = ("<s>", *words)[1 - order :] if order > 1 else ()
            found = {word: 10 ** model.score(state, word)[0] for word in vocabulary}
            assert found == pytest.approx({word: probability(word, history) for word in vocabulary}, rel=1e-5)
            assert sum(found.values()) == pytest.approx(1.0, abs=1e-6)


def test_discounts_are_estimated_where_counts_allow_it() -> None:
    """Of words that occur once, twice, three and four times there are 40, 20, 10 and 5."""
    times = {f"w{number}": 1 + (number >= 40) + (number >= 60) + (number >= 70) for number in range(75)}
    model = estimate([[word] * count for word, count in times.items()], 1)
    share = 40 / (40 + 2 * 20)
    discounts = [1 - 2 * share * 20 / 40, 2 - 3 * share * 10 / 20, 3 - 4 * share * 5 / 10]
    total = sum(times.values()) + 75  # with the ends of sentences
    left = (40 * discounts[0] + 20 * discounts[1] + 16 * discounts[2]) / total  # these are counted 75 times
    for word, count in (("w0", 1), ("w45", 2), ("w65", 3), ("w74", 4), ("</s>", 75)):
        expected = (count - discounts[min(count, 3) - 1]) / total + left / 77
        assert 10 ** model.score(0, word)[0] == pytest.approx(expected, rel=1e-5)
    assert 10 ** model.score(0, "never")[0] == pytest.approx(left / 77, rel=1e-5)


def test_more_context_predicts_a_text_with_structure_better(tmp_path: Path) -> None:
    """Each word is followed by one of two, so the perplexity of long histories comes near 2."""
    rng = np.random.default_rng(0)

    def sentence() -> list[str]:
        words = [int(rng.integers(20))]
        for _ in range(15):
            words.append((3 * words[-1] + int(rng.integers(2))) % 20)
        return [f"w{word}" for word in words]

    text, held_out = [sentence() for _ in range(400)], [sentence() for _ in range(50)]
    perplexity = {}
    for order in (1, 2, 3):
        write_arpa(tmp_path / "lm.arpa", estimate(text, order))
        model = ArpaModel(tmp_path / "lm.arpa")
        words = sum(len(words) + 1 for words in held_out)
        perplexity[order] = math.pow(10, -sum(map(model.sentence, held_out)) / words)
    assert perplexity[1] > 15
    assert 2.0 < perplexity[2] < 3.0
    assert 2.0 < perplexity[3] < 3.0


def test_unknown_words_are_left_out_and_others_refused() -> None:
    assert estimate([["a", "<unk>", "b"]], 2).words == ["<unk>", "<s>", "</s>", "a", "b"]
    with pytest.raises(UserError, match="has the word </s>"):
        estimate([["a", "</s>"]], 2)
    with pytest.raises(UserError, match="no words to train"):
        estimate([[], ["<unk>"]], 2)


@pytest.mark.parametrize(("first", "told"), [("utt-0{}", True), ("the", False)])
def test_ids_in_plain_text_are_told(tmp_path: Path, first: str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"{first.format(number)} cat sat\n" for number in range(10)))
    assert len(list(read_sentences([text], plain=True))) == 10
    assert ("the first words of all lines ascend, as the ids of Kaldi's `text` do" in caplog.text) == told


@pytest.mark.parametrize("mark", ["\ufe0f", "\u2060", "\u2581", "\ufeff", "\u2800"])
def test_plain_text_with_marks_that_nobody_sees_is_refused(tmp_path: Path, mark: str) -> None:
    text = tmp_path / "text"
    text.write_text(f"über\tyes \u3000no\r\nno yes{mark}\n", encoding="utf-8", newline="")
    sentences = read_sentences([text], plain=True)
    assert next(sentences) == ["über", "yes", "no"]
    with pytest.raises(UserError, match=rf"text:2: holds {re.escape(ascii(mark))}, "):
        next(sentences)
