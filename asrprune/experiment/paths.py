"""The file names of an experiment directory."""

from dataclasses import dataclass
from pathlib import Path

from asrprune.runtime.planted import inside


@dataclass(frozen=True)
class ExperimentPaths:
    """The paths of the files of an experiment. (Plans: ``plan.plan_path``; similarities: ``analysis.matrices``.)"""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.root / "config.yaml"

    @property
    def tokenizer(self) -> Path:
        """The sentencepiece model."""
        return self.root / "bpe.model"

    @property
    def lang(self) -> Path:
        """The directory of stage 3: text units, and the language model of the config."""
        return self.root / "lang"

    @property
    def cmvn(self) -> Path:
        """The CMVN statistics of the training set."""
        return self.root / "cmvn"

    @property
    def data(self) -> Path:
        """The fingerprints of the training and dev data."""
        return self.root / "data.json"

    @property
    def dropped(self) -> Path:
        """The utterances that training left out, with their lengths."""
        return self.root / "dropped.tsv"

    @property
    def checkpoints(self) -> Path:
        """The directory of training states and of the weights of the best epochs."""
        return self.root / "checkpoints"

    @property
    def log(self) -> Path:
        """The log of the training, with a JSON line for each group of updates and each epoch."""
        return self.root / "train.jsonl"

    @property
    def weights(self) -> Path:
        """The averaged weights of the model."""
        return self.root / "model.safetensors"

    @property
    def model(self) -> Path:
        """The hash, size and averaged epochs of the model."""
        return self.root / "model.json"

    @property
    def decoder(self) -> Path:
        """The weights of the language model that were tuned on a dev set."""
        return self.root / "decoder.json"

    @property
    def early_exit(self) -> Path:
        """The thresholds of early exit that were chosen on a dev set; the figure is beside it, as .png."""
        return self.root / "early_exit.json"

    @property
    def bench(self) -> Path:
        """The real-time factors by depth."""
        return self.root / "bench.json"

    @property
    def results(self) -> Path:
        """The numbers of the report."""
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
        """Return the directory of the hypotheses and scores of a set; it has a folder for each sub-model."""
        return inside(self.root, "decode", set_name)
