"""The names of all files of an experiment directory, each said once."""

from dataclasses import dataclass
from pathlib import Path

from asrprune.runtime.planted import inside


@dataclass(frozen=True)
class ExperimentPaths:
    """The paths of the files of an experiment. Plans: ``plan.plan_path``; similarities: ``analysis.matrices``."""

    root: Path

    @property
    def config(self) -> Path:
        """All numbers, resolved."""
        return self.root / "config.yaml"

    @property
    def tokenizer(self) -> Path:
        """The sentencepiece model."""
        return self.root / "bpe.model"

    @property
    def tokens(self) -> Path:
        """Text units and their numbers, as text."""
        return self.root / "tokens.txt"

    @property
    def cmvn(self) -> Path:
        """CMVN statistics of the training set."""
        return self.root / "cmvn"

    @property
    def data(self) -> Path:
        """Fingerprints of the training and dev data."""
        return self.root / "data.json"

    @property
    def dropped(self) -> Path:
        """Utterances that were not trained on, and why."""
        return self.root / "dropped.tsv"

    @property
    def checkpoints(self) -> Path:
        """States of the training, and weights of its best epochs."""
        return self.root / "checkpoints"

    @property
    def log(self) -> Path:
        """The log of the training, a JSON line for each window of updates and each epoch."""
        return self.root / "train.jsonl"

    @property
    def weights(self) -> Path:
        """The model: averaged weights."""
        return self.root / "model.safetensors"

    @property
    def model(self) -> Path:
        """Facts about the model: hash, size, averaged epochs."""
        return self.root / "model.json"

    @property
    def decoder(self) -> Path:
        """Weights of a language model that were tuned on a dev set."""
        return self.root / "decoder.json"

    @property
    def bench(self) -> Path:
        """Real-time factors by depth."""
        return self.root / "bench.json"

    @property
    def results(self) -> Path:
        """All numbers of the report."""
        return self.root / "results.json"

    @property
    def tables(self) -> Path:
        """The report as text."""
        return self.root / "RESULTS.md"

    @property
    def page(self) -> Path:
        """The report as one HTML file."""
        return self.root / "report.html"

    def decoded(self, set_name: str) -> Path:
        """Hypotheses and scores of a set, a folder for each sub-model."""
        return inside(self.root, "decode", set_name)
