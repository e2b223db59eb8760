"""``associate phenome`` on tables that are read by columns: formats, scopes, groups, reports, wrong input."""

import json

import numpy as np
import pytest

from brainlocus.core import Column, PhenotypeTable, SampleIndex
from brainlocus.io import read_results, read_table, write_table
from tests.e2e.test_cohort_commands import code_of, run

N = 160


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two scales of an atlas, phenotypes of UK Biobank's names in two categories, one text column, one covariate."""
    root = tmp_path_factory.mktemp("phenome")
    rng = np.random.default_rng(0)
    ids = SampleIndex.of([f"{1000 + k}" for k in range(N)])
    age, hidden = rng.uniform(40, 80, N), rng.standard_normal(N)
    traits = {f"C2_{k}": rng.standard_normal(N) + (k == 1) * hidden for k in (1, 2)}
    traits |= {f"C4_{k}": rng.standard_normal(N) + (k == 3) * hidden for k in (1, 2, 3, 4)}
    write_table(PhenotypeTable(ids, tuple(Column(n, v) for n, v in traits.items())), root / "traits.parquet")
    phenotypes = {f"f.{field}.{visit}.0": rng.standard_normal(N) for field in range(10, 20) for visit in (0, 2)}
    for visit in (0, 2):
        phenotypes[f"f.12.{visit}.0"] += 1.5 * hidden
    phenotypes["f.14.0.0"][rng.uniform(size=N) < 0.5] = np.nan
    columns = [Column("age", age), *(Column(n, v) for n, v in phenotypes.items())]
    columns.insert(4, Column("f.41.0.0", np.where(age > 60, "yes", "no"), "categorical"))
    order = rng.permutation(N)
    table = PhenotypeTable(ids, tuple(columns)).take(order)
    write_table(table, root / "phenotypes.parquet")
    write_table(table, root / "phenotypes.tsv.gz")
    (root / "map.tsv").write_text("ID\tCategory\tVariables\n1\tlow\t10:14,41\n2\thigh\t15:19\n")
    return root


def scan(root, out, *more, table="phenotypes.parquet"):
    options = ("--covariates", "age", "--quiet", "--categories", root / "map.tsv", *more)
    code = code_of("associate", "phenome", root / "traits.parquet", root / table, *options, "--out", out)
    return code, read_results(out) if out.exists() else None


def test_text_and_parquet_give_the_same_table(root, tmp_path):
    code, whole = scan(root, tmp_path / "a.parquet")
    assert code == 0
    code, other = scan(root, tmp_path / "b.parquet", table="phenotypes.tsv.gz")
    assert code == 0
    assert len(whole) == 20 * 6
    for name in whole.columns:
        if whole[name].dtype.kind == "f":
            np.testing.assert_allclose(whole[name], other[name], rtol=1e-9, equal_nan=True)
        else:
            np.testing.assert_array_equal(whole[name], other[name])
    counts = json.loads((tmp_path / "a.parquet.json").read_text())["counts"]
    assert counts["text_phenotypes_left_out"] == ["f.41.0.0"]
    assert counts["tests"] == 120


def test_visits_of_a_field_count_once(root, tmp_path):
    scan(root, tmp_path / "a.parquet", "--report", tmp_path / "report")
    counts = json.loads((tmp_path / "a.parquet.json").read_text())["counts"]
    table = read_results(tmp_path / "a.parquet")
    passed = table["p_bonferroni"] < 0.05
    assert counts["significant_bonferroni"] == passed.sum() == 4
    assert set(table["phenotype"][passed]) == {"f.12.0.0", "f.12.2.0"}
    assert counts["distinct_phenotypes_bonferroni"] == 1
    assert counts["bonferroni_neg_log10_p"] == pytest.approx(-np.log10(0.05 / 120))
    report = read_results(tmp_path / "report/phenotypes.tsv")
    assert report["phenotype"][report["n_significant"] > 0].tolist() == ["f.12.0.0", "f.12.2.0"]
    assert set(report["trait"][report["n_significant"] > 0]) <= {"C2_1", "C4_3"}
    top = read_results(tmp_path / "report/top.tsv")
    assert (np.diff(top["neg_log10_p"]) <= 0).all()
    assert top["neg_log10_p"][0] == pytest.approx(np.nanmax(table["neg_log10_p"]), rel=1e-9)


def groups_of(table, scope):
    if scope == "table":
        return np.zeros(len(table))
    if scope == "scale":
        return np.char.partition(table["trait"], "_")[:, 0]
    return table[{"trait_group": "trait_group"}.get(scope, scope)]


@pytest.mark.parametrize("scope", ["table", "trait", "phenotype", "category", "scale", "trait_group"])
def test_tests_are_corrected_within_their_scope(root, tmp_path, scope):
    (tmp_path / "groups.tsv").write_text(
        "trait\tgroup\n" + "".join(f"{t}\t{'left' if t[-1] in '13' else 'right'}\n" for t in TRAITS)
    )
    more = ("--trait-groups", tmp_path / "groups.tsv") if scope == "trait_group" else ()
    code, table = scan(root, tmp_path / "a.parquet", "--scope", scope, "--report", tmp_path / "report", *more)
    assert code == 0
    groups = groups_of(table, scope)
    for group in np.unique(groups):
        inside = groups == group
        p = 10.0 ** -table["neg_log10_p"][inside]
        np.testing.assert_allclose(table["p_bonferroni"][inside], np.minimum(p * inside.sum(), 1), rtol=1e-9)
        order = np.argsort(p)
        steps = np.minimum.accumulate((np.sort(p) * p.size / np.arange(1, p.size + 1))[::-1])[::-1]
        np.testing.assert_allclose(table["q_bh"][inside][order], np.minimum(steps, 1), rtol=1e-9)
    assert (tmp_path / "report/manhattan_traits.png").exists() == (scope in ("scale", "trait_group"))


TRAITS = ["C2_1", "C2_2", "C4_1", "C4_2", "C4_3", "C4_4"]


def test_little_memory_gives_the_same_numbers(root, tmp_path):
    """Phenotypes one or two at a time, in one worker, as with plenty of memory."""
    _, plenty = scan(root, tmp_path / "a.parquet")
    code, little = scan(root, tmp_path / "b.parquet", "--memory", "34MiB")
    assert code == 0
    np.testing.assert_allclose(little["t"], plenty["t"], rtol=1e-8)
    np.testing.assert_array_equal(little["phenotype"], plenty["phenotype"])


def test_a_phenotype_table_with_one_row_and_one_column(root, tmp_path):
    table = read_table(root / "phenotypes.parquet", columns=["f.10.0.0"]).take(np.array([0]))
    write_table(table, tmp_path / "one.tsv")
    code = code_of(
        "associate", "phenome", root / "traits.parquet", tmp_path / "one.tsv", "--quiet", "--out", tmp_path / "o.tsv"
    )
    assert code == 3
    assert set(read_results(tmp_path / "o.tsv")["status"]) == {"fewer than 40 people"}


BAD = {
    "robust": (["--robust"], "add --mode exact"),
    "no groups": (["--scope", "trait_group"], "expected a table trait, group"),
    "groups": (["--trait-groups", "{map}"], "expected columns trait and group"),
    "group of none": (["--scope", "trait_group", "--trait-groups", "{few}"], "5 traits have no group: 'C2_2'"),
    "categories": (["--categories", "{few}"], "expected columns phenotype and category"),
    "covariate": (["--covariates", "agee"], "agee"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message(root, tmp_path, capsys, case):
    options, message = BAD[case]
    (tmp_path / "few.tsv").write_text("trait\tgroup\nC2_1\tx\n")
    paths = {"map": root / "map.tsv", "few": tmp_path / "few.tsv"}
    out = tmp_path / "o.parquet"
    code, errors = run(
        capsys, "associate", "phenome", root / "traits.parquet", root / "phenotypes.parquet",
        *[o.format(**paths) for o in options], "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 2, errors
    assert message in errors
    assert "Traceback" not in errors
    assert not out.exists()


def test_scale_needs_names_of_an_atlas(root, tmp_path, capsys):
    code, errors = run(
        capsys, "associate", "phenome", root / "phenotypes.parquet", root / "phenotypes.parquet", "--scope", "scale",
        "--out", tmp_path / "o.parquet", "--quiet",
    )  # fmt: skip
    assert code == 2
    assert "expected traits named C32_1, C32_2 ..., found 'age'" in errors


def test_phenotypes_that_nobody_has_get_a_status(root, tmp_path):
    ids = read_table(root / "traits.parquet").samples
    columns = (Column("nobody", np.full(N, np.nan)), Column("same", np.ones(N)), Column("some", np.arange(N) * 1.0))
    write_table(PhenotypeTable(ids, columns), tmp_path / "p.parquet")
    code = code_of(
        "associate", "phenome", root / "traits.parquet", tmp_path / "p.parquet", "--quiet", "--out", tmp_path / "o.tsv"
    )
    assert code == 3
    found = read_results(tmp_path / "o.tsv")
    status = dict(zip(found["phenotype"], found["status"], strict=True))
    assert status == {"nobody": "fewer than 40 people", "same": "phenotype has no variance", "some": "ok"}
