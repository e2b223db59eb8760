"""Tables by columns: the same as the whole table, whatever the format."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io import measure_names, read_arrow, read_table, table_columns

ROWS = {
    "IID": ["1", "02", "3"],
    "FID": ["f", "f", "g"],
    "a": ["1.5", "", "2"],
    "b": ["x", "y", ""],
    "c": ["1", "0", "1"],
}


@pytest.fixture(params=["table.tsv", "table.csv", "table.tsv.gz", "table.parquet"])
def path(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".parquet":
        pq.write_table(pa.table(ROWS), path)
        return path
    delimiter = "," if "csv" in path.name else "\t"
    lines = [delimiter.join(ROWS), *(delimiter.join(row) for row in zip(*ROWS.values(), strict=True))]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_names_come_without_the_table(path):
    assert table_columns(path) == ("IID", "FID", "a", "b", "c")
    assert measure_names(path) == ("a", "b", "c")


def test_columns_are_those_of_the_whole_table(path):
    whole = read_table(path)
    part = read_table(path, columns=["c", "a"])
    assert part.names == ("c", "a")
    assert part.samples == whole.samples
    for name in part.names:
        np.testing.assert_array_equal(part.column(name).values, whole.column(name).values)
        assert part.column(name).kind == whole.column(name).kind
    assert read_arrow(path, ["b"]).column_names == ["b"]
    assert read_table(path, columns=[]).samples == whole.samples


def test_an_absent_column_is_named(path):
    with pytest.raises(SchemaError, match=r"there is no column 'aa'.*a"):
        read_table(path, columns=["aa"])


def test_a_wide_row_is_larger_than_a_block(tmp_path):
    """One row of 17,485 columns is longer than the parser's usual block of a mebibyte."""
    names = [f"phenotype_{k}" for k in range(17_485)]
    cell = "0." + "1" * 80
    path = tmp_path / "wide.tsv"
    path.write_text("\t".join(["participant_id", *names]) + "\n" + "\t".join(["p1", *[cell] * len(names)]) + "\n")
    table = read_table(path, columns=["phenotype_17484"])
    assert table.column("phenotype_17484").values.tolist() == [float(cell)]


def test_two_columns_of_one_name_are_refused_before_reading(tmp_path):
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 3, names=["participant_id", "a", "a"]), path)
    with pytest.raises(SchemaError, match="found twice: a"):
        read_table(path, columns=["a"])
    with pytest.raises(SchemaError, match="found twice: a"):
        table_columns(path)


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / "cut.tsv.gz"
    content = gzip.compress(
        ("participant_id\ta\n" + "".join(f"p{k}\t{k * 7919 % 1009}\n" for k in range(50_000))).encode()
    )
    path.write_bytes(content[: len(content) // 2])
    for columns in (None, ["a"]):
        with pytest.raises(FormatError, match=r"cut\.tsv\.gz: expected a whole \.tsv file"):
            read_table(path, columns=columns)


def test_batches_hold_one_row_group(tmp_path):
    """Twenty row groups of 2.3 MiB: what is held at any time is a fraction of the file."""
    from brainlocus.io.arrow_tables import parquet_batches

    rng = np.random.default_rng(0)
    path, seen, most = tmp_path / "groups.parquet", 0, 0
    values = rng.standard_normal((20, 3, 100_000))
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in "abc"])) as writer:
        for group in values:
            writer.write_table(pa.table(dict(zip("abc", group, strict=True))))
    before = pa.total_allocated_bytes()
    with pq.ParquetFile(path) as file:
        for batch in parquet_batches(file, 30_000, ["c", "a"]):
            assert sorted(batch.schema.names) == ["a", "c"]
            seen += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert seen == 2_000_000
    assert most < values.nbytes / 4
