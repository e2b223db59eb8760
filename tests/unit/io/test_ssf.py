"""GWAS-SSF: what is written is what the standard says, and comes back."""

import gzip
import hashlib

import numpy as np
import pytest

from brainlocus.core import FormatError, ResultTable, SchemaError, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import SsfMetadata, prepare_ssf, read_associations, ssf_metadata_path, write_results, write_ssf

CHROMOSOMES = ["X", "2", "MT", "2", "GL1", "Y", "1", "XY", "10"]


def scan(info=True):
    n = len(CHROMOSOMES)
    rng = np.random.default_rng(0)
    variants = VariantTable(
        np.array(CHROMOSOMES), np.array([5, 900, 3, 20, 1, 4, 8, 6, 7]),
        text_array(["A", "T", "C", "G", "A", "<DEL>", "AT", "C", "G"]),
        text_array(["C"] * n), text_array(["rs9", "rs8", "2:3", "rs6", "g", "y:1", "rs4", "rs3", "10_7_C_G"]), "GRCh37",
    )  # fmt: skip
    beta = rng.normal(size=n) * 10.0 ** rng.integers(-12, 12, n)
    beta[8] = np.nan
    columns = {
        "chromosome": variants.chromosome,
        "effect_allele_frequency": rng.uniform(size=n),
        "n": rng.integers(10, 99, n),
        "beta": beta,
        "standard_error": np.abs(rng.normal(size=n)),
        "neg_log10_p": np.array([0.0, 3211.123456789, *rng.exponential(size=n - 2)]),
    }
    quality = np.where(np.arange(n) % 2, np.linspace(0.3, 1.2, n), np.nan) if info else None
    return variants, ResultTable(columns), quality


def test_columns_order_and_metadata(tmp_path):
    variants, results, info = scan()
    shared = prepare_ssf(variants, info)
    assert (shared.n_left_out, shared.n_other_alleles) == (1, 1)
    path = tmp_path / "y.tsv.gz"
    about = SsfMetadata('a "trait": 1', "GRCh37", 99, "2026-01-31", "brainlocus", 33, ("age",))
    assert write_ssf(shared, results, path, about) == 7  # nine, less one scaffold, less one without an estimate
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    header = (
        "chromosome base_pair_location effect_allele other_allele beta standard_error effect_allele_frequency "
        "neg_log_10_p_value variant_id rsid info n variant_name"
    )
    assert lines[0].split("\t") == header.split()
    rows = [line.split("\t") for line in lines[1:]]
    places = [("1", "8"), ("2", "20"), ("2", "900"), ("23", "5"), ("23", "6"), ("24", "4"), ("25", "3")]
    assert [tuple(row[:2]) for row in rows] == places
    assert rows[0][8:10] == ["1_8_C_AT", "rs4"]
    assert rows[5][8:10] == ["#NA", "#NA"]  # not a nucleotide, not an rsid
    assert rows[5][2] == "<DEL>"
    assert rows[6][9] == "#NA"
    assert rows[6][12] == "2:3"
    assert {row[10] for row in rows} == {"#NA", "0.4125", "0.6375", "0.8625", "1"}
    text = ssf_metadata_path(path).read_text()
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(text)
    assert found["trait_description"] == ['a "trait": 1']
    assert found["data_file_md5sum"] == hashlib.md5(path.read_bytes()).hexdigest()
    assert found["samples"] == [{"sample_size": 99, "case_control_study": True, "case_count": 33, "control_count": 66}]
    assert found["genome_assembly"] == "GRCh37"
    assert found["file_type"] == "GWAS-SSF v1.0"
    assert found["is_sorted"] is True
    assert found["coordinate_system"] == "1-based"


def test_written_twice_is_the_same_and_comes_back_to_ten_digits(tmp_path):
    variants, results, info = scan()
    shared = prepare_ssf(variants, info)
    about = SsfMetadata("y", "GRCh37", 99, "2026-01-31")
    for name in ("a", "b"):
        write_ssf(shared, results, tmp_path / f"{name}.tsv.gz", about)
    assert (tmp_path / "a.tsv.gz").read_bytes() == (tmp_path / "b.tsv.gz").read_bytes()
    back = read_associations(tmp_path / "a.tsv.gz")
    rows = shared.rows[np.isfinite(results["beta"][shared.rows])]
    for name in ("beta", "standard_error", "neg_log10_p", "effect_allele_frequency"):
        np.testing.assert_allclose(back[name], results[name][rows], rtol=5e-10, err_msg=name)
    np.testing.assert_array_equal(back["n"], results["n"][rows])
    names = [str(c).replace("XY", "X") for c in variants.chromosome[rows]]
    assert back["chromosome"].tolist() == names
    assert back["variant_id"].tolist() == variants.variant_id[rows].tolist()
    np.testing.assert_array_equal(back["info"], np.minimum(info[rows], 1.0))


def test_without_other_names_there_is_no_further_column(tmp_path):
    variants, results, _ = scan(info=False)
    keep = np.array([0, 1, 3, 6])
    shared = prepare_ssf(variants.take(keep))
    write_ssf(shared, results.take(keep), tmp_path / "y.tsv.gz", SsfMetadata("y", "GRCh37", 9, "2026-01-31"))
    header = gzip.decompress((tmp_path / "y.tsv.gz").read_bytes()).decode().splitlines()[0]
    assert header.endswith("\trsid\tinfo\tn")
    assert np.isnan(read_associations(tmp_path / "y.tsv.gz")["info"]).all()


def test_no_variant_at_all(tmp_path):
    variants, results, _ = scan()
    none = np.empty(0, dtype=np.int64)
    shared = prepare_ssf(variants.take(none))
    assert (
        write_ssf(shared, results.take(none), tmp_path / "y.tsv.gz", SsfMetadata("y", "GRCh37", 9, "2026-01-31")) == 0
    )
    assert len(read_associations(tmp_path / "y.tsv.gz")) == 0


def write(path, text):
    path.write_text(text)
    return path


def test_p_below_what_a_double_holds(tmp_path):
    rows = "chromosome\tbase_pair_location\trsid\tp_value\n1\t5\trs1\t3e-412\n25\t6\t#NA\t0.01\n"
    rows += "X\t7\trs3\t0\n1\t8\trs4\t#NA\n"
    table = read_associations(write(tmp_path / "a.tsv", rows))
    np.testing.assert_allclose(table["neg_log10_p"], [411.5228787, 2.0, np.nan, np.nan])
    assert table["chromosome"].tolist() == ["1", "MT", "X", "1"]
    assert table["variant_id"].tolist() == ["rs1", "", "rs3", "rs4"]


def test_our_own_tables_of_every_kind(tmp_path):
    table = ResultTable(
        {
            "trait": text_array(["a", "a", "b"]),
            "chromosome": np.array(["1", "23", "X"]), "position": np.array([1, 2, 3]),
            "neg_log10_p": np.array([1.0, np.nan, 3.0]), "beta": np.array([0.1, 0.2, 0.3]),
        }
    )  # fmt: skip
    for name in ("t.parquet", "t.tsv", "t.csv", "t.tsv.gz"):
        write_results(table, tmp_path / name)
        back = read_associations(tmp_path / name, ("trait",))
        assert set(back.names) == {"trait", "chromosome", "position", "neg_log10_p"}
        assert back["chromosome"].tolist() == ["1", "X", "X"]
        np.testing.assert_array_equal(back["neg_log10_p"], table["neg_log10_p"])
        assert back["trait"].tolist() == ["a", "a", "b"]


BAD = [
    ("a.tsv", "chromosome\tposition\n1\t2\n", SchemaError, "expected a column neg_log10_p"),
    ("a.tsv", "chromosome\tpositions\tneg_log10_p\n1\t2\t3\n", SchemaError, "Did you mean 'positions'"),
    ("a.tsv", "chromosome\tposition\tneg_log10_p\n1\tx\t3\n", FormatError, "cells are of their columns"),
    ("a.tsv", "chromosome\tposition\tneg_log10_p\n1\t\t3\n", FormatError, "expected a position"),
    ("a.tsv", "chromosome\tposition\tp_value\n1\t2\t3\n", FormatError, "from 0 to 1, found 3 in line 2"),
    ("a.tsv", "chromosome\tposition\tp_value\n1\t2\tsmall\n", FormatError, "expected numbers"),
    ("a.tsv", "", FormatError, "expected a table with a header"),
    ("a.doc", "chromosome\n", FormatError, "expected .tsv"),
    ("a.parquet", "not parquet", FormatError, "expected a table with a header"),
    ("", "", FormatError, "expected a file"),
]


@pytest.mark.parametrize(("name", "text", "kind", "message"), BAD)
def test_bad_tables(tmp_path, name, text, kind, message):
    path = write(tmp_path / name, text) if name else tmp_path / "none.tsv"
    with pytest.raises(kind, match=message):
        read_associations(path)
