"""Pages that stand alone."""

import base64
import re

from brainlocus.pipeline.figures.page import Facts, Flags, Page, Picture, Table, render_page


def test_a_page_has_everything_inside_and_escapes_what_it_shows():
    page = Page(
        "sub-<01>",
        'a "quoted" & dangerous <script>',
        (
            Flags(fail=("mask <lost>",), warn=("oblique",)),
            Facts("Acquisition", {"echo times": (0.0094, 0.02), "missing": float("nan")}),
            Table("Rows", ("name", "value"), [(("sub-01", "sub-01.html"), 1.23456), ("x", 3)]),
            Picture("Map", b"\x89PNG", "caption"),
        ),
    )
    html = render_page(page)
    assert "<script>" not in html
    assert "sub-&lt;01&gt;" in html
    assert "n/a" in html
    assert '<td class="number">1.235</td>' in html
    assert '<a href="sub-01.html">sub-01</a>' in html
    assert base64.b64encode(b"\x89PNG").decode() in html
    assert not re.search(r'(src|href)="https?://', html)


def test_a_page_without_flags_says_so():
    assert "No flags." in render_page(Page("a", "b", (Flags(),)))
