"""``associate epigenome`` through the command line: planted associations, formats, settings, bad input."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.cohort.associate.epigenome import m_values
from brainlocus.io import read_results
from tests.e2e.test_memory import MIB, measure
from tests.reference.naive_epigenome import naive_pair, naive_winsorise

N, G = 200, 1000
COVARIATES = ("--covariates", "age + C(sex) + smoking + C(plate)")


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("epigenome") / "sim"
    options = ("--participants", N, "--features", G, "--traits", 2, "--causal", 6, "--regions", 2, "--effect", 0.8)
    assert code_of("simulate", "epigenome", root, *options, "--seed", 3, "--quiet") == 0
    return root


def run(study, out, *options, methylation="methylation.parquet", traits="traits.tsv"):
    return code_of(
        "associate", "epigenome", study / methylation, study / traits, "--participants", study / "participants.tsv",
        *options, "--out", out, "--quiet",
    )  # fmt: skip


def cells(study):
    return (*COVARIATES, "--cells", study / "cells.tsv")


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """All tests, with the report."""
    out = tmp_path_factory.mktemp("whole") / "tests.parquet"
    options = ("--annotation", study / "annotation.tsv", "--blood-brain", study / "blood_brain.tsv")
    assert run(study, out, *cells(study), *options, "--report", out.parent / "report", "--empirical-null") == 0
    return out


def matrix(study):
    table = pd.read_parquet(study / "methylation.parquet").set_index("feature")
    people = pd.read_csv(study / "participants.tsv", sep="\t", index_col=0)
    return table, people.loc[table.columns]


def test_planted_associations_are_found(study, whole):
    found = pd.read_parquet(whole)
    truth = pd.read_csv(study / "truth.tsv", sep="\t")
    assert len(found) == 2 * G
    joined = truth.merge(found, on=["trait", "feature"], suffixes=("_true", ""))
    alone = joined[joined["region"] == 0]
    assert (alone["q_bh"] < 0.05).all()
    assert (np.abs(alone["beta"] - alone["beta_true"]) < 4 * alone["standard_error"]).mean() > 0.9
    planted = set(zip(truth["trait"], truth["feature"], strict=True))
    strong = found[found["p_bonferroni"] < 0.01]
    false = [row for row in zip(strong["trait"], strong["feature"], strict=True) if row not in planted]
    assert len(false) <= 1
    traits = pd.read_csv(whole.parent / "report" / "traits.tsv", sep="\t")
    # The median of 1,000 tests in islands of five is known to 10 %.
    assert traits["lambda_gc"].between(0.7, 1.3).all()
    assert traits["null_inflation"].between(0.85, 1.15).all()
    regions = pd.read_csv(whole.parent / "report" / "regions.tsv", sep="\t")
    annotation = pd.read_csv(study / "annotation.tsv", sep="\t")
    islands = truth[truth["region"] > 0].merge(annotation, on="feature")
    islands = islands.groupby(["trait", "region"])["gene"].first().reset_index()
    significant = regions[regions["p_bonferroni"] < 0.05]
    hit = [
        ((significant["trait"] == t) & (significant["gene_name"] == g)).any()
        for t, g in islands[["trait", "gene"]].values
    ]
    assert all(hit)
    assert (significant["stop"] > significant["start"]).all()


def test_every_number_is_that_of_one_regression(study, whole):
    """M values, winsorised, of the people who have the CpG; the last cell type follows from the others."""
    table, people = matrix(study)
    found = pd.read_parquet(whole).set_index(["trait", "feature"])
    traits = pd.read_csv(study / "traits.tsv", sep="\t", index_col=0).loc[table.columns]
    proportions = pd.read_csv(study / "cells.tsv", sep="\t", index_col=0).loc[table.columns]
    covariates = np.column_stack(
        [
            people["age"],
            people["sex"] == "M",
            people["smoking"],
            pd.get_dummies(people["plate"]).to_numpy()[:, 1:],
            proportions.iloc[:, :-1],
        ]
    ).astype(float)
    values = naive_winsorise(m_values(table.to_numpy()), 3.0)
    lacking = np.flatnonzero(table.isna().any(axis=1))
    priors = pd.read_csv(whole.parent / "report" / "traits.tsv", sep="\t", index_col=0)
    for k in (*range(0, G, 101), *lacking[:6]):
        for trait in traits:
            n, df, beta, error, s2 = naive_pair(values[k], traits[trait].to_numpy(), covariates)
            row = found.loc[(trait, table.index[k])]
            assert row["n"] == n
            assert row["beta"] == pytest.approx(beta, rel=1e-8)
            d0, s0 = priors.loc[trait, ["prior_degrees_of_freedom", "prior_variance"]]
            assert row["degrees_of_freedom"] == pytest.approx(df + d0)
            moderated = error * np.sqrt((d0 * s0 + df * s2) / (d0 + df) / s2)
            assert row["standard_error"] == pytest.approx(moderated, rel=1e-8)
            assert row["t"] == pytest.approx(beta / moderated, rel=1e-8)


def test_unmoderated_t_and_the_other_direction(study, tmp_path):
    table, people = matrix(study)
    traits = pd.read_csv(study / "traits.tsv", sep="\t", index_col=0).loc[table.columns]
    values = naive_winsorise(m_values(table.to_numpy()), 3.0)
    covariates = people[["age"]].to_numpy(float)
    for direction in ("feature", "trait"):
        out = tmp_path / f"{direction}.parquet"
        options = ("--covariates", "age", "--direction", direction, "--no-moderated", "--columns", "trait_1")
        assert run(study, out, *options) == 0
        found = pd.read_parquet(out).set_index("feature")
        for k in range(0, G, 97):
            n, df, beta, error, _ = naive_pair(values[k], traits["trait_1"].to_numpy(), covariates, direction)
            row = found.loc[table.index[k]]
            assert (row["n"], row["degrees_of_freedom"]) == (n, df)
            ours = row[["beta", "standard_error", "t"]].to_numpy(float)
            np.testing.assert_allclose(ours, [beta, error, beta / error], rtol=1e-7)


def same(first, second):
    a, b = read_results(first), read_results(second)
    assert a.names == b.names
    for name in a.names:
        if a[name].dtype.kind == "f":
            np.testing.assert_allclose(a[name], b[name], rtol=1e-7, atol=1e-10)
        else:
            np.testing.assert_array_equal(a[name], b[name])


def test_formats_and_memory_change_nothing(study, tmp_path):
    first = tmp_path / "first.parquet"
    assert run(study, first, *cells(study)) == 0
    table, _ = matrix(study)
    shuffled = table.iloc[:, ::-1]
    shuffled.to_csv(study / "features.tsv.gz", sep="\t", index_label="probe")
    shuffled.T.to_csv(study / "people.csv", index_label="participant_id")
    np.save(study / "m.npy", table.to_numpy().T)
    (study / "f.txt").write_text("\n".join(table.index) + "\n")
    (study / "p.txt").write_text("\n".join(table.columns) + "\n")
    for name in ("features.tsv.gz", "people.csv", "m.npy"):
        out = tmp_path / f"{name}.parquet"
        lists = ("--feature-names", study / "f.txt", "--participant-ids", study / "p.txt") if name == "m.npy" else ()
        assert run(study, out, *cells(study), *lists, methylation=name) == 0
        same(out, first)
    assert run(study, tmp_path / "small.parquet", *cells(study), "--memory", "40MiB") == 0
    same(tmp_path / "small.parquet", first)
    manifest = json.loads((tmp_path / "small.parquet.json").read_text())
    assert manifest["counts"]["features"] == G
    assert "Blood is not brain" in manifest["summary"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_executors_change_nothing(study, tmp_path, executor):
    options = (*cells(study), "--executor", executor, "--threads", 2)
    assert run(study, tmp_path / "first.parquet", *cells(study)) == 0
    assert run(study, tmp_path / "second.parquet", *options) == 0
    same(tmp_path / "second.parquet", tmp_path / "first.parquet")


def test_hits_keep_the_strong_and_the_summary_counts_all(study, whole, tmp_path):
    out = tmp_path / "hits.tsv"
    options = ("--hits", 1e-4, "--empirical-null", "--report", tmp_path / "report", "--figures", 0)
    assert run(study, out, *cells(study), *options) == 0
    everything, hits = pd.read_parquet(whole), pd.read_csv(out, sep="\t")
    wanted = everything[everything["neg_log10_p_corrected"] >= 4]
    assert hits["feature"].tolist() == wanted["feature"].tolist()
    np.testing.assert_allclose(hits["q_bh_corrected"], wanted["q_bh_corrected"])
    traits = pd.read_csv(tmp_path / "report" / "traits.tsv", sep="\t")
    assert traits["n_tests"].tolist() == [G, G]
    histogram = pd.read_parquet(tmp_path / "report" / "histogram.parquet")
    assert histogram.groupby("trait")["n_tests"].sum().tolist() == [G, G]
    for trait, rows in everything.groupby("trait"):
        null = traits.set_index("trait").loc[trait]
        t = (rows["t"] - null["null_bias"]) / null["null_inflation"]
        np.testing.assert_allclose(rows["beta_corrected"] / rows["standard_error_corrected"], t, rtol=1e-9, atol=1e-9)
    assert not list((tmp_path / "report").glob("*-qq.png"))
    # Nothing at all below the threshold is a table without rows.
    assert run(study, tmp_path / "none.parquet", *cells(study), "--hits", 1e-300) == 0
    assert len(pd.read_parquet(tmp_path / "none.parquet")) == 0


def test_report(whole):
    names = {p.name for p in (whole.parent / "report").iterdir()}
    assert {"traits.tsv", "regions.tsv", "failed.parquet", "histogram.parquet"} <= names
    for kind in ("qq", "volcano", "manhattan"):
        assert {f"trait_1-{kind}.png", f"trait_2-{kind}.png"} <= names
    found = pd.read_parquet(whole)
    assert found["blood_brain_r"].notna().all()
    assert (found["gene_name"] != "").all()


def test_without_cells_the_scan_is_inflated_and_the_reference_mends_it(study, tmp_path):
    def lambdas(*options):
        report = tmp_path / f"report{len(list(tmp_path.iterdir()))}"
        assert run(study, report.with_suffix(".parquet"), *options, "--report", report, "--figures", 0) == 0
        return pd.read_csv(report / "traits.tsv", sep="\t")["lambda_gc"].to_numpy(), report

    bare, _ = lambdas("--covariates", "age")
    given, report = lambdas(*COVARIATES, "--cell-reference", study / "reference.tsv")
    assert (bare > given + 0.2).all()
    ours = pd.read_csv(report / "cells.tsv", sep="\t", index_col=0)
    true = pd.read_csv(study / "cells.tsv", sep="\t", index_col=0).loc[ours.index]
    assert np.corrcoef(ours["Neu"], true["Neu"])[0, 1] > 0.9
    assert (ours["n_markers"] > 50).all()


def test_surrogates_take_the_place_of_unrecorded_plates(study, tmp_path):
    options = ("--covariates", "age", "--cells", study / "cells.tsv", "--surrogates", "auto")
    assert run(study, tmp_path / "a.parquet", *options, "--report", tmp_path / "r", "--figures", 1) == 0
    manifest = json.loads((tmp_path / "a.parquet.json").read_text())["counts"]
    components = pd.read_csv(tmp_path / "r" / "surrogates.tsv", sep="\t")
    assert 3 <= manifest["surrogates"] == components["kept"].sum() <= 10
    assert max(manifest["traits_explained_by_surrogates"].values()) < 0.6
    assert (tmp_path / "r" / "surrogates.png").stat().st_size > 5000
    assert run(study, tmp_path / "b.parquet", *options[:-1], 2) == 0
    assert json.loads((tmp_path / "b.parquet.json").read_text())["counts"]["surrogates"] == 2


def test_detection_lists_and_missing_features(study, tmp_path):
    table, _ = matrix(study)
    rng = np.random.default_rng(0)
    detection = pd.DataFrame(np.where(rng.random(table.shape) < 0.02, 0.5, 1e-12), table.index, table.columns)
    detection.iloc[5] = 1.0
    detection.iloc[:, ::-1].reset_index().to_parquet(tmp_path / "p.parquet")
    (tmp_path / "snp.txt").write_text("cg00000001\ncg00000002\nnot_there\n")
    options = ("--detection-p", tmp_path / "p.parquet", "--exclude", tmp_path / "snp.txt", "--columns", "trait_1")
    assert run(study, tmp_path / "a.tsv", *cells(study), *options, "--report", tmp_path / "r", "--figures", 0) == 3
    found = pd.read_csv(tmp_path / "a.tsv", sep="\t").set_index("feature")
    assert len(found) == G - 2
    row = found.loc[table.index[5]]
    assert row["status"] == "too few people"
    assert row[["beta", "t", "neg_log10_p", "q_bh"]].isna().all()
    known = table.notna() & (detection <= 0.01)
    assert (found["n"] == known.sum(axis=1)[found.index]).all()
    failed = pd.read_parquet(tmp_path / "r" / "failed.parquet")
    assert failed["feature"].tolist() == [table.index[5]]
    counts = json.loads((tmp_path / "a.tsv.json").read_text())["counts"]
    assert counts["features_excluded"] == 2
    assert counts["tests_without_result"] == 1
    # Another order of features is refused, by name.
    detection.iloc[::-1].reset_index().to_parquet(tmp_path / "p.parquet")
    assert run(study, tmp_path / "b.tsv", *cells(study), *options) == 2


def test_m_values_and_other_kinds(study, tmp_path):
    table, _ = matrix(study)
    pd.DataFrame(m_values(table.to_numpy()), table.index, table.columns).reset_index().to_parquet(study / "m.parquet")
    first, second = tmp_path / "beta.parquet", tmp_path / "m.parquet"
    assert run(study, first, *cells(study)) == 0
    assert run(study, second, *cells(study), "--kind", "m", methylation="m.parquet") == 0
    same(second, first)
    reference = ("--cell-reference", study / "reference.tsv", *COVARIATES)
    assert run(study, tmp_path / "c.parquet", *reference) == 0
    assert run(study, tmp_path / "d.parquet", *reference, "--kind", "m", methylation="m.parquet") == 0
    same(tmp_path / "d.parquet", tmp_path / "c.parquet")
    assert run(study, tmp_path / "keep.parquet", *cells(study), "--keep-betas", "--winsorise", "none") == 0
    betas, m = pd.read_parquet(tmp_path / "keep.parquet"), pd.read_parquet(first)
    assert betas["beta"].abs().median() < 0.2 * m["beta"].abs().median()
    assert run(study, tmp_path / "other.parquet", "--kind", "other", "--winsorise", "none") == 0
    assert "Blood" not in json.loads((tmp_path / "other.parquet.json").read_text())["summary"][-1]


def test_some_traits_fail_and_some_people_lack_things(study, tmp_path, capsys):
    traits = pd.read_csv(study / "traits.tsv", sep="\t").assign(flat=1.0)
    traits.loc[:30, "trait_2"] = np.nan
    traits.iloc[10:].to_csv(study / "some.tsv", sep="\t", index=False)
    assert run(study, tmp_path / "a.parquet", *cells(study), "--report", tmp_path / "r", traits="some.tsv") == 3
    table = pd.read_csv(tmp_path / "r" / "traits.tsv", sep="\t").set_index("trait")
    assert table.loc["flat", "status"] == "target has no variance"
    assert table["n"].tolist() == [N - 10, N - 31, N - 10]
    found = pd.read_parquet(tmp_path / "a.parquet")
    assert (found[found["trait"] == "flat"]["status"] == "trait is not tested").all()
    assert found[found["trait"] == "trait_2"]["n"].max() == N - 31


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("above", (), "expected betas in [0, 1], found 1.5 at 'cg00000011'"),
        ("twice", (), "found more than once: 'cg00000001'"),
        ("strangers", (), "no participant of the other tables names a column"),
        ("text", (), "expected numbers"),
        ("ragged", (), "expected 201 columns in every row"),
        ("people twice", (), "sub-0001"),
        ("", ("--covariates", "ages"), "names 'ages', which is not a column. Did you mean 'age'?"),
        ("", ("--columns", "trait_9"), "--columns: no column matches 'trait_9'"),
        ("", ("--winsorise", "tukey"), "expected none or tukey:K"),
        ("", ("--surrogates", "many"), "expected auto or a number"),
        ("", ("--surrogates", 400), "there is room for"),
        ("", ("--cell-reference", "reference.tsv", "--cells", "cells.tsv"), "expected one of them"),
        ("", ("--cell-reference", "strange.tsv"), "marker CpGs that"),
        ("", ("--annotation", "cells.tsv"), "expected columns feature, chromosome, position and gene"),
        ("", ("--annotation", "elsewhere.tsv"), "has a place for none of the features"),
        ("", ("--blood-brain", "annotation.tsv"), "expected columns feature and r"),
        ("", ("--keep-betas", "--kind", "m"), "--keep-betas goes with --kind beta"),
        ("", ("--rows", "people"), "as --rows says"),
        ("", ("--memory", "2MiB"), "Raise --memory"),
        ("", ("--feature-names", "traits.tsv"), "go with a .npy matrix"),
        ("", ("--detection-p", "few.tsv"), "expected detection p-values of everybody"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_leaves_nothing(study, change, options, message, tmp_path, capsys):
    (study / "strange.tsv").write_text("CpG\tA\tB\nx1\t0.1\t0.2\nx2\t0.3\t0.9\n")
    (study / "elsewhere.tsv").write_text("Name\tCHR\tMAPINFO\nx1\t1\t100\n")
    (study / "few.tsv").write_text("feature\tsub-0001\ncg00000001\t0.001\n")
    table, _ = matrix(study)
    some = table.iloc[:60].copy()
    text = None
    if change == "above":
        some.iloc[10, 3] = 1.5
    elif change == "twice":
        some = pd.concat([some, some.iloc[:1]])
    elif change == "strangers":
        some.columns = [f"x{k}" for k in range(some.shape[1])]
    elif change:
        lines = some.to_csv(sep="\t").splitlines()
        if change == "text":
            lines[5] = lines[5].replace(lines[5].split("\t")[4], "unknown")
        elif change == "ragged":
            lines[5] += "\t0.3"
        else:
            lines[0] = lines[0].replace("sub-0002", "sub-0001")
        text = "\n".join(lines) + "\n"
    (tmp_path / "bad.tsv").write_text(text if text is not None else some.to_csv(sep="\t"))
    path = tmp_path / "bad.tsv" if change else study / "methylation.parquet"
    known = {"reference.tsv", "cells.tsv", "strange.tsv", "annotation.tsv", "elsewhere.tsv", "traits.tsv", "few.tsv"}
    given = [study / o if o in known else o for o in options]
    out = tmp_path / "out"
    code = code_of(
        "associate", "epigenome", path, study / "traits.tsv", "--participants", study / "participants.tsv", *given,
        "--out", out / "x.parquet", "--report", out / "r", "--quiet",
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2, error
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()


def features(path, n, g):
    """Write g features of n people, a part at a time, with a few missing."""
    rng = np.random.default_rng(0)
    people = [f"p{k}" for k in range(n)]
    schema = pa.schema([("feature", pa.string()), *((p, pa.float64()) for p in people)])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, g, 2000):
            values = rng.random((n, min(2000, g - first)))
            values[rng.random(values.shape) < 0.001] = np.nan
            names = [f"cg{k}" for k in range(first, first + values.shape[1])]
            writer.write_table(pa.table({"feature": names, **dict(zip(people, values, strict=True))}))
    traits = {f"t{k}": rng.normal(size=n) for k in range(6)}
    pd.DataFrame({"participant_id": people, **traits}).to_csv(path.with_suffix(".tsv"), sep="\t", index=False)


@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    """40,000 CpGs of 2,000 people are 610 MiB."""
    features(tmp_path / "small.parquet", 60, 300)
    features(tmp_path / "large.parquet", 2000, 40_000)

    def command(name):
        covariates = ("--columns", "t0,t1,t2,t3", "--covariates", "t4 + t5")
        return "associate", "epigenome", tmp_path / f"{name}.parquet", tmp_path / f"{name}.tsv", *covariates

    for limit in (256, 512):
        (tmp_path / f"{limit}").mkdir()
        code, peak, message, _ = measure(tmp_path / f"{limit}", command("small"), command("large"), limit)
        assert code == 0, message
        assert peak <= limit * MIB, f"{peak / MIB:.0f} MiB of {limit}"
    code, _, message, out = measure(tmp_path, command("small"), command("large"), 48)
    assert code == 2
    assert "Raise --memory" in message
    assert not out.exists()
