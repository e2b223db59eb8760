"""``cohort prepare`` with confound sets and ``cohort effective-tests``, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, quantitative_table
from brainlocus.io import read_results, read_table, write_table
from tests.real_data import abide

N = 600
ROLES = """age = "age"
sex = "sex"
site = "centre"
head_size = "head"
head_motion = ["motion_rest", "motion_task"]
scan_date = "scanned"
time_of_day = "clock"
protocol = "phase"
extra = "score"

[types]
score = "categorical"

[traits]
score = ["one", "t*"]
"""


def run(capsys, *arguments):
    """Return the exit code and all that was printed, on one line."""
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, " ".join(f"{printed.out} {printed.err}".split())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Six hundred people of two centres; four traits, of which the first follows motion x head size."""
    root = tmp_path_factory.mktemp("prepare")
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k:03d}" for k in range(N)])
    head, motion = rng.normal(1.3, 0.1, N), rng.normal(0, 1, N)
    day = np.datetime64("2015-01-05") + rng.integers(0, 900, N)
    clock = [f"{h}:{m:02d}" for h, m in zip(rng.integers(8, 18, N), rng.integers(0, 60, N), strict=True)]
    columns = (
        Column("age", rng.uniform(45, 80, N)),
        Column("sex", rng.integers(0, 2, N).astype(float), "binary"),
        Column("centre", np.array(["north", "south"])[rng.integers(0, 2, N)], "categorical"),
        Column("head", head),
        Column("motion_rest", motion),
        Column("motion_task", motion + rng.normal(0, 1, N)),
        Column("scanned", np.datetime_as_string(day), "categorical"),
        Column("clock", np.array(clock), "categorical"),
        Column("phase", np.array(["one", "two"])[(day > np.datetime64("2016-03-01")).astype(int)], "categorical"),
        Column("score", np.where(rng.uniform(size=N) < 0.1, -9.0, rng.integers(0, 3, N))),
    )
    write_table(PhenotypeTable(people, columns), root / "people.tsv")
    traits = rng.standard_normal((N, 4))
    traits[:, 0] += motion * (head - 1.3) / 0.1
    write_table(quantitative_table(people, ["one", "two", "three", "four"], traits), root / "idps.tsv")
    (root / "roles.toml").write_text(ROLES)
    rows = {
        "column": "role\ttype\ttraits", "age": "age", "sex": "sex", "centre": "site\tcategorical", "head": "head_size",
        "motion_rest": "head_motion", "motion_task": "head_motion", "scanned": "scan_date", "clock": "time_of_day",
        "phase": "protocol", "score": "extra\tcategorical\tone, t*",
    }  # fmt: skip
    lines = [f"{column}\t{rest}" + "\t" * (2 - rest.count("\t")) for column, rest in rows.items()]
    (root / "roles.tsv").write_text("\n".join(lines) + "\n")
    return root


def prepared(capsys, study, out, *more):
    return run(
        capsys, "cohort", "prepare", study / "idps.tsv", "--participants", study / "people.tsv", "--out", out, *more,
    )  # fmt: skip


def test_a_set_is_regressed_out_reported_and_written_for_others(study, tmp_path, capsys):
    more = ("--confound-roles", study / "roles.toml", "--confound-set", "ukb", "--min-variance", 0.02)
    code, errors = prepared(
        capsys, study, tmp_path / "a.tsv", *more, "--report", tmp_path / "report", "--confounds-out",
        tmp_path / "confounds.tsv",
    )  # fmt: skip
    assert code == 0, errors
    assert "-9 is the only negative value of score" in errors
    counts = json.loads((tmp_path / "a.tsv.json").read_text())["counts"]
    about = counts["confound_set"]
    assert about["columns_of_group"]["crossed"] >= 2
    assert about["columns"] >= about["rank"] > 20
    assert 0 < about["candidates_kept"] < about["candidates"]
    assert about["by_chance"] == pytest.approx(about["rank"] / (N - 1))
    report = tmp_path / "report"
    rows = [line.split("\t") for line in (report / "candidates.tsv").read_text().splitlines()]
    kept = {row[0] for row in rows if row[-1] == "true"}
    assert {"head__north__x__motion_rest__north", "head__south__x__motion_rest__south"} <= kept
    assert len(kept) == about["candidates_kept"]
    columns = (report / "confounds.tsv").read_text().splitlines()
    assert len(columns) == about["columns"] + 1
    groups = [line.split("\t") for line in (report / "explained.tsv").read_text().splitlines()]
    assert groups[0] == ["trait", "group", "marginal", "unique"]
    share = {(trait, group): float(unique) for trait, group, _, unique in groups[1:]}
    assert share["one", "crossed"] > 0.3
    assert share["four", "extra"] == 0 < share["three", "extra"]
    assert share["two", "crossed"] < 0.1
    assert (report / "groups.png").stat().st_size > 5_000
    # The written columns are confounds for any other command: regressed out as a formula they leave the same of the
    # trait that has no confound of its own.
    written = read_table(tmp_path / "confounds.tsv")
    assert len(written.names) == about["columns"]
    formula = " + ".join(written.names)
    again = run(
        capsys, "cohort", "prepare", study / "idps.tsv", "--participants", tmp_path / "confounds.tsv", "--confounds",
        formula, "--out", tmp_path / "b.tsv", "--quiet",
    )  # fmt: skip
    assert again[0] == 0
    first, second = (read_table(tmp_path / name).matrix() for name in ("a.tsv", "b.tsv"))
    np.testing.assert_allclose(second[:, 3], first[:, 3], atol=1e-6)
    known = ~np.isnan(first[:, 0])
    motion = read_table(study / "people.tsv").column("motion_rest").values
    assert abs(np.corrcoef(first[known, 0], motion[known])[0, 1]) < 0.01


def test_roles_in_a_table_are_those_in_toml_and_ukb_is_what_roles_alone_mean(study, tmp_path, capsys):
    assert prepared(capsys, study, tmp_path / "a.tsv", "--confound-roles", study / "roles.toml")[0] == 0
    code, _ = prepared(
        capsys, study, tmp_path / "b.tsv", "--confound-roles", study / "roles.tsv", "--confound-set", "ukb"
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_small_set_and_formula_together_and_chance_is_warned_of(study, tmp_path, capsys):
    common = ("--confound-roles", study / "roles.toml")
    code, errors = prepared(
        capsys, study, tmp_path / "a.tsv", *common, "--confound-set", "small", "--confounds",
        "I(motion_rest * head)", "--na-values=-9",
    )  # fmt: skip
    assert code == 0, errors
    assert "negative value" not in errors
    about = json.loads((tmp_path / "a.tsv.json").read_text())["counts"]["confound_set"]
    assert about["columns_of_group"]["formula"] == 1
    assert "protocol" not in about["columns_of_group"]
    assert about["candidates"] == 0
    code, errors = prepared(capsys, study, tmp_path / "b.tsv", *common)
    assert code == 0
    # P(chi2_1 > 600 x 0.0075) = 0.034, for four traits 0.13.
    assert "a column of noise is kept with probability 0.13; --min-variance 0.0103 makes that 0.05" in errors


def test_ties_and_close_confounds_are_warned_of(study, tmp_path, capsys):
    table = read_table(study / "idps.tsv")
    age = read_table(study / "people.tsv").column("age").values
    more = (Column("years", np.floor(age)), Column("rare", (np.arange(N) < 5).astype(float), "binary"))
    write_table(PhenotypeTable(table.samples, (*table.columns, *more)), tmp_path / "t.tsv")
    code, errors = run(
        capsys, "cohort", "prepare", tmp_path / "t.tsv", "--participants", study / "people.tsv", "--confounds", "age",
        "--int-twice", "--out", tmp_path / "o.tsv",
    )  # fmt: skip
    assert code == 3
    assert "more than 20 % of the values are tied in years" in errors
    assert "correlated beyond 0.9 with a trait: age with years (1.00)" in errors
    assert "confounds explain more than half of years" in errors
    counts = json.loads((tmp_path / "o.tsv.json").read_text())["counts"]
    assert counts["without_result"] == {"rare": "5 in the smaller class, 10 are needed"}
    assert counts["many_ties"] == ["years"]
    assert counts["more_than_half_explained"] == ["years"]
    assert counts["close_confounds"][0][:2] == ["age", "years"]


BAD = {
    "unknown role": ('agge = "age"', (), "column 'age' has the unknown role 'agge'. Did you mean 'age'?"),
    "absent columns": (
        'age = "agee"\nsex = "sexx"', (), "2 of 2 columns are not in the table of people: 'agee', 'sexx'.",
    ),
    "no names": ("age = 3", (), "age: expected the name of a column or a list of names, found 3"),
    "not TOML": ("age =", (), 'expected TOML such as age = "age"'),
    "nothing": ("", (), "expected at least one column with a role, found none"),
    "unknown type": ('age = "age"\n[types]\nage = "number"', (), "unknown type 'number'; expected auto, continuous"),
    "type of nobody": ('age = "age"\n[types]\nagee = "continuous"', (), "[types] names 'agee', which has no role"),
    "traits of nobody": ('age = "age"\n[traits]\nagee = "one"', (), "[traits] names 'agee', which has no role"),
    "traits of another role": (
        'qc = "head"\n[traits]\nhead = "one"', (), "possible with the role extra, found qc",
    ),
    "no such trait": (
        'extra = "head"\n[traits]\nhead = "T2*"', (), "'head' is for the traits T2*, and none of the 4 traits",
    ),
    "trait and confound": ('age = "age"\nextra = "one"', ("--traits", "one"), "'one' cannot be trait and covariate"),
    "text": ('head_size = "phase"', (), "head_size 'phase' is continuous, but the column holds text (one, two)"),
    "date": ('scan_date = "phase"', (), "column 'phase' has 600 values such as 'one'; expected a date"),
    "twice without ranks": ('age = "age"', ("--int-twice", "--normalise", "none"), "--int-twice ranks twice"),
    "table name": ('age = "age"', ("--confounds-out", "{out}.xlsx"), "expected a name ending in .parquet"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_nothing_written(study, tmp_path, capsys, case):
    roles, more, message = BAD[case]
    (tmp_path / "roles.toml").write_text(roles)
    more = [str(part).format(out=tmp_path / "x") for part in more]
    code, errors = prepared(
        capsys, study, tmp_path / "o.tsv", "--confound-roles", tmp_path / "roles.toml", *more
    )  # fmt: skip
    assert code == 2, errors
    assert message in errors
    assert "Traceback" not in errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ["roles.toml"]


def test_sets_need_roles(study, tmp_path, capsys):
    for option, value, message in (
        ("--confound-set", "ukb", "--confound-set: expected --confound-roles too"),
        ("--confounds-out", tmp_path / "c.tsv", "--confounds-out writes the columns of --confound-set"),
        ("--confound-roles", tmp_path / "none.toml", "found nothing"),
    ):
        code, errors = prepared(capsys, study, tmp_path / "o.tsv", option, value)
        assert (code, message in errors) == (2, True), errors
    (tmp_path / "roles.tsv").write_text("name\tkind\nage\tage\n")
    code, errors = prepared(capsys, study, tmp_path / "o.tsv", "--confound-roles", tmp_path / "roles.tsv")
    assert code == 2
    assert "expected columns column, role and, if wished, type and traits, found name, kind" in errors


def test_bad_tables_are_named_and_counted(tmp_path, capsys):
    rng = np.random.default_rng(1)
    ids = [f"p{k}" for k in range(60)]

    def written(cells, names=ids):
        lines = ["participant_id\tx\ty"] + [f"{i}\t{c}\t{v:.4f}" for i, c, v in zip(names, cells, rng.normal(size=60),
                                            strict=True)]  # fmt: skip
        (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
        return run(capsys, "cohort", "prepare", tmp_path / "t.tsv", "--out", tmp_path / "o.tsv", "--quiet")

    numbers = [f"{v:.4f}" for v in rng.normal(size=60)]
    code, errors = written([*numbers[:57], "1.2.3", "n.d.", "0,5x"])
    assert code == 2
    assert "column 'x' holds numbers, but line 59 has '1.2.3' (3 such cells)" in errors
    code, errors = written([*numbers[:58], "inf", "-inf"])
    assert code == 2
    assert "column 'x' has an infinite value in line 60 (2 such cells)" in errors
    code, errors = written(numbers, [f"p{k // 2}" for k in range(60)])
    assert code == 2
    assert "30 occur more than once: 'p0', 'p1', 'p10', 'p11', 'p12'." in errors
    assert not (tmp_path / "o.tsv").exists()
    code, errors = written([""] * 60)
    assert code == 3
    counts = json.loads((tmp_path / "o.tsv.json").read_text())["counts"]
    assert counts["without_result"] == {"x": "0 values, 40 are needed"}
    code, errors = written(["3"] * 60)
    assert code == 3
    counts = json.loads((tmp_path / "o.tsv.json").read_text())["counts"]
    assert counts["without_result"] == {"x": "constant"}


def test_effective_tests_by_every_rule(study, tmp_path, capsys):
    out = tmp_path / "tests.tsv"
    common = ("--participants", study / "people.tsv", "--confounds", "age + C(centre)")
    arguments = ("cohort", "effective-tests", study / "idps.tsv", "--predictors", 4_000, *common)
    code, errors = run(capsys, *arguments, "--out", out)
    assert code == 0
    table = read_results(out)
    assert table["rule"].tolist() == ["simulation", "bonferroni", "nyholt", "li_ji", "galwey", "gao"]
    tests = dict(zip(table["rule"].tolist(), table["effective_tests"].tolist(), strict=True))
    assert tests["bonferroni"] == 4
    assert abs(tests["simulation"] - 4) < 3 * table["effective_tests_standard_error"][0]
    np.testing.assert_allclose(table["test_level"][2:], 1 - 0.95 ** (1 / table["effective_tests"][2:]))
    assert f"4 traits are {tests['simulation']:.1f} effective tests" in errors
    assert np.isnan(table["effective_tests_lower"][1:]).all()
    # The same seed draws the same predictors, however many threads and with another executor.
    code, _ = run(capsys, *arguments, "--executor", "serial", "--threads", 1, "--out", tmp_path / "again.tsv")
    assert code == 0
    assert (tmp_path / "again.tsv").read_bytes() == out.read_bytes()


def test_effective_tests_leave_out_what_does_not_vary_and_refuse_what_cannot_be(study, tmp_path, capsys):
    table = read_table(study / "idps.tsv")
    write_table(PhenotypeTable(table.samples, (*table.columns, Column("flat", np.ones(N)))), tmp_path / "flat.tsv")
    command = ("cohort", "effective-tests", tmp_path / "flat.tsv", "--predictors", 1_000)
    code, errors = run(capsys, *command, "--out", tmp_path / "a.tsv")
    assert code == 3
    assert "1 traits are not tested, as they do not vary beyond the confounds: flat" in errors
    code, errors = run(capsys, *command, "--traits", "flat", "--out", tmp_path / "b.tsv")
    assert code == 2
    assert "None of the 1 traits varies beyond the covariates" in errors
    code, errors = run(capsys, *command, "--level", 0.9, "--out", tmp_path / "b.tsv")
    assert code == 2
    assert not (tmp_path / "b.tsv").exists()


def test_abide_thickness(tmp_path, capsys):
    """The figures of docs/stages/cohort.md."""
    table, names = abide()
    columns = ["subject_id", "site", "age", "sex", "asd", *names]
    table[columns].to_csv(tmp_path / "abide.csv", index=False)
    code, _ = run(
        capsys, "cohort", "effective-tests", tmp_path / "abide.csv", "--traits", "*_thickness", "--confounds",
        "age + I(age**2) + sex + C(site)", "--out", tmp_path / "t.tsv", "--quiet",
    )  # fmt: skip
    assert code == 0
    found = read_results(tmp_path / "t.tsv")
    tests = dict(zip(found["rule"].tolist(), found["effective_tests"].tolist(), strict=True))
    assert tests["bonferroni"] == 70
    assert tests["simulation"] == pytest.approx(57.4, abs=6)
    expected = {"nyholt": 62.98, "li_ji": 43.0, "galwey": 46.49, "gao": 66}
    for rule, value in expected.items():
        assert tests[rule] == pytest.approx(value, abs=0.01)


def test_effective_tests_of_nobody(tmp_path, capsys):
    (tmp_path / "nobody.tsv").write_text("participant_id\ta\tb\n")
    code, printed = run(
        capsys, "cohort", "effective-tests", tmp_path / "nobody.tsv", "--out", tmp_path / "out.tsv", "--quiet"
    )
    assert code == 2
    assert "nobody.tsv: expected people, found a table without rows" in printed
    assert not (tmp_path / "out.tsv").exists()
