"""From the config, the command line and what was tuned to the decoder that runs, and to what is recorded of it."""

import gzip
import json
import pickle
import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import asrprune

from asrprune.cli.options import decoder_given
from asrprune.config.load import parse_config, resolved
from asrprune.config.schema import BeamConfig, Config, GreedyConfig
from asrprune.data.dataset import Corpus
from asrprune.data.tables import open_table, read_table
from asrprune.decode.choose import decoder_of, decoder_options
from asrprune.decode.greedy import GREEDY
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.decode.windows import decode_in_windows
from asrprune.decode.words import words_of
from asrprune.experiment.store import load
from asrprune.recognizer import Recognizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.transcribe.listener import Heard


@pytest.fixture(scope="module")
def lm(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bigram model of the training set."""
    path = tmp_path_factory.mktemp("lm") / "2gram.arpa"
    done = asrprune("lm", tiny_data / "train/text", path, "--order", 2)
    assert done.code == 0, done.err
    assert "8 1-grams" in done.out, "five words, <unk>, <s> and </s>"
    return path


def configure(exp: Path, **numbers: object) -> None:
    values = yaml.safe_load((exp / "config.yaml").read_text())
    values["decode"]["decoder"] = numbers
    (exp / "config.yaml").write_text(yaml.safe_dump(values))


def test_a_config_without_it_means_greedy(tiny_config: Config) -> None:
    values = resolved(tiny_config)
    assert values["decode"].pop("decoder") == {"type": "greedy"}
    assert parse_config(values, "an earlier version's").decode.decoder == GreedyConfig()


def test_greedy_is_the_one_of_all(exp: Path) -> None:
    assert decoder_of(load(exp)) is GREEDY


VALUES = {  # of each number of a beam search
    "width": (2, 8), "min_prob": (0.0, 0.001, 0.1), "lm": (None, "LM"), "lm_weight": (None, 0.0, 0.7),
    "word_bonus": (None, -1.0, 1.0), "unknown_penalty": (0.0, 2.0),
    "context": ((), ("one",), ("one", "two")), "context_bonus": (0.0, 1.0, 3.0),
}  # fmt: skip


def test_every_number_that_is_accepted_is_in_the_identity(exp: Path, lm: Path) -> None:
    """It is a part of all cache keys and records. Whatever the others are, another value of a number is another decoder."""
    assert {*VALUES, "type"} == BeamConfig.model_fields.keys()
    experiment, draw, seen = load(exp), random.Random(1), dict.fromkeys(VALUES, 0)
    while min(seen.values()) < 5:
        name = draw.choice([*VALUES])
        others = {key: draw.choice(values) for key, values in VALUES.items() if draw.random() < 0.5}
        two = [{**others, name: value} for value in draw.sample(VALUES[name], 2)]  # type: ignore[arg-type]
        given = [{"type": "beam", **one, **({"lm": str(lm)} if one.get("lm") else {})} for one in two]
        with suppress(UserError):  # a number without effect
            one, other = (decoder_of(experiment, numbers) for numbers in given)
            assert (one.identity == other.identity) == (one.options == other.options), given  # type: ignore[attr-defined]
            seen[name] += one.identity != other.identity


def test_numbers_come_from_the_config_the_call_and_what_was_tuned(exp: Path, lm: Path) -> None:
    configure(exp, type="beam", width=5, lm=str(lm), word_bonus=0.25)
    experiment = load(exp)
    decoder = decoder_of(experiment, {"context": ["one two"]})
    assert isinstance(decoder, PrefixBeam)
    assert (decoder.options.width, decoder.options.context) == (5, ("one two",))
    assert (decoder.options.lm_weight, decoder.options.word_bonus) == (0.5, 0.25)
    weights = {"lm_weight": 0.8, "word_bonus": 2.0, "wer": 9.0}
    of = {"model_sha256": experiment.record.model_sha256, "lm_sha256": sha256_of(lm), "set": "dev", "width": 5}
    tuned = {"format": 1, **weights, **of, "tried": [weights]}
    (exp / "decoder.json").write_text(json.dumps(tuned))
    decoder = decoder_of(experiment)
    assert isinstance(decoder, PrefixBeam)
    assert (decoder.options.lm_weight, decoder.options.word_bonus) == (0.8, 0.25), "the config's own number wins"
    for other in ("model_sha256", "lm_sha256"):
        (exp / "decoder.json").write_text(json.dumps({**tuned, other: "another"}))
        decoder = decoder_of(experiment)
        assert isinstance(decoder, PrefixBeam)
        assert decoder.options.lm_weight == 0.5
    assert decoder_of(experiment, {"type": "greedy"}) is GREEDY
    assert decoder_options(load(exp), {"width": 3}) == BeamConfig(width=3, lm=str(lm), word_bonus=0.25)


def test_a_language_model_of_the_experiment_goes_by_its_name(
    exp: Path, lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = exp / "lang/2gram.arpa"
    own.parent.mkdir()
    shutil.copy(lm, own)
    configure(exp, type="beam", lm="2gram.arpa")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2gram.arpa").write_text("another one")
    assert decoder_options(load(exp), {}).lm == str(own)
    assert decoder_options(load(exp), decoder_given("beam", Path("2gram.arpa"), None)).lm == str(tmp_path / "2gram.arpa")
    (tmp_path / "2gram.arpa").unlink()
    assert decoder_options(load(exp), decoder_given("beam", Path("2gram.arpa"), None)).lm == str(own)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "beam", "lm": "no/such.arpa"}, "no/such.arpa: no such language model; `asrprune lm` makes one"),
        ({"type": "beam", "context": ["one", "six"]}, "context: 'six' cannot be written in the text units"),
        ({"type": "beam", "context": [" "]}, "cannot be written in the text units; remove it"),
        ({"type": "beam", "context": ["One"]}, "'One' cannot be written in the text units; write 'one'"),
        ({"type": "beam", "lm_weight": 0.5}, "lm_weight has no effect without lm"),
        ({"lm": "x.arpa"}, "decoder.lm: has no effect with type: greedy"),
        ({"type": "viterbi"}, "input should be one of 'greedy', 'beam', got 'viterbi'"),
    ],
)
def test_what_cannot_be_is_refused(exp: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        decoder_of(load(exp), given)
    assert message in str(caught.value)


def test_it_arrives_elsewhere_as_it_was(exp: Path, lm: Path) -> None:
    decoder = decoder_of(load(exp), {"type": "beam", "lm": str(lm)})
    packed = pickle.dumps(decoder)
    assert len(packed) < 5000, "a language model goes as its path"
    assert pickle.loads(packed).identity == decoder.identity
    assert sha256_of(lm)[:16] in decoder.identity


def test_a_language_model_that_was_replaced_does_not_arrive(exp: Path, lm: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.arpa"
    own.write_text(lm.read_text())
    packed = pickle.dumps(decoder_of(load(exp), {"type": "beam", "lm": str(own)}))
    own.write_text(lm.read_text().replace("-0.", "-1.", 1))
    with pytest.raises(UserError, match=r"own\.arpa: was changed while this command used it"):
        pickle.loads(packed)


def test_a_language_model_in_other_letters_is_refused(exp: Path, lm: Path, tmp_path: Path) -> None:
    """It would take every word for an unknown one, and nobody would see why the texts are worse."""
    text = lm.read_text()
    for word in ("one", "two", "three", "four", "five"):
        text = text.replace(word, word.upper())
    (tmp_path / "upper.arpa").write_text(text)
    with pytest.raises(UserError, match=r"upper\.arpa: none of its words \(.*[A-Z]+.*\) can be written in the text units"):
        decoder_of(load(exp), {"type": "beam", "lm": str(tmp_path / "upper.arpa")})
    (tmp_path / "mixed.arpa").write_text(text.replace("FIVE", "five"))
    assert "lm=" in decoder_of(load(exp), {"type": "beam", "lm": str(tmp_path / "mixed.arpa")}).identity


def test_plain_text_gives_the_same_model(lm: Path, tiny_data: Path, tmp_path: Path) -> None:
    lines = read_table(tiny_data / "train/text").values()
    (tmp_path / "plain.txt").write_text("".join(f"{line}\n" for line in lines))
    assert asrprune("lm", tmp_path / "plain.txt", tmp_path / "out.arpa", "--order", 2, "--plain").code == 0
    assert (tmp_path / "out.arpa").read_bytes() == lm.read_bytes()
    assert asrprune("lm", tmp_path / "plain.txt", tmp_path / "2gram.arpa", "--plain").code == 0
    assert (tmp_path / "2gram.arpa").read_bytes() == lm.read_bytes(), "its name says the order"
    refused = asrprune("lm", tmp_path / "plain.txt", tmp_path / "own.arpa", "--plain")
    assert "own.arpa: the order of the model is not known; add --order N" in refused.err


def test_a_text_is_not_replaced_by_a_language_model(tmp_path: Path) -> None:
    """If the output is forgotten, the last text is in its place."""
    for name in ("one", "two"):
        (tmp_path / name).write_text("a-1 five four\n")
    refused = asrprune("lm", tmp_path / "one", tmp_path / "two", "--order", 2)
    assert (refused.code, "two: the name of a language model ends in .arpa or .arpa.gz" in refused.err) == (1, True)
    assert (tmp_path / "two").read_text() == "a-1 five four\n"


def test_a_gzipped_text_with_ids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"a-1 five four\n"))
    refused = asrprune("lm", tmp_path / "text.gz", tmp_path / "2gram.arpa")
    assert (refused.code, "text.gz: a text with ids is not read gzipped; unpack it" in refused.err) == (1, True)


def test_every_command_decodes_with_it_and_says_so(exp: Path, lm: Path, tiny_data: Path) -> None:
    dev = tiny_data / "dev"
    with_beam = ("--decoder", "beam", "--lm", lm, "--context", "five")
    done = asrprune("decode", "--exp", exp, dev, "--layers", "1,2", *with_beam)
    assert done.code == 0, done.err
    record = json.loads((exp / "decode/dev/layers_1_2_d2/decode.json").read_text())
    assert record["decoder"].startswith(f"beam width=8 min_prob=0.001 word_bonus=0.0 lm={sha256_of(lm)[:16]} lm_weight=0.5")
    assert asrprune("decode", "--exp", exp, dev, "--layers", "1,2").code == 0
    assert json.loads((exp / "decode/dev/layers_1_2_d2/decode.json").read_text())["decoder"] == "greedy, float32"
    assert asrprune("search", "--exp", exp, "--dev", dev, "--strategy", "greedy", *with_beam).code == 0
    assert json.loads((exp / "plans/iterative.json").read_text())["decoder"] == record["decoder"].removesuffix(", float32")
    wav = next(dev.glob("audio/*.wav"))
    assert asrprune("transcribe", "--exp", exp, wav, *with_beam).code == 0
    refused = asrprune("transcribe", "--exp", exp, wav, "--decoder", "greedy", "--lm", lm)
    assert (refused.code, "no effect with --decoder greedy" in refused.err) == (1, True)


def test_the_recognisers_words_are_those_of_the_decoder(exp: Path, lm: Path, tiny_data: Path) -> None:
    corpus = Corpus(tiny_data / "dev", None)
    recognizer = Recognizer.load(exp, decoder={"type": "beam", "lm": str(lm), "lm_weight": 0.2})
    features, keep = corpus[0][1], (1, 2, 3, 4)
    ((log_probs, ran),) = recognizer.listener.with_layers(keep)([Heard(features.copy(), len(features), 160 * len(features))])
    assert ran == keep
    (path,) = recognizer.decoder.decode(log_probs[None], np.array([len(log_probs)]))
    found = decode_in_windows(len(features), recognizer.model.timing, recognizer.decoder, lambda *_: [(keep, log_probs)])
    words = words_of(found[keep], recognizer.model.units, recognizer.model.timing.frame_s, len(features) / 100, 0.25)
    assert " ".join(word.text for word in words) == recognizer.model.units.decode(path.labels)
    assert all(0 <= word.start_s < word.end_s and 0 < word.confidence <= 1 for word in words)


def test_weights_are_tuned_on_the_dev_set_and_then_used(exp: Path, lm: Path, tiny_data: Path) -> None:
    done = asrprune("tune-lm", "--exp", exp, "--dev", tiny_data / "dev", "--lm", lm)
    assert done.code == 0, done.err
    tuned = json.loads((exp / "decoder.json").read_text())
    assert tuned["wer"] == min(row["wer"] for row in tuned["tried"])
    assert tuned["set"] == "dev"
    decoder = decoder_of(load(exp), {"type": "beam", "lm": str(lm)})
    assert isinstance(decoder, PrefixBeam)
    assert (decoder.options.lm_weight, decoder.options.word_bonus) == (tuned["lm_weight"], tuned["word_bonus"])
    layers = ("--layers", "1,2,3,4")
    assert asrprune("decode", "--exp", exp, tiny_data / "dev", *layers, "--decoder", "beam", "--lm", lm).code == 0
    assert asrprune("score", "--exp", exp, tiny_data / "dev").code == 0
    score = json.loads((exp / "decode/dev/layers_1_2_3_4_d4/score.json").read_text())
    assert score["wer"] == pytest.approx(tuned["wer"]), "it is the error rate that decoding has with these weights"
    assert len(dict(open_table(exp / "decode/dev/layers_1_2_3_4_d4/text", allow_empty=True))) == 6


def test_a_weight_that_the_config_gives_is_kept(exp: Path, lm: Path, tiny_data: Path) -> None:
    configure(exp, type="beam", lm=str(lm), lm_weight=0.3)
    assert asrprune("tune-lm", "--exp", exp, "--dev", tiny_data / "dev").code == 0
    tried = json.loads((exp / "decoder.json").read_text())["tried"]
    assert {row["lm_weight"] for row in tried} == {0.3}
    assert len({row["word_bonus"] for row in tried}) > 2


def test_a_pruned_experiment_takes_the_language_model_and_its_weights_along(exp: Path, lm: Path, tiny_data: Path) -> None:
    (exp / "lang").mkdir()
    shutil.copy(lm, exp / "lang/2gram.arpa")
    configure(exp, type="beam", lm="2gram.arpa")
    assert asrprune("tune-lm", "--exp", exp, "--dev", tiny_data / "dev").code == 0
    assert asrprune("prune", "--exp", exp, "--layers", "1,3", exp.parent / "pruned").code == 0
    shutil.move(exp, exp.parent / "gone")
    pruned, full = decoder_of(load(exp.parent / "pruned")), decoder_of(load(exp.parent / "gone"))
    assert pruned.identity == full.identity
    assert f"lm={sha256_of(lm)[:16]}" in pruned.identity
    assert f"lm_weight={json.loads((exp.parent / 'gone/decoder.json').read_text())['lm_weight']}" in pruned.identity


def test_never_on_a_test_set(exp: Path, lm: Path, tiny_data: Path, tmp_path: Path) -> None:
    test = Path(shutil.copytree(tiny_data / "dev", tmp_path / "test_clean"))
    for command in (["tune-lm", "--lm", lm], ["search", "--strategy", "iterative"]):
        done = asrprune(*command, "--exp", exp, "--dev", test)
        assert done.code == 1
        assert "nothing must be chosen on one; use a dev set, or add --yes-it-is-a-dev-set" in done.err
    assert not (exp / "plans").exists()
    assert not (exp / "decoder.json").exists()
    assert asrprune("tune-lm", "--exp", exp, "--dev", test, "--lm", lm, "--yes-it-is-a-dev-set").code == 0
    assert "no language model is given" in asrprune("tune-lm", "--exp", exp, "--dev", test, "--yes-it-is-a-dev-set").err
