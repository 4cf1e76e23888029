"""One Markdown page: the same tables as the HTML page, figures as files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulator.report.block import Block, Verdict

_MARKS = {True: "✓", False: "✗", None: "?"}


def page(
    title: str,
    *,
    verdicts: Iterable[Verdict],
    warnings: Iterable[str],
    sections: Sequence[str],
    footer: str,
) -> str:
    """The whole page as text; arguments as in ``simulator.report.html.page``."""
    lead = [f"- {_MARKS[v.good]} {_plain(v.text)}" for v in verdicts]
    lead += [f"- ! {_plain(text)}" for text in warnings]
    parts = [f"# {_plain(title)}", "\n".join(lead), *sections, f"*{_plain(footer)}*"]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(block: Block) -> str:
    """A block as a titled table."""
    width = max((len(row) for row in block.rows), default=len(block.header))
    header = block.header or ("",) * width
    rule = [":--", *["--:" if block.header else ":--"] * (width - 1)]
    rows = [header, rule, *block.rows]
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    note = f"\n\n{_plain(block.note)}" if block.note else ""
    return f"## {_plain(block.title)}\n\n" + "\n".join(lines) + note


def image(file: str, alt: str) -> str:
    """A picture in a file beside the page."""
    return f"![{_plain(alt)}]({file})"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in ("\\", "*", "_", "`", "<", "[", "]"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|") if set(text) - set(":-") else text
