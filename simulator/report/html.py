"""One self-contained HTML page: the tables, the figures inside it, the scenario that made it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from simulator.report.block import Block, Verdict

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 64rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.9rem 0.2rem 0; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid #999; font-weight: 600; }
tr > :first-child, .facts td, td.bar { text-align: left; }
.facts td:first-child { color: #666; white-space: nowrap; }
td.bar { font-family: monospace; color: #0072b2; white-space: pre; line-height: 1.2; }
.wide { overflow-x: auto; }
.note, footer { color: #666; font-size: 0.85rem; }
.verdicts { list-style: none; padding: 0; }
.good::before { content: "✓ "; color: #007a5a; font-weight: bold; }
.bad::before { content: "✗ "; color: #c04000; font-weight: bold; }
.unsure::before { content: "? "; color: #b07a00; font-weight: bold; }
.warning::before { content: "! "; color: #b07a00; font-weight: bold; }
img { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: 0.8rem; overflow-x: auto; font-size: 0.85rem; }
</style>
</head>
<body>
<h1>$title</h1>
$lead
$body
<footer>$footer</footer>
</body>
</html>
""")

_KINDS = {True: "good", False: "bad", None: "unsure"}


def page(
    title: str,
    *,
    verdicts: Iterable[Verdict],
    warnings: Iterable[str],
    sections: Sequence[str],
    footer: str,
) -> str:
    """The whole page as text.

    Args:
        title: headline.
        verdicts: sentences below it.
        warnings: sentences below those.
        sections: finished HTML fragments, see ``table``, ``image`` and ``source``.
        footer: plain text at the end.
    """
    items = [(_KINDS[v.good], v.text) for v in verdicts]
    items += [("warning", text) for text in warnings]
    lead = "".join(f'<li class="{kind}">{escape(text)}</li>\n' for kind, text in items)
    return _PAGE.substitute(
        title=escape(title),
        lead=f'<ul class="verdicts">\n{lead}</ul>',
        body="\n".join(sections),
        footer=escape(footer),
    )


def table(block: Block) -> str:
    """A block as a titled table."""
    head = ""
    if block.header:
        cells = "".join(f"<th>{escape(name)}</th>" for name in block.header)
        head = f"<thead><tr>{cells}</tr></thead>"
    rows = []
    for row in block.rows:
        cells = "".join(
            f'<td class="bar">{escape(cell)}</td>'
            if block.bars and i == len(row) - 1
            else f"<td>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        rows.append(f"<tr>{cells}</tr>")
    kind = "" if block.header else ' class="facts"'
    note = f'<p class="note">{escape(block.note)}</p>' if block.note else ""
    body = "\n".join(rows)
    return (
        f"<h2>{escape(block.title)}</h2>\n"
        f'<div class="wide"><table{kind}>{head}<tbody>\n{body}\n</tbody></table></div>{note}'
    )


def image(png: bytes, alt: str) -> str:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return f'<p><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></p>'


def source(title: str, text: str) -> str:
    """Text to unfold, such as a scenario file."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
