"""``associate compare``: from two phenome scans, or two tables of values, to the pairs that differ."""

import json

import numpy as np
import pytest

from brainlocus.core import Column, PhenotypeTable, SampleIndex
from brainlocus.io import read_results, write_table
from tests.e2e.test_cohort_commands import code_of, run

N = 300
REGIONS = ("caudate", "putamen", "thalamus")
STRIPPED = ("--strip-first", "QSM_", "--strip-second", "T2star_")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Iron is in both modalities, myelin in the first only: `ferritin` goes with both, `myelin` with the first."""
    root = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    ids = SampleIndex.of([f"p{k}" for k in range(N)])
    iron, myelin = rng.standard_normal((2, N, 3))
    age = rng.uniform(45, 80, N)
    first, second = (x + 0.4 * rng.standard_normal((N, 3)) + 0.02 * age[:, None] for x in (iron + myelin, iron))
    for name, start, values in (("first", "QSM_", first), ("second", "T2star_", second)):
        columns = [Column(f"{start}{r}", values[:, k]) for k, r in enumerate(REGIONS)]
        columns.append(Column(f"{start}{name}_only", rng.standard_normal(N)))
        write_table(PhenotypeTable(ids, tuple(columns)), root / f"{name}.parquet")
    phenotypes = {
        "ferritin": iron[:, 0] + 0.8 * rng.standard_normal(N),
        "myelin": myelin[:, 1] + 0.8 * rng.standard_normal(N),
        "noise": rng.standard_normal(N),
    }
    table = PhenotypeTable(ids, (Column("age", age), *(Column(n, v) for n, v in phenotypes.items())))
    write_table(table, root / "phenotypes.tsv")
    (root / "categories.tsv").write_text("phenotype\tcategory\nferritin\tblood\nmyelin\tbrain\nnoise\tbrain\n")
    for name in ("first", "second"):
        code = code_of(
            "associate", "phenome", root / f"{name}.parquet", root / "phenotypes.tsv", "--covariates", "age",
            "--categories", root / "categories.tsv", "--mode", "exact", "--out",
            root / f"scan_{name}.parquet", "--quiet",
        )  # fmt: skip
        assert code == 0
    return root


def test_pairs_are_told_apart(root, tmp_path, capsys):
    code = code_of(
        "associate", "compare", root / "scan_first.parquet", root / "scan_second.parquet", *STRIPPED,
        "--values-first", root / "first.parquet", "--values-second", root / "second.parquet", "--covariates", "age",
        "--participants", root / "phenotypes.tsv", "--report", tmp_path / "report", "--out",
        tmp_path / "c.tsv", "--quiet",
    )  # fmt: skip
    assert code == 0
    found = read_results(tmp_path / "c.tsv")
    pairs = list(zip(found["region"], found["phenotype"], strict=True))
    assert set(pairs) == {("caudate", "ferritin"), ("putamen", "myelin")}
    both, one = pairs.index(("caudate", "ferritin")), pairs.index(("putamen", "myelin"))
    assert (found["significant_first"][both], found["significant_second"][both]) == (1, 1)
    assert (found["significant_first"][one], found["significant_second"][one]) == (1, 0)
    assert abs(found["angle"][both]) < 50 < 55 < found["angle"][one] <= 63.5
    assert found["difference_neg_log10_p"][one] > 5
    assert found["same_sign"][both] == 1
    assert found["r_between"][both] > 0.5
    assert (found["difference_degrees_of_freedom"] == N - 1 - 3).all()
    by = read_results(tmp_path / "report/by_category.tsv")
    assert dict(zip(by["category"], by["n_first_only"], strict=True)) == {"blood": 0, "brain": 1}
    assert (tmp_path / "report/bland_altman.png").stat().st_size > 5_000
    assert (tmp_path / "report/specificity.png").stat().st_size > 5_000
    assert "1 associated in both, 1 in QSM only, 0 in T2star only" in capsys.readouterr().out
    counts = json.loads((tmp_path / "c.tsv.json").read_text())["counts"]
    assert counts["traits_of_one_modality_only"] == [1, 1]
    assert counts["pairs"] == 9


def test_a_table_of_regions_does_what_prefixes_do(root, tmp_path):
    lines = "".join(f"QSM_{r}\tT2star_{r}\t{r}\n" for r in REGIONS)
    (tmp_path / "regions.tsv").write_text("first\tsecond\tregion\n" + lines)
    scans = root / "scan_first.parquet", root / "scan_second.parquet"
    for name, options in (("a", STRIPPED), ("b", ("--regions", tmp_path / "regions.tsv"))):
        assert code_of("associate", "compare", *scans, *options, "--out", tmp_path / f"{name}.tsv", "--quiet") == 0
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
    assert np.isnan(read_results(tmp_path / "a.tsv")["difference_t"]).all()


def test_values_of_two_tables(root, tmp_path):
    code = code_of(
        "associate", "compare", root / "first.parquet", root / "second.parquet", *STRIPPED, "--report",
        tmp_path / "report", "--out", tmp_path / "v.tsv", "--quiet",
    )  # fmt: skip
    assert code == 0
    found = read_results(tmp_path / "v.tsv")
    assert sorted(found["measure"]) == sorted(REGIONS)
    assert (found["limit_lower"] < found["bias"]).all()
    assert (tmp_path / "report/bland_altman.png").stat().st_size > 5_000


BAD = {
    "kinds": (["{scan}", "{values}"], "Compare two results, or two tables of people"),
    "names": (["{scan}", "{other}"], "--strip-first and --strip-second"),
    "half": (["{scan}", "{other}", *STRIPPED, "--values-first", "{values}"], "go together"),
    "absent": (
        ["{scan}", "{other}", *STRIPPED, "--values-first", "{values}", "--values-second", "{values}"],
        "there is no column 'T2star_caudate'",
    ),
    "regions": (["{scan}", "{other}", "--regions", "{map}"], "expected columns first, second, region"),
    "twice": (["{scan}", "{other}", "--regions", "{twice}"], "two traits measure region 'basal'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message(root, tmp_path, capsys, case):
    arguments, message = BAD[case]
    (tmp_path / "twice.tsv").write_text(
        "first\tsecond\tregion\nQSM_caudate\tT2star_caudate\tbasal\nQSM_putamen\tT2star_putamen\tbasal\n"
    )
    paths = {
        "scan": root / "scan_first.parquet", "other": root / "scan_second.parquet", "values": root / "first.parquet",
        "map": root / "categories.tsv", "twice": tmp_path / "twice.tsv",
    }  # fmt: skip
    out = tmp_path / "o.tsv"
    code, errors = run(capsys, "associate", "compare", *[a.format(**paths) for a in arguments], "--out", out, "--quiet")
    assert code == 2, errors
    assert message in errors
    assert "Traceback" not in errors
    assert not out.exists()
