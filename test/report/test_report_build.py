"""The report as a whole: which files there are, what they say, and that the page needs nothing from outside."""

import base64
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
from records import changed

from asrprune.config.schema import Config
from asrprune.report import plots
from asrprune.report.build import copy_report, write_report
from asrprune.report.html import _code
from asrprune.report.result_table import result_table
from asrprune.report.results import collect
from asrprune.report.sentences import headlines, how_made
from asrprune.report.table import markdown

FIGURES = ["wer_by_depth", "wer_vs_rtf", "layers_kept", "svcca", "training"]


class Page(HTMLParser):
    """Collects the attributes, the text and the open tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "report.html").read_text(encoding="utf-8"))


def test_the_files(reported: Path) -> None:
    results = json.loads((reported / "results.json").read_text(encoding="utf-8"))
    assert results == collect(reported).plain()
    assert sorted(path.stem for path in (reported / "figures").iterdir()) == sorted(FIGURES)
    assert not list(reported.rglob("*.tmp*"))


def test_figures_are_fit_for_print(reported: Path) -> None:
    for name in FIGURES:
        head = (reported / f"figures/{name}.png").read_bytes()[:24]
        width, height = struct.unpack(">II", head[16:24])
        assert 1500 <= width <= 3000, name
        assert 300 <= height <= 3000, name


def test_the_page_is_well_formed_and_refers_to_nothing_outside(reported: Path, page: Page) -> None:
    text = (reported / "report.html").read_text(encoding="utf-8")
    assert page.open == []
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link|<iframe", re.sub(r'src="data:[^"]+"', "", text))
    assert not [item for item in page.attributes if item[1] in ("href", "srcset", "action", "poster")]
    assert all(value.startswith("data:image/png;base64,") for _, name, value in page.attributes if name == "src")


def test_the_page_embeds_every_figure(reported: Path, page: Page) -> None:
    images = [
        base64.b64decode(value.partition(",")[2]) for tag, name, value in page.attributes if (tag, name) == ("img", "src")
    ]
    assert images == [(reported / f"figures/{name}.png").read_bytes() for name in FIGURES]


def test_the_page_escapes_and_shows_every_number(reported: Path, page: Page) -> None:
    text = (reported / "report.html").read_text(encoding="utf-8")
    assert "<h1>mini &lt;12l&gt; &amp; co</h1>" in text
    results = collect(reported)
    for name in ("dev", "test"):
        for cells in result_table(results, name).rows:
            assert all(cell in page.text for cell in cells)
    assert text.count('<tr class="full') == 2
    assert "num_mels: 80" in page.text
    assert "`" not in page.text
    assert {("meta", "name", "viewport"), ("meta", "name", "color-scheme")} <= set(page.attributes)
    assert "prefers-color-scheme: dark" in text


def test_sentences_are_escaped_too() -> None:
    assert _code("`a<b>` & `c`") == "<code>a&lt;b&gt;</code> &amp; <code>c</code>"


def test_results_md(reported: Path) -> None:
    text = (reported / "RESULTS.md").read_text(encoding="utf-8")
    results = collect(reported)
    links = re.findall(r"!\[\w+\]\(([^)]+)\)", text)
    assert links == [f"figures/{name}.png" for name in FIGURES]
    assert all((reported / link).is_file() for link in links)
    for name in ("dev", "test"):
        assert markdown(result_table(results, name)) in text
    assert headlines(results)[0] in text
    for said in (
        *("# mini &lt;12l> & co", "Epochs 14,16-18", "seed 1", "asrprune 0.1.0+abcdef1234", results.environment["asrprune"]),
        *("`test` 2,000 utterances, 1.30 h", "`testtesttesttest`", "greedy, float32", "402 layer passes instead of 572"),
        *("A Processor 9000", "100 utterances (220 s) of `test`: 2 threads, batch 1, float32, 5 repeats"),
        *("features add 0.0011 at every depth", "chosen on `dev` and on no other set", f"torch {results.environment['torch']}"),
    ):
        assert said in text


def test_a_copy_is_whole_and_keeps_no_old_figure(reported: Path, tmp_path: Path) -> None:
    copy_report(reported, tmp_path / "egs")
    assert (tmp_path / "egs/RESULTS.md").read_bytes() == (reported / "RESULTS.md").read_bytes()
    for name in FIGURES:
        assert (tmp_path / f"egs/figures/{name}.png").read_bytes() == (reported / f"figures/{name}.png").read_bytes()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "RESULTS.md").write_text("new", encoding="utf-8")
    copy_report(bare, tmp_path / "egs")
    assert [path.name for path in (tmp_path / "egs").rglob("*") if path.is_file()] == ["RESULTS.md"]


def test_headlines_leave_out_the_search_sets(reported: Path) -> None:
    assert headlines(collect(reported)) == [
        "`test`: 5.2 % WER with all 12 layers; 6.1 % with 6 of 12 (`iterative`, 1.7 times as fast)."
    ]


def test_one_checkpoint_is_not_called_epochs(reported: Path) -> None:
    results = collect(reported)
    one = changed(results, model=changed(results.model, members=results.model.members[:1]))
    assert dict(how_made(one))["Averaged checkpoints"].startswith("Epoch 14, chosen by its")


def test_a_training_with_two_views_is_called_so(reported: Path) -> None:
    results = collect(reported)
    assert "views" not in dict(how_made(results))["Training"]
    two_views = changed(results, config=changed(results.config, train=changed(results.config.train, consistency=0.2)))
    assert "two views of each utterance (consistency 0.2)" in dict(how_made(two_views))["Training"]


def test_the_headline_of_a_model_that_puts_out_nothing_says_what_to_do(reported: Path) -> None:
    results = collect(reported)
    rows = [changed(row, wer=100.0, sub=0, ins=0, del_=row.ref_words) for row in results.rows]
    (headline,) = headlines(changed(results, rows=rows))
    assert "The model puts out nothing, as every CTC model does at first: train for more updates" in headline


def test_the_test_set_does_not_choose_the_strategy_of_the_headline(reported: Path) -> None:
    results = collect(reported)
    rows = [
        changed(row, wer=0.1) if (row.set, row.strategy, row.depth) == ("test", "lowest", 6) else row for row in results.rows
    ]
    results = changed(results, rows=rows)
    assert "6.1 % with 6 of 12 (`iterative`," in headlines(results)[0]


def test_a_second_report_is_the_same_and_missing_parts_are_said(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "DPI", 50)
    for path in (
        *(experiment / "plans").iterdir(),
        experiment / "bench.json",
        experiment / "train.jsonl",
        experiment / "svcca/dev.npz",
    ):
        path.unlink()
    write_report(experiment)
    page = experiment / "report.html"
    names = ("report.html", "RESULTS.md", "results.json", "figures/wer_by_depth.png")
    first = [(experiment / name).read_bytes() for name in names]
    write_report(experiment)
    assert [(experiment / name).read_bytes() for name in names] == first
    results = (experiment / "RESULTS.md").read_text(encoding="utf-8")
    assert re.findall(r"\((figures/[^)]+)\)", results) == ["figures/wer_by_depth.png"]
    for stage in ("stage 4", "stage 6", "stage 7", "stage 10"):
        assert stage in results
        assert stage in page.read_text(encoding="utf-8")
    assert [term for term, _ in how_made(collect(experiment)) if term in ("Search", "Speed")] == []


def test_a_report_of_phones_says_so(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "DPI", 50)
    config = (experiment / "config.yaml").read_text()
    (experiment / "config.yaml").write_text(config.replace("unit: word", "unit: phone"))
    results = write_report(experiment)
    text, page = ((experiment / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    assert not re.search(r"WER|[Ww]ord (?!\|)", text)
    assert not re.search(r"WER|[Ww]ord error", re.sub(r'src="data:[^"]+"', "", page))
    for said in (
        "## Phone error rates",
        "| PER % [95 % CI] |",
        "10,042 reference phones",
        "% PER with all 12 layers",
        "by dev PER",
    ):
        assert said in text
    assert [axes.get_ylabel() for axes in plots.wer_vs_rtf(results).axes] == ["PER (%), log scale"] * 2
    assert plots.training(results, experiment / "train.jsonl").axes[0].get_ylabel() == "dev PER (%), log scale"
    assert result_table(results, "test").rows == result_table(changed(results, config=Config()), "test").rows


def test_a_search_tells_that_it_prefers_the_lowest_layers(reported: Path) -> None:
    results = collect(reported)
    before = dict(how_made(results))
    results.search["iterative"] = changed(results.search["iterative"], beam=3, clear=2.0)
    told = "beam 3, the lowest layers unless others are better by more than 2 standard errors, 402 layer passes"
    assert [told in text for text in dict(how_made(results)).values()].count(True) == 1
    assert not any("standard errors" in text for text in before.values())
