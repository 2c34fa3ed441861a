"""The model card: a README.md beside an exported file, which says what it is, how good it is, and how to load it."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from asrprune.export.cost import said_of
from asrprune.export.record import Exported, ExportedDepth
from asrprune.runtime.files import write_text
from asrprune.runtime.planted import open_plain

_MARKUP = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {mark: f"\\{mark}" for mark in "\\`*[]|"})
_LONGEST_MARK = 1000  # bytes of the first line of a card
_PRECISION = {
    "float32": "32-bit floating-point numbers",
    "fp16": "16-bit floating-point numbers; computing is in 32 bits",
    "int8": "8-bit integers in linear layers, 32-bit floating-point numbers elsewhere",
}


def write(path: Path, exported: Exported) -> Path:
    """Write the card of an ONNX file; return its path: README.md, or FILE.onnx.md if README.md is about something else."""
    mark = f"card of {path.name}, written by `asrprune export`"
    readme = path.with_name("README.md")
    own = not readme.exists() or mark in _first_line(readme)
    card = readme if own else path.with_name(f"{path.name}.md")
    write_text(card, markdown(path, exported, mark))
    return card


def _first_line(path: Path) -> str:
    with open_plain(path) as handle:
        return handle.readline(_LONGEST_MARK).decode("utf-8", "replace")


def markdown(path: Path, exported: Exported, mark: str) -> str:
    """Return the text of a card."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = files("asrprune.export").joinpath("card.md.j2").read_text(encoding="utf-8")
    exported = Exported.model_validate(_as_text(exported.plain()))
    return environment.from_string(template).render(
        e=exported, mark=mark, title=path.stem, file=path.name, size=f"{path.stat().st_size / 1e6:.1f}",
        precision=_precision(exported), keep=exported.at(exported.depth).keep, notes=_notes(exported),
        frame_ms=f"{exported.factor * exported.frontend.shift_ms:.4g}", header=_header(exported),
        rows=[_cells(exported, row) for row in exported.depths],
    )  # fmt: skip


def _as_text(value: Any) -> Any:
    """Return a value, and all within it, with texts that are neither HTML nor Markdown: they may come from a stranger."""
    if isinstance(value, dict):
        return {key: _as_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return " ".join(value.split()).translate(_MARKUP) if isinstance(value, str) else value


def _precision(exported: Exported) -> str:
    exact = ", ".join(map(str, exported.float32_layers))
    return _PRECISION[exported.precision] + (f" and in the layers {exact}" if exact else "")


def _header(exported: Exported) -> list[str]:
    compared = [f"WER {exported.precision}", "WER float32", "texts that differ"] if exported.compared else []
    score = "dev WER" if exported.metric != "ctc" else "dev loss"
    return [exported.scoring.in_units(name) for name in ("depth", "layers", "parameters", *compared, score, "RTF")]


def _cells(exported: Exported, row: ExportedDepth) -> list[str]:
    compared = [_number(row.wer), _number(row.wer_float32), str(row.changed)] if exported.compared else []
    layers = ", ".join(map(str, row.keep))
    return [str(row.depth), layers, f"{row.params_m:.2f} M", *compared, _number(row.score), _number(row.rtf, 4)]


def _speed(exported: Exported) -> str:
    """Return how the real-time factors were measured."""
    meaning = "RTF: seconds of computing for each second of audio"
    if speed := exported.speed:
        features = "with" if exported.input == "waveform" else "without"
        return (
            f"{meaning}, of this file ({exported.precision}) in onnxruntime, {features} features, on {speed.utterances}"
            f" utterances of {speed.set}, one by one; {speed.cpu}, threads: {speed.threads}, decoder: {speed.decoder}."
        )
    unknown = "The speed of this file was not measured; export with --dev."
    known = any(row.rtf is not None for row in exported.depths)
    return f"{meaning}, as `asrprune bench` measured it in torch, without features. {unknown}" if known else unknown


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _notes(exported: Exported) -> list[str]:
    """Return what the columns mean, and why some are empty."""
    notes = []
    if exported.metric == "ctc":
        notes.append(f"Dev loss: the CTC loss on {exported.dev_set}, by which the layers were chosen.")
    elif exported.metric:
        notes.append(f"Dev WER: word error rate in percent on {exported.dev_set}, by which the layers were chosen.")
    else:
        notes.append("No dev WER is known, because the layers were not chosen by a search (`asrprune search`).")
    if exported.compared:
        count, name = exported.compared.utterances, exported.compared.set
        notes.append(
            f"WER {exported.precision} and float32, and the texts that differ between them: on {count} utterances of {name}."
        )
    elif exported.precision != "float32":
        notes.append(f"What {exported.precision} costs was not measured; export with --dev.")
    notes.append(_speed(exported))
    if exported.ended:
        notes.append(said_of(exported.ended))
    return [exported.scoring.in_units(note) for note in notes]
