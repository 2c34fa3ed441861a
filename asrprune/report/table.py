"""A table of text cells, and how it is drawn in Markdown, in LaTeX and on the terminal; template.html.j2 draws it in HTML."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import rich.table
from rich import box
from rich.text import Text

NONE = "–"  # a cell without a value


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: Collection[int] = (0,)  # the columns that are aligned left; the others contain numbers
    bold: int = 0  # how many rows, from the first, are bold


def markdown(table: Table) -> str:
    """Draw a table in GitHub's Markdown, with the caption below."""
    align = ["---" if column in table.words else "---:" for column in range(len(table.header))]
    bold = [[f"**{cell}**" for cell in cells] for cells in table.rows[: table.bold]]
    lines = ["| " + " | ".join(cells) + " |" for cells in (table.header, align, *bold, *table.rows[table.bold :])]
    return "\n".join(lines) + (f"\n\n{table.caption}" if table.caption else "")


def latex(table: Table) -> str:
    """Draw a floating table in LaTeX; it needs the packages booktabs and amssymb."""
    columns = "".join("l" if column in table.words else "r" for column in range(len(table.header)))
    head, *body = (" & ".join(map(escaped, cells)) + r" \\" for cells in (table.header, *table.rows))
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', table.name)}}}", rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def on_screen(table: Table) -> rich.table.Table:
    """Draw a table for the terminal."""
    drawn = rich.table.Table(title=table.name, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column, heading in enumerate(table.header):
        drawn.add_column(heading, justify="left" if column in table.words else "right", overflow="fold")
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))  # as Text, because rich would read "[4.4, 5.3]" as markup
    return drawn


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "%&_#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", ">": "$>$", "*": "$^*$", NONE: "--"}
    | {"✓": r"$\checkmark$", "✗": r"$\times$"}
)


def escaped(text: str) -> str:
    """Escape the characters that LaTeX would not print as they are; a star between blanks is a multiplication."""
    return text.translate(_LATEX).replace(" $^*$ ", r" $\times$ ")
