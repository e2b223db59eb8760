"""Pages of gene associations as plain HTML: they open from a folder, without a server and without scripts."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["json_ready", "page", "paragraph", "table"]

_STYLE = """
:root { color-scheme: light dark; --ground: #f5f6f4; --surface: #fff; --ink: #17212b; --muted: #56616c; --line: #d5d8d6;
  --accent: #0b5a8c; }
@media (prefers-color-scheme: dark) { :root { --ground: #0e141a; --surface: #151d25; --ink: #e7ecf0; --muted: #a3b0bc;
  --line: #33404c; --accent: #7dc0ee; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 0.9375rem/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; margin: 0.2rem 0; }
h2 { font-size: 1.0625rem; margin: 0 0 0.6rem; }
a { color: var(--accent); }
p { color: var(--muted); margin: 0.3rem 0; max-width: 70ch; }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 6px; padding: 1.1rem 1.25rem;
  margin-top: 1.5rem; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.84rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--muted); font-size: 0.75rem; border-bottom: 1px solid var(--muted);
  white-space: nowrap; padding: 0.35rem 0.9rem 0.35rem 0; }
td { border-bottom: 1px solid var(--line); padding: 0.4rem 0.9rem 0.4rem 0; vertical-align: baseline; }
.number { text-align: right; white-space: nowrap; }
"""

Cell = str | int | float | tuple[str, str] | None
"""Text, a number, a link as text and address, or nothing."""


def page(title: str, body: Iterable[str], *, up: tuple[str, str] | None = None) -> str:
    """Return a whole page; `up` is the text and address of the link above the title."""
    above = f"<p>{_link(*up)}</p>" if up is not None else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{above}'
        f"<h1>{escape(title)}</h1>{''.join(body)}</body></html>\n"
    )


def paragraph(text: str, *links: tuple[str, str]) -> str:
    """Return a paragraph with links behind its text."""
    return f"<p>{escape(text)} {' · '.join(_link(*link) for link in links)}</p>"


def table(title: str, columns: Mapping[str, Sequence[Cell]], *, note: str = "") -> str:
    """Return a section with a table; numbers stand to the right."""
    right = {name for name, cells in columns.items() if any(isinstance(cell, int | float) for cell in cells)}
    head = "".join(f'<th scope="col"{_right(name in right)}>{escape(name)}</th>' for name in columns)
    rows = "".join(_row(columns, right, row) for row in zip(*columns.values(), strict=True))
    extra = f"<p>{escape(note)}</p>" if note else ""
    return (
        f"<section><h2>{escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{extra}"
        "</section>"
    )


def _row(names: Iterable[str], right: set[str], row: Iterable[Cell]) -> str:
    cells = "".join(f"<td{_right(n in right)}>{_cell(c)}</td>" for n, c in zip(names, row, strict=True))
    return f"<tr>{cells}</tr>"


def _right(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _link(text: str, address: str) -> str:
    return f'<a href="{escape(address, quote=True)}">{escape(text)}</a>'


def _cell(value: Cell) -> str:
    if isinstance(value, tuple):
        return _link(*value)
    if value is None:
        return "–"
    return escape(f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value)


def json_ready(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return columns as one object a row."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
