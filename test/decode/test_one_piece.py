"""Where utterances run in one piece, long ones are told before the work begins; decoding divides them and takes them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from asrprune.analysis.measure import measure_layers
from asrprune.config.schema import BeamConfig, Config
from asrprune.data.dataset import Corpus
from asrprune.data.windows import Windows
from asrprune.decode import one_piece
from asrprune.decode.benchmark import bench
from asrprune.decode.greedy import GREEDY
from asrprune.decode.sweep import SubModel, decode_set
from asrprune.decode.threshold import early_exit
from asrprune.decode.tune import tune
from asrprune.experiment.store import Experiment
from asrprune.export.examples import utterances
from asrprune.model.encoder import Encoder
from asrprune.prune.search import make_plan
from asrprune.runtime.errors import UserError
from asrprune.train import loop

ARPA = "\\data\\\nngram 1=4\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\tone\n-1\t<unk>\n\n\\end\\\n"
TOLD = r"dev: utterances longer than 0\.5 s: s[0-9]-dev00[0-9].*; the attention of this model needs memory .*; cut them"
Work = Callable[[Experiment, Path], object]


def tuned(own: Experiment, dev: Path) -> object:
    (own.path / "lm.arpa").write_text(ARPA)
    return tune(own, dev, BeamConfig(type="beam", lm=str(own.path / "lm.arpa")))


WORK: dict[str, Work] = {
    "search": lambda own, dev: make_plan(own, "iterative", dev),
    "svcca": measure_layers,
    "tune-lm": tuned,
    "early-exit": lambda own, dev: early_exit(own, Corpus(dev, own.tokenizer), [], 0.5, GREEDY),
    "bench": lambda own, dev: bench(own, dev, [(1,)]),
    "export": lambda own, dev: next(utterances(dev, None, own, waveform=False)),
    "export, of audio": lambda own, dev: next(utterances(dev, None, own, waveform=True)),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second counts as long, and as too long for the attention."""
    monkeypatch.setattr(one_piece, "WINDOWS", Windows(one_piece_s=0.5, window_s=0.4, overlap_s=0.1))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", WORK)
def test_long_utterances_are_told_before_the_work(own: Experiment, dev: Path, name: str) -> None:
    own.model.holds_pairs = True
    with pytest.raises(UserError, match=TOLD):
        WORK[name](own, dev)


@pytest.mark.usefixtures("short")
def test_what_needs_no_memory_for_pairs_or_has_windows_takes_them(own: Experiment, dev: Path) -> None:
    assert one_piece.too_long_in(Corpus(dev, None), own.config, own.model) == ""
    own.model.holds_pairs = True
    assert decode_set(own, dev, [SubModel("lowest", (1,))])


@pytest.mark.usefixtures("short")
def test_a_training_goes_on_but_tells(
    run_training: Callable[[Config, Path], None], tiny_config_with: Callable[..., Config], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(Encoder, "__init__", _with_pairs(Encoder.__init__))
    monkeypatch.setattr(loop.Trainer, "_train", lambda self: None)
    with caplog.at_level(logging.WARNING):
        run_training(tiny_config_with("train.epochs=1"), tmp_path / "exp")
    assert "dev: utterances longer than 0.5 s" in caplog.text


def _with_pairs(init: Callable[..., None]) -> Callable[..., None]:
    def changed(self: Encoder, *given: object) -> None:
        init(self, *given)
        self.holds_pairs = True

    return changed
