"""report.html: one file that needs no other, with images and style inside."""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from asrprune.config.load import resolved
from asrprune.report.plots import CAPTIONS, DPI
from asrprune.report.result_table import result_table, set_names, set_title
from asrprune.report.results import Results
from asrprune.report.sentences import headlines, how_made


def html(results: Results, figures: Sequence[Path]) -> str:
    """Return the page: the content of RESULTS.md, with the figures as data URIs, and the whole configuration."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _code
    template = files("asrprune.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        exp=results.exp,
        headlines=headlines(results),
        missing=results.missing,
        heading=results.in_units("Word error rates"),
        tables=[(set_title(results, name), result_table(results, name)) for name in set_names(results)],
        figures=[_figure(path, results.in_units(CAPTIONS[path.stem])) for path in figures],
        how_made=how_made(results),
        config=yaml.safe_dump(resolved(results.config), sort_keys=False, allow_unicode=True),
    )


def _code(text: str) -> Markup:
    """Escape ``text``, and show words between back quotes as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@dataclass(frozen=True)
class _Figure:
    name: str
    caption: str
    width: int  # CSS pixels
    height: int
    data_uri: str


def _figure(path: Path, caption: str) -> _Figure:
    """Make an image to embed, at 120 CSS pixels an inch, so that its letters are as large as the text around it."""
    data = path.read_bytes()
    width, height = (round(pixels * 120 / DPI) for pixels in struct.unpack(">II", data[16:24]))  # PNG's IHDR chunk
    uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    return _Figure(path.stem, caption, width, height, uri)
