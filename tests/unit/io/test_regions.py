"""Regions from text and BED files, and which variants lie in them."""

import gzip

import numpy as np
import pytest

from brainlocus.core import FormatError, SchemaError, VariantTable
from brainlocus.core.regions import Region, in_regions, parse_region
from brainlocus.core.text import text_array
from brainlocus.io.regions import read_regions


def table(places):
    names = [f"v{k}" for k in range(len(places))]
    return VariantTable(
        np.array([c for c, _ in places]), np.array([p for _, p in places]), text_array(["A"] * len(places)),
        text_array(["C"] * len(places)), text_array(names), "GRCh37",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("17:1000-2000", Region("17", 1000, 2000)),
        ("chr6:25_000_000-33_500_000", Region("6", 25_000_000, 33_500_000)),
        ("23", Region("X")),
        ("5:7", Region("5", 7, 7)),
        ("5:7-", Region("5", 7)),
        ("5:-7", Region("5", 1, 7)),
    ],
)
def test_texts(text, region):
    assert parse_region(text) == region


@pytest.mark.parametrize("text", ["17:9-3", "17:a-b", "17:1-2:3", "", "1 2"])
def test_bad_texts(text):
    with pytest.raises(SchemaError, match="expected a region"):
        parse_region(text)


def test_naive_membership():
    rng = np.random.default_rng(0)
    places = [(str(c), int(p)) for c, p in zip(rng.integers(1, 4, 300), rng.integers(1, 100, 300), strict=True)]
    for _ in range(20):
        regions = [Region(str(rng.integers(1, 5)), *sorted(rng.integers(1, 100, 2).tolist())) for _ in range(6)]
        expected = [any(r.chromosome == c and r.start <= p <= r.stop for r in regions) for c, p in places]
        assert in_regions(table(places), regions).tolist() == expected


def test_bed_files_are_half_open_and_zero_based(tmp_path):
    text = "#comment\ntrack name=x\nchr1\t9\t20\tname\nX\t0\t1\n"
    (tmp_path / "r.bed").write_text(text)
    (tmp_path / "r.bed.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("r.bed", "r.bed.gz"):
        regions = read_regions(tmp_path / name)
        assert regions == [Region("1", 10, 20), Region("X", 1, 1)]
    found = in_regions(table([("1", 9), ("1", 10), ("1", 20), ("1", 21), ("X", 1), ("X", 2)]), regions)
    assert found.tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x6c\x1b\x01abc", "found PLINK genotypes"),
        (b"1\t5\n", "line 1: expected chromosome, start and end"),
        (b"1\t1\t5\n1\tx\t9\n", "line 2: expected chromosome, start and end"),
        (b"1\t5\t2\n", "line 1: expected an end not before the start"),
        (b"#nothing\n", "found none"),
        (b"\xff\xfe\x00", "expected a BED file of regions .text."),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "r.bed").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_regions(tmp_path / "r.bed")
    with pytest.raises(FormatError, match="found nothing"):
        read_regions(tmp_path / "absent.bed")
