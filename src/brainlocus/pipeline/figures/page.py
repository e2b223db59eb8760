"""Self-contained HTML pages: facts, tables and pictures in one file that opens without a network.

Pictures are embedded as PNG, so that a page can be mailed or put beside a dataset. Every text is escaped.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

__all__ = ["Facts", "Flags", "Page", "Picture", "Table", "png_bytes", "render_page"]

_STYLE = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5b6876; --line: #d9dfe6; --paper: #ffffff; --wash: #f5f7f9;
  --good: #2f7d4f; --warn: #a8650a; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 4px; } h2 { font-size: 1.1rem; margin: 32px 0 8px; }
p.lead { color: var(--soft); margin: 0 0 16px; }
figure { margin: 0 0 20px; }
figure img { max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: 4px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.number { text-align: right; }
div.wide { overflow-x: auto; } a { color: #2b6ca3; }
ul.flags { list-style: none; padding: 0; margin: 0 0 16px; }
ul.flags li { border-left: 4px solid var(--warn); background: var(--wash); padding: 6px 12px; margin-bottom: 6px; }
ul.flags li.fail { border-color: var(--bad); } ul.flags li.pass { border-color: var(--good); }
@media (min-width: 900px) { dl.facts { columns: 2; } }
dl.facts { margin: 0; }
dl.facts div { display: flex; gap: 12px; break-inside: avoid; border-bottom: 1px solid var(--line); padding: 3px 0; }
dl.facts dt { color: var(--soft); flex: 0 0 46%; } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
"""


_WHOLE = 1e9
"""Whole numbers below this are counts: written out."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What deserves a look: worst first."""

    fail: tuple[str, ...] = ()
    warn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    title: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind; numbers are aligned right. A cell that is a pair is a text and the page it links to."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with its title and what to look for."""

    title: str
    png: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page from top to bottom."""

    title: str
    lead: str
    parts: tuple[Flags | Facts | Table | Picture, ...] = field(default=())


def png_bytes(figure: Any, *, dpi: int = 110) -> bytes:
    """Return a matplotlib figure as PNG, without the time or the version of the library."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def render_page(page: Page) -> str:
    """Return the HTML of a page."""
    body = "\n".join(_render(part) for part in page.parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(page.title)}</h1>\n<p class="lead">{escape(page.lead)}</p>\n{body}\n</main>\n</body>\n</html>\n'
    )


def _render(part: Flags | Facts | Table | Picture) -> str:
    if isinstance(part, Flags):
        return _render_flags(part)
    if isinstance(part, Facts):
        rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(_text(v))}</dd></div>" for k, v in part.values.items())
        return f'<h2>{escape(part.title)}</h2>\n<dl class="facts">{rows}</dl>'
    if isinstance(part, Table):
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in part.columns)
        rows = "\n".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in part.rows)
        return (
            f'<h2>{escape(part.title)}</h2>\n<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
            f"<tbody>{rows}</tbody></table></div>"
        )
    data = base64.b64encode(part.png).decode("ascii")
    return (
        f'<h2>{escape(part.title)}</h2>\n<figure><img alt="{escape(part.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(part.caption)}</figcaption></figure>"
    )


def _render_flags(flags: Flags) -> str:
    items = [f'<li class="fail">{escape(text)}</li>' for text in flags.fail]
    items += [f"<li>{escape(text)}</li>" for text in flags.warn]
    return '<ul class="flags">' + ("".join(items) or '<li class="pass">No flags.</li>') + "</ul>"


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        text, address = value
        return f'<td><a href="{escape(str(address))}">{escape(str(text))}</a></td>'
    kind = ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{escape(_text(value))}</td>"


def _text(value: object) -> str:
    if isinstance(value, float):
        if value.is_integer() and abs(value) < _WHOLE:
            return f"{value:.0f}"
        return "n/a" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, tuple | list):
        return ", ".join(_text(item) for item in value)
    return str(value)
