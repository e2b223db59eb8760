"""Tables in and out, and what is said about bad ones."""

import gzip

import numpy as np
import pytest

from brainlocus.core import Column, FormatError, PhenotypeTable, ResultTable, SampleIndex, SchemaError
from brainlocus.io import read_arrow, read_results, read_table, write_results, write_table


@pytest.fixture
def table():
    people = SampleIndex.of(["007", "7", "sub-1"])
    return PhenotypeTable(
        people,
        (
            Column("age", np.array([20.5, np.nan, 61.0])),
            Column("sex", np.array([0.0, 1.0, np.nan]), "binary"),
            Column("site", np.array(["A", "", "B"]), "categorical"),
        ),
    )


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.tsv.gz", "t.parquet"])
def test_round_trip(table, tmp_path, name):
    write_table(table, tmp_path / name)
    back = read_table(tmp_path / name)
    assert back.samples == table.samples
    assert back.names == table.names
    for column, again in zip(table.columns, back.columns, strict=True):
        assert again.kind == column.kind
        np.testing.assert_array_equal(again.values, column.values)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_results_round_trip(tmp_path):
    results = ResultTable(
        {
            "trait": np.array(["a", "b"]),
            "n": np.array([10, 20]),
            "beta": np.array([np.nan, -0.5]),
            "boundary": np.array([True, False]),
        }
    )
    write_results(results, tmp_path / "r.parquet")
    back = read_results(tmp_path / "r.parquet")
    for name in results.names:
        np.testing.assert_array_equal(back[name], results[name])
    write_results(results.take(np.array([0, 1])), tmp_path / "r.tsv")
    assert read_results(tmp_path / "r.tsv")["beta"].tolist()[1] == -0.5


def test_bids_sidecar_gives_units_and_levels(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tscanner\nsub-1\t20\t1\nsub-2\tn/a\t2\n")
    (tmp_path / "participants.json").write_text('{"age": {"Units": "years"}, "scanner": {"Levels": {"1": "a"}}}')
    table = read_table(tmp_path / "participants.tsv")
    assert table.column("age").unit == "years"
    assert np.isnan(table.column("age").values[1])
    assert table.column("scanner").kind == "categorical"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("participant_id\tx\na\t1\na\t2\n", SchemaError, "occur more than once: 'a'"),
        ("participant_id\tx\tx\na\t1\t2\n", SchemaError, "found twice: x"),
        ("name\tx\na\t1\n", SchemaError, "expected a column participant_id"),
        ("", FormatError, "empty file"),
        ("participant_id\tx\n" + "".join(f"p{i}\t{i}\n" for i in range(30)) + "q\t1.2.3\n", FormatError, "line 32"),
        ("participant_id\tx\na\tinf\nb\t1\n", FormatError, "infinite value in line 2"),
        ("participant_id\tx\na\t1\t9\n", FormatError, "2 columns"),
        ("participant_id\tx\n\t1\n", SchemaError, "empty"),
    ],
)
def test_bad_tables_are_named(tmp_path, content, error, message):
    path = tmp_path / "bad.tsv"
    path.write_text(content)
    with pytest.raises(error, match=message):
        read_table(path)


def test_missing_unknown_and_truncated_files(tmp_path):
    with pytest.raises(FormatError, match="found nothing"):
        read_table(tmp_path / "absent.tsv")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(FormatError, match=r"expected \.tsv"):
        read_table(tmp_path / "t.xlsx")
    whole = gzip.compress(b"participant_id\tx\n" + b"a\t1\n" * 1000)
    (tmp_path / "t.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cannot be read"):
        read_table(tmp_path / "t.tsv.gz")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(FormatError, match="cannot be read"):
        read_table(tmp_path / "t.parquet")


def test_extra_missing_values_and_columns(tmp_path):
    (tmp_path / "t.csv").write_text("IID,x,y\n01,-9999,1\n2,5,2\n")
    table = read_table(tmp_path / "t.csv", columns=["x"], na_values=["-9999"])
    assert table.names == ("x",)
    assert table.samples.ids.tolist() == ["01", "2"]
    assert np.isnan(table.column("x").values[0])
    with pytest.raises(SchemaError, match="Did you mean 'x'"):
        read_table(tmp_path / "t.csv", columns=["xx"])


def test_columns_with_neither_name_nor_value_are_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Structure,d,,\nL_insula,0.1,,\nR_insula,0.2,,\n")
    assert read_arrow(path).column_names == ["Structure", "d"]
    path.write_text("Structure,d,,\nL_insula,0.1,,x\n")
    assert read_arrow(path).column("").to_pylist() == ["x"]
    path.write_text("Structure,d,,\nL_insula,0.1,y,x\n")
    with pytest.raises(SchemaError, match="found none at columns 3, 4"):
        read_arrow(path)
