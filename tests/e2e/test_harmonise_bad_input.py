"""``cohort harmonise`` with tables that do not fit: one message or a count, the exit code, nothing half-written."""

import json
from pathlib import Path

import numpy as np
import pytest

from brainlocus.core import Column, PhenotypeTable, SampleIndex
from brainlocus.io import read_table, write_table
from tests.e2e.test_prepare_command import run

N = 120


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A hundred and twenty people of three sites, a covariate that follows the sites, and awkward measures."""
    root = tmp_path_factory.mktemp("harmonise")
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k:03d}" for k in range(N)])
    site = np.array(["a", "b", "c"])[np.arange(N) % 3]
    strength = np.array([1.5, 3.0, 3.0])[np.arange(N) % 3]
    columns = (
        Column("site", site, "categorical"),
        Column("age", rng.uniform(20, 80, N)),
        Column("strength", strength),
        Column("education", np.array(["low", "high"])[rng.integers(0, 2, N)], "categorical"),
    )
    write_table(PhenotypeTable(people, columns), root / "people.tsv")
    x = rng.standard_normal((N, 3)) + (site == "b")[:, None]
    measures = (
        *(Column(f"m{k}", x[:, k]) for k in range(3)),
        Column("flat", np.full(N, 2.5)),
        Column("level", np.full(N, 7.0)),
        Column("nothing", np.full(N, np.nan)),
    )
    write_table(PhenotypeTable(people, measures), root / "measures.tsv")
    return root


def harmonise(capsys, study, out, *more, table="measures.tsv", people="people.tsv"):
    return run(
        capsys, "cohort", "harmonise", study / table, "--participants", study / people, "--out", out, *more
    )  # fmt: skip


def test_constant_and_missing_measures_are_named_and_counted(study, tmp_path, capsys):
    code, printed = harmonise(capsys, study, tmp_path / "o.tsv", "--preserve", "age", "--model", tmp_path / "m.npz")
    assert code == 3
    assert "1 features have no value: nothing." in printed
    assert "2 constant features are passed through: flat, level." in printed
    assert "1 traits have no value: nothing" in printed
    counts = json.loads((tmp_path / "o.tsv.json").read_text())["counts"]
    assert counts["without_values"] == ["nothing"]
    found = read_table(tmp_path / "o.tsv")
    np.testing.assert_array_equal(found.column("flat").values, np.full(N, 2.5))
    assert np.isfinite(found.column("m0").values).all()
    # Without the missing measure nothing has failed.
    code, _ = harmonise(capsys, study, tmp_path / "p.tsv", "--preserve", "age", "--traits", "m*,flat")
    assert code == 0


REFUSED = {
    "determined by the sites": (
        ("--preserve", "strength"),
        "'strength' is confounded with the sites: it is 1.5 throughout site 'a' and 3 throughout site 'b'",
    ),
    "level of one site": (("--preserve", "C(site)"), "is confounded with the sites"),
    "curve that the sites determine": (("--smooth", "strength"), "'strength' is confounded with the sites"),
    "no such column": (("--preserve", "agee"), "names 'agee', which is not a column. Did you mean 'age'?"),
    "no such site": (("--reference", "z"), "The reference site 'z' does not occur; sites are a, b, c"),
    "no such batch": (("--batch", "scanner"), "There is no column 'scanner'"),
    "no such trait": (("--traits", "m9"), "no column matches 'm9'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_apart_or_is_not_there_is_refused(study, tmp_path, capsys, case):
    more, message = REFUSED[case]
    code, printed = harmonise(capsys, study, tmp_path / "o.tsv", *more)
    assert code == 2, printed
    assert message in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


def test_unseen_sites_and_levels_are_named_and_counted(study, tmp_path, capsys):
    code, _ = harmonise(
        capsys, study, tmp_path / "o.tsv", "--preserve", "age + education", "--traits", "m*", "--model",
        tmp_path / "m.npz",
    )  # fmt: skip
    assert code == 0
    people = read_table(study / "people.tsv")

    def changed(name, column, value):
        values = people.column(column).values.astype("U8")
        values[:4] = value
        columns = [Column(c.name, values, "categorical") if c.name == column else c for c in people.columns]
        write_table(PhenotypeTable(people.samples, tuple(columns)), tmp_path / name)

    changed("site.tsv", "site", "new")
    changed("level.tsv", "education", "middle")
    common = ("--apply", tmp_path / "m.npz", "--traits", "m*")
    code, printed = harmonise(capsys, study, tmp_path / "x.tsv", *common, people=tmp_path / "site.tsv")
    assert code == 2
    assert "1 sites are unknown to the model: 'new'; it knows a, b, c" in printed
    code, printed = harmonise(capsys, study, tmp_path / "x.tsv", *common, people=tmp_path / "level.tsv")
    assert code == 2
    assert "Column 'education' has levels that were not there before: middle; known are high, low" in printed
    assert not (tmp_path / "x.tsv").exists()
    code, printed = harmonise(
        capsys, study, tmp_path / "x.tsv", *common, "--unknown", "nan", people=tmp_path / "site.tsv"
    )  # fmt: skip
    assert code == 0
    counts = json.loads((tmp_path / "x.tsv.json").read_text())["counts"]
    assert counts["missing_sites"] == ["new"]
    assert int(np.isnan(read_table(tmp_path / "x.tsv").column("m0").values).sum()) == 4


def test_ids_that_do_not_match_are_counted_and_none_in_common_is_refused(study, tmp_path, capsys):
    people = read_table(study / "people.tsv")
    write_table(people.take(np.arange(10, N)), tmp_path / "fewer.tsv")
    code, printed = harmonise(
        capsys, study, tmp_path / "o.tsv", "--preserve", "age", "--traits", "m*", people=tmp_path / "fewer.tsv"
    )  # fmt: skip
    assert code == 0
    assert "People who are not in both tables are left out: 10 of 120 in the table" in printed
    counts = json.loads((tmp_path / "o.tsv.json").read_text())["counts"]
    assert (counts["participants_table"], counts["participants_file"], counts["participants"]) == (120, 110, 110)
    strangers = PhenotypeTable(SampleIndex.of([f"q{k}" for k in range(N)]), people.columns)
    write_table(strangers, tmp_path / "strangers.tsv")
    code, printed = harmonise(capsys, study, tmp_path / "x.tsv", people=tmp_path / "strangers.tsv")
    assert code == 2
    assert "No participant id is shared" in printed
    write_table(PhenotypeTable(people.samples, people.columns), tmp_path / "twice.tsv")
    lines = (tmp_path / "twice.tsv").read_text().splitlines()
    (tmp_path / "twice.tsv").write_text("\n".join([*lines, *lines[1:8]]) + "\n")
    code, printed = harmonise(capsys, study, tmp_path / "x.tsv", people=tmp_path / "twice.tsv")
    assert code == 2
    assert "7 occur more than once: 'p000', 'p001', 'p002', 'p003', 'p004'." in printed
    assert not (tmp_path / "x.tsv").exists()


def test_people_without_a_covariate_or_a_site_are_named(study, tmp_path, capsys):
    people = read_table(study / "people.tsv")
    age = people.column("age").values.copy()
    age[[3, 5]] = np.nan
    write_table(people.replace_values(["age"], age[:, None]), tmp_path / "age.tsv")
    code, printed = harmonise(capsys, study, tmp_path / "x.tsv", "--preserve", "age", people=tmp_path / "age.tsv")
    assert code == 2
    assert "2 people lack a variable of 'age': 'p003', 'p005'. Remove them or complete the table." in printed
    site = people.column("site").values.copy()
    site[:3] = ""
    columns = [Column("site", site, "categorical") if c.name == "site" else c for c in people.columns]
    write_table(PhenotypeTable(people.samples, tuple(columns)), tmp_path / "site.tsv")
    code, printed = harmonise(capsys, study, tmp_path / "x.tsv", people=tmp_path / "site.tsv")
    assert code == 2
    assert "3 people have no site (rows 1, 2, 3)" in printed
    assert not (tmp_path / "x.tsv").exists()
