"""The cohort's and images' commands, from maps to signatures, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, Volume
from brainlocus.images.atlas import adjusted_rand
from brainlocus.io import (
    read_parcellation,
    read_results,
    read_table,
    write_table,
    write_volume,
)
from brainlocus.pipeline.models import read_arrays, write_arrays
from tests.real_data import abide

SHAPE, AFFINE = (10, 11, 9), np.diag([4.0, 4, 4, 1])
N, SITES, PARCELS = 90, 3, 4


def code_of(*arguments) -> int:
    """Run the command line and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def run(capsys, *arguments):
    """Return exit code and what was printed to standard error."""
    code = code_of(*arguments)
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Ninety people with four planted parcels, three sites, a diagnosis and phenotypes."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    parcels = np.zeros(SHAPE, dtype=np.int32)
    parcels[1:9, 1:10, 1:8] = 1 + (np.arange(1, 9)[:, None, None] > 4) + 2 * (np.arange(1, 10)[None, :, None] > 5)
    grey = rng.uniform(0.4, 0.9, SHAPE) * (parcels > 0)
    site, diagnosis = np.arange(N) % SITES, (rng.uniform(size=N) < 0.45).astype(float)
    age = rng.uniform(20, 80, N)
    score = rng.standard_normal((N, PARCELS)) - 0.02 * (age[:, None] - 50)
    score[:, 0] -= 2.0 * diagnosis
    shift = rng.normal(0, 1.5, (SITES, PARCELS))
    ids = [f"sub-{k:03d}" for k in range(N)]
    for k, participant in enumerate(ids):
        factor = 1 + 0.05 * (score[k] + shift[site[k]])
        data = grey * np.concatenate([[0.0], factor])[parcels] * (1 + 0.01 * rng.standard_normal(SHAPE))
        path = root / "bids" / participant / "anat" / f"{participant}_label-GM_probseg.nii.gz"
        write_volume(Volume(np.maximum(data, 0).astype(np.float32), AFFINE, "grey_matter"), path)
    people = SampleIndex.of(ids)
    site_names = np.array([f"site{s}" for s in site])
    columns = (
        Column("age", age),
        Column("site", site_names, "categorical"),
        Column("diagnosis", diagnosis, "binary"),
    )
    write_table(PhenotypeTable(people, columns), root / "participants.tsv")
    noise = rng.standard_normal((N, 3))
    phenotypes = (Column("cognition", score[:, 1] + 0.3 * noise[:, 0]), Column("noise", noise[:, 1]))
    rare = Column("rare", (np.arange(N) < 4).astype(float), "binary")
    write_table(PhenotypeTable(people, (*phenotypes, rare)), root / "phenotypes.tsv")
    (root / "categories.tsv").write_text("phenotype\tcategory\ncognition\tmind\nnoise\tother\nrare\tother\n")
    np.save(root / "truth.npy", parcels)
    return root


@pytest.fixture(scope="module")
def atlas(study):
    assert code_of("atlas", "fit", study / "bids", "--scales", "2,4", "--out", study / "atlas", "--quiet") == 0
    return study / "atlas"


@pytest.fixture(scope="module")
def idps(study, atlas):
    out = study / "idps.parquet"
    assert code_of("idp", "extract", study / "bids", "--atlas", atlas, "--out", out, "--quiet") == 0
    return out


def test_atlas_fit_writes_what_the_contract_says(study, atlas):
    truth = np.load(study / "truth.npy")
    labels = read_parcellation(atlas / "C4/labels.nii.gz")
    inside = truth > 0
    assert adjusted_rand(truth[inside], labels.labels[inside].astype(np.int64)) > 0.95
    assert labels.names == {k: f"C4_{k}" for k in range(1, 5)}
    components = np.load(atlas / "C4/components.npy")
    assert components.shape == (int(inside.sum()), 4)
    np.testing.assert_allclose((components.astype(float) ** 2).sum(axis=0), 1.0, rtol=1e-5)
    report = json.loads((atlas / "C4/fit.json").read_text())
    assert report["converged"]
    assert (np.diff(report["losses"]) <= 0).all()
    assert 0 < report["relative_loss"] < 0.1
    manifest = json.loads((study / "atlas.json").read_text())
    assert manifest["step"] == "atlas fit"
    assert manifest["counts"]["participants"] == N
    assert "C4_4" in (atlas / "C4" / "labels_lut.txt").read_text()
    for name in ("atlas.png", "components.png", "loss.png"):
        assert (atlas / "C4" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_atlas_fit_is_the_same_on_every_executor(study, atlas, capsys):
    code, _ = run(
        capsys, "atlas", "fit", study / "bids", "--scales", "2,4", "--out", study / "again", "--executor", "threads",
        "--memory", "40MB", "--quiet",
    )  # fmt: skip
    assert code == 0
    for scale in ("C2", "C4"):
        for name in ("labels.nii.gz", "components.npy", "atlas.png"):
            assert (study / "again" / scale / name).read_bytes() == (atlas / scale / name).read_bytes()


def test_interrupted_fit_resumes_to_the_same_files(study, atlas, capsys, monkeypatch):
    from brainlocus.pipeline.steps import atlas as step

    whole = step.fit_scale

    def stop_at_the_second(task, path):
        if task.scale == 4:
            raise KeyboardInterrupt
        whole(task, path)

    arguments = ["atlas", "fit", study / "bids", "--scales", "2,4", "--out", study / "resumed", "--quiet"]
    monkeypatch.setattr(step, "fit_scale", stop_at_the_second)
    code, _ = run(capsys, *arguments)
    assert code == 130
    assert not (study / "resumed").exists()
    monkeypatch.undo()
    monkeypatch.setattr(step, "convert_images", None)  # must not be read again
    code, _ = run(capsys, *arguments, "--resume")
    assert code == 0
    for scale in ("C2", "C4"):
        names = ("labels.nii.gz", "components.npy", "loadings.npy", "labels.json", "labels_lut.txt")
        for name in (*names, "atlas.png", "components.png", "loss.png"):
            assert (study / "resumed" / scale / name).read_bytes() == (atlas / scale / name).read_bytes()
    here, there = (json.loads((study / f"{name}.json").read_text()) for name in ("resumed", "atlas"))
    assert here["counts"] == there["counts"]


def test_idp_extract_sums_agree_across_scales(idps):
    table = read_table(idps)
    assert table.names == ("C2_1", "C2_2", "C4_1", "C4_2", "C4_3", "C4_4")
    two, four = table.matrix(table.names[:2]), table.matrix(table.names[2:])
    np.testing.assert_allclose(two.sum(axis=1), four.sum(axis=1), rtol=1e-12)


def test_harmonise_fit_then_apply(study, idps, capsys):
    model, report = study / "model.npz", study / "report"
    common = ["--participants", study / "participants.tsv", "--quiet"]
    code, _ = run(
        capsys, "cohort", "harmonise", idps, "--batch", "site", "--preserve", "age", "--traits", "C4_*",
        "--model", model, "--report", report, "--out", study / "clean.parquet", *common,
    )  # fmt: skip
    assert code == 0
    counts = json.loads((study / "clean.parquet.json").read_text())["counts"]
    assert counts["before"]["mean_eta2"] > 0.1
    assert counts["after"]["mean_eta2"] < 0.01
    assert counts["traits"] == 4
    before, after = read_table(idps), read_table(study / "clean.parquet")
    assert after.names == before.names
    np.testing.assert_array_equal(after.column("C2_1").values, before.column("C2_1").values)
    code, _ = run(
        capsys, "cohort", "harmonise", idps, "--apply", model, "--out", study / "applied.parquet", *common
    )  # fmt: skip
    assert code == 0
    assert (study / "applied.parquet").read_bytes() == (study / "clean.parquet").read_bytes()
    assert (report / "sites.png").stat().st_size > 5000
    assert len((report / "features.tsv").read_text().splitlines()) == 5


def test_harmonise_with_a_smooth_covariate(study, idps, tmp_path, capsys):
    model, report = tmp_path / "gam.npz", tmp_path / "report"
    common = ["--participants", study / "participants.tsv", "--quiet"]
    people = read_table(study / "participants.tsv")
    train = tmp_path / "train.txt"
    train.write_text("\n".join(people.samples.ids[:60].tolist()) + "\n")
    code, _ = run(
        capsys, "cohort", "harmonise", idps, "--smooth", "age:5:97", "--traits", "C4_*", "--fit-on", train,
        "--model", model, "--report", report, "--out", tmp_path / "clean.parquet", *common,
    )  # fmt: skip
    assert code == 0
    counts = json.loads((tmp_path / "clean.parquet.json").read_text())["counts"]
    assert counts["after"]["mean_eta2"] < 0.1 < counts["before"]["mean_eta2"]
    assert counts["people_fitted"] == 60
    assert (counts["smooth"]["age"]["from"], counts["smooth"]["age"]["to"]) == (5, 97)
    assert counts["extrapolated"] == {}
    header = (report / "features.tsv").read_text().splitlines()[0].split("\t")
    assert header[-2:] == ["edf_age", "weight_age"]
    assert (report / "curves_age.png").stat().st_size > 5000
    # --preserve may name the covariate too, and applying gives the same bytes.
    code, _ = run(
        capsys, "cohort", "harmonise", idps, "--preserve", "age", "--smooth", "age:5:97", "--traits", "C4_*",
        "--fit-on", train, "--out", tmp_path / "named.parquet", *common,
    )  # fmt: skip
    assert code == 0
    arguments = ["cohort", "harmonise", idps, "--apply", model, *common]
    assert run(capsys, *arguments, "--out", tmp_path / "applied.parquet")[0] == 0
    for name in ("named", "applied"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()
    # Older people than the model knows are counted.
    older = people.column("age").values + 30.0
    write_table(people.replace_values(("age",), older[:, None]), tmp_path / "older.tsv")
    code, errors = run(
        capsys, "cohort", "harmonise", idps, "--apply", model, "--participants", tmp_path / "older.tsv",
        "--out", tmp_path / "older.parquet",
    )  # fmt: skip
    assert code == 0
    beyond = int((older > 97).sum())
    assert beyond > 0
    assert f"{beyond} people have age outside 5 to 97" in " ".join(errors.split())
    assert json.loads((tmp_path / "older.parquet.json").read_text())["counts"]["extrapolated"] == {"age": beyond}


def test_models_of_the_first_version_are_read_and_of_a_later_one_refused(study, idps, tmp_path, capsys):
    common = ["--participants", study / "participants.tsv", "--quiet"]
    model = tmp_path / "model.npz"
    arguments = ["cohort", "harmonise", idps, "--preserve", "age", "--traits", "C4_*"]
    assert run(capsys, *arguments, "--model", model, "--out", tmp_path / "clean.parquet", *common)[0] == 0
    meta, arrays = read_arrays(model)
    first = {name: value for name, value in meta.items() if name != "smooth"}
    first |= {"version": 1, "options": {k: v for k, v in meta["options"].items() if k != "smooth"}}
    write_arrays(first, arrays, tmp_path / "first.npz")
    apply = ["cohort", "harmonise", idps, *common, "--apply"]
    assert run(capsys, *apply, tmp_path / "first.npz", "--out", tmp_path / "applied.parquet")[0] == 0
    assert (tmp_path / "applied.parquet").read_bytes() == (tmp_path / "clean.parquet").read_bytes()
    write_arrays(meta | {"version": 3}, arrays, tmp_path / "later.npz")
    code, errors = run(capsys, *apply, tmp_path / "later.npz", "--out", tmp_path / "x.parquet")
    assert code == 2
    assert "expected a brainlocus-combat model of version 1 to 2, found 'brainlocus-combat' version 3" in errors


def test_prepare_and_phenome(study, idps, capsys):
    code, _ = run(
        capsys, "cohort", "prepare", idps, "--participants", study / "participants.tsv", "--confounds",
        "age + C(site)", "--report", study / "prepared", "--out", study / "prepared.tsv", "--quiet",
    )  # fmt: skip
    assert code == 0
    prepared = read_table(study / "prepared.tsv")
    people = read_table(study / "participants.tsv")
    values, age = prepared.column("C4_1").values, people.column("age").values
    kept = ~np.isnan(values)
    assert abs(np.corrcoef(values[kept], age[kept])[0, 1]) < 1e-10
    assert len((study / "prepared/traits.tsv").read_text().splitlines()) == 7
    code, errors = run(
        capsys, "associate", "phenome", study / "prepared.tsv", study / "phenotypes.tsv", "--categories",
        study / "categories.tsv", "--report", study / "phenome", "--out", study / "phenome.parquet", "--quiet",
    )  # fmt: skip
    assert code == 3
    assert "6 items have no result" in errors
    results = read_results(study / "phenome.parquet")
    assert (results["status"][results["phenotype"] == "rare"] == "fewer than 10 in a class").all()
    best = int(np.nanargmax(results["neg_log10_p"]))
    assert results["phenotype"][best] == "cognition"
    assert results["category"][best] == "mind"
    assert results["p_bonferroni"][best] < 1e-6
    assert (study / "phenome/manhattan.png").stat().st_size > 5000
    assert read_results(study / "phenome/top.tsv")["phenotype"][0] == "cognition"


def test_signature_train_and_apply(study, idps, capsys):
    common = ["--participants", study / "participants.tsv", "--quiet"]
    code, _ = run(
        capsys, "signature", "train", idps, "--diagnosis", "diagnosis", "--covariates", "age", "--batch", "site",
        "--traits", "C4_*", "--repeats", 5, "--inner-folds", 4, "--out", study / "signature", *common,
    )  # fmt: skip
    assert code == 0
    performance = json.loads((study / "signature/performance.json").read_text())
    assert performance["balanced_accuracy"]["mean"] > 0.65
    scores = read_results(study / "signature/scores.parquet")
    assert scores.names == ("participant_id", "repeat", "score", "diagnosis")
    assert len(scores) == 5 * performance["n_test"]
    code, _ = run(capsys, "signature", "apply", study / "signature", idps, "--out", study / "new.tsv", *common)
    assert code == 0
    new = read_results(study / "new.tsv")
    assert len(new) == N
    assert np.isfinite(new["score"]).all()
    diagnosis = read_table(study / "participants.tsv").column("diagnosis").values
    assert new["score"][diagnosis == 1].mean() > new["score"][diagnosis == 0].mean()
    with np.load(study / "signature/model.npz", allow_pickle=False) as model:
        assert model["weights"].shape == (4,)


def test_signature_with_a_curve_harmonises_new_people_with_the_stored_model(study, idps, tmp_path, capsys):
    common = ["--participants", study / "participants.tsv", "--quiet"]
    code, errors = run(
        capsys, "signature", "train", idps, "--diagnosis", "diagnosis", "--batch", "site", "--smooth", "age:5:97",
        "--traits", "C4_*", "--repeats", 3, "--inner-folds", 4, "--out", tmp_path / "curved", *common,
    )  # fmt: skip
    assert code == 0, errors
    meta = json.loads((tmp_path / "curved/model.json").read_text())
    assert meta["combat"]["smooth"] == ["age"]
    assert meta["combat"]["options"]["smooth"][0]["bounds"] == [5, 97]
    code, _ = run(capsys, "signature", "apply", tmp_path / "curved", idps, "--out", tmp_path / "new.tsv", *common)
    assert code == 0
    # By hand: the same ComBat-GAM on everyone, then the stored scaling and weights.
    code, _ = run(
        capsys, "cohort", "harmonise", idps, "--smooth", "age:5:97", "--traits", "C4_*", "--out",
        tmp_path / "clean.tsv", *common,
    )  # fmt: skip
    assert code == 0
    clean = read_table(tmp_path / "clean.tsv").matrix(meta["features"])
    with np.load(tmp_path / "curved/model.npz", allow_pickle=False) as model:
        expected = (clean - model["centre"]) / model["spread"] @ model["weights"] + meta["intercept"]
    np.testing.assert_allclose(read_results(tmp_path / "new.tsv")["score"], expected, atol=1e-8)


BAD = {
    "curve without sites": (
        [
            *["signature", "train", "{idps}", "--diagnosis", "diagnosis", "--smooth", "age"],
            *["--participants", "{people}"],
        ],
        "give the column of the site, --batch",
    ),
    "curve of the diagnosis": (
        [
            *["signature", "train", "{idps}", "--diagnosis", "diagnosis", "--smooth", "diagnosis", "--batch", "site"],
            *["--participants", "{people}"],
        ],
        "which would leak the answer",
    ),
    "curve of text": (
        [
            *["signature", "train", "{idps}", "--diagnosis", "diagnosis", "--smooth", "site", "--batch", "site"],
            *["--participants", "{people}"],
        ],
        "--smooth: expected a column of numbers, but 'site' holds text",
    ),
    "solver": (["atlas", "fit", "{bids}", "--solver", "nmf"], "'em', 'mu' or 'em+mu'; found 'nmf'"),
    "singular vectors": (["atlas", "fit", "{bids}", "--solver", "mu", "--scales", "200"], "Give --start seeds"),
    "scale above voxels": (["atlas", "fit", "{bids}", "--scales", "5000"], "5000 components need as many voxels"),
    "scale twice": (["atlas", "fit", "{bids}", "--scales", "4,4"], "expected different numbers"),
    "memory": (["atlas", "fit", "{bids}", "--memory", "200kB"], "Raise --memory"),
    "no images": (["atlas", "fit", "{bids}", "--pattern", "*.mgz"], "no image matches"),
    "other grid": (["idp", "extract", "{bids}", "--atlas", "{other}"], "has shape (10, 11, 9), expected (3, 3, 3)"),
    "not labels": (["idp", "extract", "{bids}", "--atlas", "{map}"], "expected integer labels"),
    "trait": (["cohort", "prepare", "{idps}", "--traits", "C4_9"], "no column matches 'C4_9'"),
    "outliers": (["cohort", "prepare", "{idps}", "--outliers", "sd:3"], "expected mad:K"),
    "confound": (["cohort", "prepare", "{idps}", "--confounds", "agee", *["--participants", "{people}"]], "'agee'"),
    "batch": (["cohort", "harmonise", "{idps}"], "There is no column 'site'"),
    "confounded": (
        ["cohort", "harmonise", "{idps}", "--preserve", "C(site)", *["--participants", "{people}"]],
        "is confounded with the sites",
    ),
    "stateful": (
        ["cohort", "harmonise", "{idps}", "--preserve", "scale(age)", *["--participants", "{people}"]],
        "scale() depends on the people at hand",
    ),
    "smooth": (
        ["cohort", "harmonise", "{idps}", "--smooth", "age:97:5", *["--participants", "{people}"]],
        "--smooth: expected NAME or NAME:LOW:HIGH, as in age:5:97, found 'age:97:5'",
    ),
    "smooth column": (["cohort", "harmonise", "{idps}", "--smooth", "agee", *["--participants", "{people}"]], "'agee'"),
    "smooth bounds": (
        ["cohort", "harmonise", "{idps}", "--smooth", "age:30:70", *["--participants", "{people}"]],
        "Bounds 30 to 70 of the smooth covariate 'age' leave out",
    ),
    "smooth twice": (
        ["cohort", "harmonise", "{idps}", "--smooth", "age", "--preserve", "I(age/10)", "--participants", "{people}"],
        "are combinations of the other covariates",
    ),
    "fit on": (
        ["cohort", "harmonise", "{idps}", "--fit-on", "{strangers}", *["--participants", "{people}"]],
        "none of its 2 participants",
    ),
    "model": (
        ["cohort", "harmonise", "{idps}", "--apply", "{idps}", *["--participants", "{people}"]],
        "expected a model written by brainlocus",
    ),
    "ids": (["associate", "phenome", "{idps}", "{strangers}"], "No participant id is shared"),
    "leak": (
        [
            *["signature", "train", "{idps}", "--diagnosis", "diagnosis", "--covariates", "age+diagnosis"],
            *["--participants", "{people}"],
        ],
        "which would leak the answer",
    ),
    "classes": (
        ["signature", "train", "{idps}", "--diagnosis", "age", *["--participants", "{people}"]],
        "has 90 distinct values",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_nothing_half_written(study, idps, case, capsys, tmp_path):
    arguments, message = BAD[case]
    write_volume(Volume(np.ones((3, 3, 3), dtype=np.float32), AFFINE, ""), tmp_path / "other.nii")
    strangers = PhenotypeTable(SampleIndex.of(["x", "y"]), (Column("a", np.array([1.0, 2.0])),))
    write_table(strangers, tmp_path / "strangers.tsv")
    paths = {
        "bids": study / "bids",
        "other": tmp_path / "other.nii",
        "map": study / "bids/sub-000/anat/sub-000_label-GM_probseg.nii.gz",
        "idps": idps,
        "people": study / "participants.tsv",
        "strangers": tmp_path / "strangers.tsv",
    }
    out = tmp_path / "out" / "result.parquet"
    code, errors = run(capsys, *[str(a).format(**paths) for a in arguments], "--out", out, "--quiet")
    assert code == 2, errors
    assert message in errors
    assert "Traceback" not in errors
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_damaged_image_is_named(study, capsys, tmp_path):
    source = next((study / "bids").glob("sub-000/anat/*.nii.gz"))
    bad = tmp_path / "bids/sub-000/anat" / source.name
    bad.parent.mkdir(parents=True)
    bad.write_bytes(source.read_bytes()[:-300])
    code, errors = run(capsys, "atlas", "fit", tmp_path / "bids", "--out", tmp_path / "a", "--quiet")
    assert code == 2
    assert "truncated or damaged" in errors
    assert str(bad) in errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bids"]


def test_abide_through_the_command_line(capsys, tmp_path):
    """Issue 2's real input: site eta^2 0.208 before, about 0.011 after; then a signature of sex."""
    table, names = abide()
    columns = ["subject_id", "site", "age", "sex", "asd", *names]
    table[columns].to_csv(tmp_path / "abide.csv", index=False)
    code, _ = run(
        capsys, "cohort", "harmonise", tmp_path / "abide.csv", "--batch", "site", "--preserve", "age + sex + asd",
        "--nuisance", "age + I(age**2) + I(age**3) + sex + asd",
        "--report", tmp_path / "sites", "--model", tmp_path / "m.npz", "--out", tmp_path / "clean.parquet", "--quiet",
    )  # fmt: skip
    assert code == 0
    counts = json.loads((tmp_path / "clean.parquet.json").read_text())["counts"]
    assert (counts["participants"], counts["traits"], len(counts["sites"])) == (1031, 201, 34)
    assert counts["before"]["mean_eta2"] == pytest.approx(0.208, abs=5e-4)
    assert counts["after"]["mean_eta2"] == pytest.approx(0.0107, abs=5e-5)
    code, _ = run(
        capsys, "cohort", "harmonise", tmp_path / "abide.csv", "--preserve", "sex + asd", "--smooth", "age",
        "--report", tmp_path / "curves", "--out", tmp_path / "gam.parquet", "--quiet",
    )  # fmt: skip
    assert code == 0
    counts = json.loads((tmp_path / "gam.parquet.json").read_text())["counts"]
    assert counts["traits"] == 201
    assert counts["after"]["mean_eta2"] < 0.005
    code, _ = run(
        capsys, "signature", "train", tmp_path / "abide.csv", "--diagnosis", "sex", "--patient", "M", "--batch", "site",
        "--preserve", "age", "--traits", "*_thickness", "--repeats", 2, "--inner-folds", 2, "--out", tmp_path / "sex",
        "--quiet",
    )  # fmt: skip
    assert code == 0
    performance = json.loads((tmp_path / "sex/performance.json").read_text())
    assert performance["balanced_accuracy"]["mean"] > 0.55


def test_a_drawn_split_shares_every_stratum_alike(study, tmp_path, capsys):
    def parts(seed, *more, name="parts"):
        out = tmp_path / f"{name}{seed}{len(more)}"
        drawn = ("--fraction", "0.6", "--seed", seed, "--out", out, "--quiet", *more)
        assert code_of("cohort", "split", study / "participants.tsv", *drawn) == 0
        return [set((out / f"{name}.txt").read_text().split()) for name in ("discovery", "replication")]

    discovery, replication = parts(1, "--within", "site,diagnosis,age")
    table = read_table(study / "participants.tsv")
    assert discovery | replication == set(table.samples.ids.tolist())
    assert not discovery & replication
    assert abs(len(discovery) - 0.6 * N) <= 1
    chosen = np.array([i in discovery for i in table.samples.ids.tolist()])
    site = table.column("site").values
    for name in np.unique(site):  # the first column named is the outermost: its levels are runs of the order
        assert abs(chosen[site == name].sum() - 0.6 * (site == name).sum()) <= 1
        for case in (0.0, 1.0):
            stratum = (site == name) & (table.column("diagnosis").values == case)
            assert abs(chosen[stratum].sum() - 0.6 * stratum.sum()) <= 1
    assert parts(2)[0] != parts(3)[0]
    assert parts(2)[0] == parts(2, name="again")[0]
    code, message = run(
        capsys, "cohort", "split", study / "participants.tsv", "--within", "site", "--out", tmp_path / "x"
    )
    assert code == 2
    assert "give --fraction too" in message
