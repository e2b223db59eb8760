"""Matrices of features x people: every format and both ways round give the same blocks; bad files."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.core import AlignmentError, FormatError, SampleIndex, SchemaError
from brainlocus.io import open_features

FEATURES = [f"cg{k:02d}" for k in range(23)]
PEOPLE = [f"sub-{k:02d}" for k in range(9)]
WANTED = SampleIndex.of(["sub-05", "sub-00", "sub-08"])


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    values = rng.random((23, 9)).round(4)
    values[3, 5] = values[7] = np.nan
    return values


def cell(value):
    return "NA" if np.isnan(value) else f"{value:.4f}"


def feature_rows(values, header="feature"):
    lines = ["\t".join([header, *PEOPLE])] if header is not None else ["\t".join(PEOPLE)]
    return lines + ["\t".join([name, *map(cell, row)]) for name, row in zip(FEATURES, values, strict=True)]


def people_rows(values):
    lines = [",".join(["participant_id", *FEATURES])]
    return lines + [",".join([name, *map(cell, row)]) for name, row in zip(PEOPLE, values.T, strict=True)]


def write(kind, values, folder):
    """Write one of the forms; return its path and what goes with it."""
    if kind == "tsv":
        path = folder / "x.tsv"
        path.write_text("\n".join(feature_rows(values)) + "\n")
    elif kind == "rownames":  # as R's write.table does
        path = folder / "x.txt"
        path.write_text("\n".join(feature_rows(values, None)) + "\n")
    elif kind == "unnamed":
        path = folder / "x.tsv"
        path.write_text("\n".join(feature_rows(values, "")) + "\n")
    elif kind == "gz":
        path = folder / "x.tsv.gz"
        path.write_bytes(gzip.compress(("\r\n".join(feature_rows(values)) + "\r\n").encode()))
    elif kind == "people":
        path = folder / "x.csv"
        path.write_text("\n".join(people_rows(values)) + "\n")
    elif kind == "parquet":
        path = folder / "x.parquet"
        table = {name: pa.array(values[:, k], mask=np.isnan(values[:, k])) for k, name in enumerate(PEOPLE)}
        pq.write_table(pa.table({**table, "__index_level_0__": FEATURES}), path, row_group_size=5)
    elif kind == "parquet people":
        path = folder / "x.parquet"
        pq.write_table(pa.table({"IID": PEOPLE, **{n: values[k] for k, n in enumerate(FEATURES)}}), path)
    else:
        path = folder / "x.npy"
        np.save(path, values if kind == "npy" else values.T)
        (folder / "f.txt").write_text("\n".join(FEATURES) + "\n")
        (folder / "p.txt").write_text("\n".join(PEOPLE) + "\n")
        return path, {"feature_names": folder / "f.txt", "participant_ids": folder / "p.txt"}
    return path, {}


KINDS = {
    "tsv": "features", "rownames": "features", "unnamed": "features", "gz": "features", "people": "people",
    "parquet": "features", "parquet people": "people", "npy": "features", "npy people": "people",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [4, 23, 100])
def test_every_form_gives_the_same_blocks(kind, size, values, tmp_path):
    path, lists = write(kind, values, tmp_path)
    others = [SampleIndex.of(["sub-08", "sub-00", "elsewhere"])]
    for rows in ("auto", KINDS[kind]):
        matrix = open_features(path, others, rows=rows, **lists)
        assert matrix.rows == KINDS[kind]
        assert matrix.samples.ids.tolist() == PEOPLE
        assert matrix.n_features in (None, 23)
        assert matrix.about > 0
        blocks = list(matrix.blocks(WANTED, size))
        assert [b.features.size for b in blocks[:-1]] == [size] * (len(blocks) - 1)
        assert np.concatenate([b.features for b in blocks]).tolist() == FEATURES
        np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), values[:, [5, 0, 8]])
    wrong = "people" if KINDS[kind] == "features" else "features"
    with pytest.raises((SchemaError, FormatError), match=r"as --rows says|expected 9 x 23|expected 23 x 9"):
        open_features(path, others, rows=wrong, **lists)


def test_what_a_block_cannot_have(values, tmp_path):
    path, _ = write("tsv", values, tmp_path)
    matrix = open_features(path, [WANTED])
    with pytest.raises(AlignmentError, match="1 participants are not in it: 'nobody'"):
        list(matrix.blocks(SampleIndex.of(["sub-00", "nobody"]), 5))
    lines = feature_rows(values)
    for text, message in (
        (lines[3].replace(lines[3].split("\t")[4], "Inf"), "feature 'cg02' of participant 'sub-03' is infinite"),
        (
            lines[3].replace(lines[3].split("\t")[4], "high"),
            "expected numbers.*'high' in (line 4, )?column 'sub-03'. Correct the cell",
        ),
        (lines[3] + "\t0.5", "expected 10 columns in every row"),
        (lines[3].rsplit("\t", 1)[0], "expected 10 columns in every row"),
        (lines[3].replace("cg02", ""), "no feature name"),
    ):
        path.write_text("\n".join([*lines[:3], text, *lines[4:]]) + "\n")
        with pytest.raises(FormatError, match=message):
            list(open_features(path, [WANTED]).blocks(SampleIndex.of(PEOPLE), 5))


def refused(path, error, message, people=WANTED, **options):
    with pytest.raises(error, match=message):
        open_features(path, [people], **options)


def test_bad_tables(values, tmp_path):
    nobody = SampleIndex.of(["A1"])
    for kind in ("tsv", "people", "parquet", "parquet people"):
        path, _ = write(kind, values, tmp_path)
        refused(path, AlignmentError, "no participant of the other tables names a column", nobody)
    refused(tmp_path / "none.tsv", FormatError, "found nothing")
    refused(tmp_path / "x.tsv", SchemaError, "go with a .npy matrix", feature_names=tmp_path / "x.tsv")
    (tmp_path / "x.xlsx").write_text("")
    refused(tmp_path / "x.xlsx", FormatError, "expected features as .tsv")
    (tmp_path / "e.tsv").write_text("")
    refused(tmp_path / "e.tsv", FormatError, "found an empty file")
    (tmp_path / "h.tsv").write_text("feature\tsub-00\n")
    refused(tmp_path / "h.tsv", FormatError, "found none")
    (tmp_path / "c.tsv").write_text("feature,sub-00\ncg1,0.1\n")
    refused(tmp_path / "c.tsv", FormatError, "separated by tabs")
    (tmp_path / "t.tsv").write_text("feature\tsub-00\tsub-00\ncg1\t0.1\t0.2\n")
    refused(tmp_path / "t.tsv", SchemaError, "'sub-00'")
    (tmp_path / "b.csv").write_text("participant_id,cg1,cg1\nsub-00,0.1,0.2\n")
    refused(tmp_path / "b.csv", SchemaError, "found twice: cg1")
    (tmp_path / "d.csv").write_text("participant_id,cg1\nsub-00,0.1\nsub-00,0.3\n")
    refused(tmp_path / "d.csv", SchemaError, "'sub-00'")
    (tmp_path / "s.csv").write_text("participant_id,cg1,sex\nsub-00,0.1,F\n")
    refused(tmp_path / "s.csv", FormatError, "expected numbers")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path / "broken.parquet", FormatError, "cannot be read")
    pq.write_table(pa.table({"a": [1.0]}), tmp_path / "n.parquet")
    refused(tmp_path / "n.parquet", SchemaError, "found numbers only")
    pq.write_table(pa.table({"feature": ["cg1", "cg1"], "sub-00": [0.1, 0.2]}), tmp_path / "f.parquet")
    refused(tmp_path / "f.parquet", SchemaError, "found more than once: 'cg1'")
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(b"feature\tsub-00\ncg1\t0.1\n" * 50)[:-20])
    with pytest.raises(FormatError):
        list(open_features(tmp_path / "x.tsv.gz", [WANTED]).blocks(SampleIndex.of(["sub-00"]), 10))


def test_npy_goes_with_its_lists(values, tmp_path):
    path, lists = write("npy", values, tmp_path)
    refused(path, SchemaError, "has no names")
    (tmp_path / "f.txt").write_text("\n".join(FEATURES[:-1]) + "\n")
    refused(path, FormatError, "expected 22 x 9 or 9 x 22.*found 23 x 9", **lists)
    (tmp_path / "f.txt").write_text("\n".join([*FEATURES[:-1], "cg00"]) + "\n")
    refused(path, SchemaError, "found more than once: 'cg00'", **lists)
    (tmp_path / "f.txt").write_text("\n".join(FEATURES[:9]) + "\n")
    np.save(path, values[:9])
    refused(path, SchemaError, "say what a row is with --rows", **lists)
    assert open_features(path, [WANTED], rows="people", **lists).rows == "people"
    np.save(path, np.array(["a"]))
    refused(path, FormatError, "expected a matrix of numbers", **lists)
    path.write_bytes(b"no")
    refused(path, FormatError, "cannot be read", **lists)
