"""What the embedded corpus is made of: the strict, frozen form of conf/corpus.yaml."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from asrprune.config.load import read_yaml
from asrprune.config.mistakes import check
from asrprune.config.schema import Positive, Section

MAX_BABBLE_VOICES = 20


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"[least, most] is wanted, not {list(pair)}")
    return pair


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted(name for name, count in Counter(map(str.lower, names)).items() if count > 1)
    if repeated:
        raise ValueError(f"{', '.join(repeated)}: written more than once")
    return names


Percent = Annotated[int, Field(ge=0, le=100)]
Rate = Annotated[int, Field(ge=80, le=450)]  # what espeak-ng speaks, words a minute
Decibels = Annotated[float, Field(le=0)]
Decay = Annotated[float, Field(ge=0.01)]
NotNegative = Annotated[float, Field(ge=0)]
Words = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z']+$")], ...], Field(min_length=1), AfterValidator(_unique)]
Names = Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], ...], Field(min_length=1), AfterValidator(_unique)]
Draw = AfterValidator(_ascending)  # the least and the most of a uniform draw


class SetConfig(Section):
    """One set: its size and the variants of its voices."""

    utterances: Positive
    female: Names
    male: Names


class Sets(Section):
    """The three sets; all are needed."""

    train: SetConfig
    dev: SetConfig
    test: SetConfig


class CorpusConfig(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0)]
    sample_rate: Annotated[int, Field(ge=8000)]  # Hz
    accents: Names
    sets: Sets
    words_per_minute: Annotated[tuple[Rate, Rate], Draw]
    pitch: Annotated[tuple[Percent, Percent], Draw]
    pitch_range: Annotated[tuple[Percent, Percent], Draw]
    sentence_words: Annotated[tuple[Positive, Positive], Draw]
    words: Words
    snr_db: Annotated[tuple[float, float], Draw]
    noises: Annotated[tuple[Literal["white", "pink", "brown", "babble"], ...], Field(min_length=1)]
    babble_voices: Annotated[int, Field(ge=1, le=MAX_BABBLE_VOICES)]
    peak_db: Annotated[tuple[Decibels, Decibels], Draw]
    silence_s: Annotated[tuple[NotNegative, NotNegative], Draw]
    reverberation: Annotated[float, Field(ge=0, le=1)]
    reverberation_s: Annotated[tuple[Decay, Decay], Draw]
    direct_db: Annotated[tuple[float, float], Draw]

    @model_validator(mode="after")
    def _voices_are_disjoint(self) -> "CorpusConfig":
        _unique(tuple(variant for _, part in self.sets for variant in part.female + part.male))
        for name, part in self.sets:  # every voice speaks, hence every accent and both sexes do in every set
            voices = len(self.accents) * len(part.female + part.male)
            if part.utterances < voices:
                raise ValueError(f"sets.{name}: {part.utterances} utterances are too few for its {voices} voices")
        return self


def read_config(path: Path) -> CorpusConfig:
    """Read the YAML file; all mistakes, unknown keys among them, are raised in one ``UserError``, a line each."""
    return check(CorpusConfig, read_yaml(path), str(path))
