"""``store build`` after ``gwas run --full``, through the command line, and what the portal then answers."""

import json
import warnings
from contextlib import closing

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import ArrayGenotypes, Parcellation, ResultTable, SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import read_results, write_results, write_table
from brainlocus.io.bed import BedWriter
from brainlocus.io.nifti import write_parcellation
from brainlocus.pipeline.full_store import read_full
from brainlocus.portal import create_app
from brainlocus.store import LocalStore, verify

N, M, CAUSAL = 300, 400, 123


def code_of(*arguments):
    """Run the command line and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def run(capsys, *arguments):
    """Return the exit code and what was printed to standard error."""
    code = code_of(*arguments)
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Genotypes, three traits of which two are regions of an atlas, and tables as the other commands write them."""
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(5)
    people = SampleIndex.of([f"P{k}" for k in range(N)])
    variants = VariantTable(
        np.repeat(np.array(["1", "2"]), M // 2),
        np.tile(np.arange(1, M // 2 + 1) * 10_000, 2),
        text_array(["A"] * M),
        text_array(["G"] * M),
        text_array([f"rs{k}" for k in range(M)]),
        "GRCh38",
    )
    frequency = rng.uniform(0.05, 0.95, M)
    dosage = rng.binomial(2, frequency[:, None], (M, N)).astype(np.float32)
    dosage[7] = 0.0
    source = ArrayGenotypes(people, variants, dosage)
    with BedWriter(root / "cohort", people, variants) as writer:
        writer.append(source.dosage)
    values = rng.standard_normal((N, 3))
    values[:, 0] += 0.9 * (dosage[CAUSAL] - dosage[CAUSAL].mean())
    write_table(quantitative_table(people, ["C2_1", "C2_2", "height"], values), root / "traits.parquet")
    labels = np.zeros((8, 9, 7), dtype=np.int32)
    labels[1:4, 1:8, 1:6], labels[4:7, 1:8, 1:6] = 1, 2
    affine = np.diag([20.0, 20.0, 20.0, 1.0])
    affine[:3, 3] = (-80, -110, -60)
    (root / "atlas" / "C2").mkdir(parents=True)
    write_parcellation(Parcellation(labels, affine, {1: "C2_1", 2: "C2_2"}), root / "atlas" / "C2" / "labels.nii.gz")
    traits = np.array(["C2_1", "C2_2", "only_h2"])
    write_results(
        ResultTable(
            {
                "trait": traits,
                "n": np.full(3, N),
                "h2": np.array([0.4, 0.1, np.nan]),
                "h2_standard_error": np.array([0.1, 0.1, np.nan]),
            }
        ),
        root / "h2.parquet",
    )
    named = {"trait": traits, "participant_id": np.array(["P1", "P2", "P3"]), "n": np.full(3, N)}
    write_results(ResultTable(named), root / "people.parquet")
    (root / "signature").mkdir()
    figures = {"balanced_accuracy": {"mean": 0.7, "sd": 0.02, "standard_error": 0.03}, "n_train": 200, "n_test": 50}
    (root / "signature" / "performance.json").write_text(json.dumps({**figures, "repeats": 10}))
    return root


@pytest.fixture(scope="module")
def gwas(cohort):
    out = cohort / "gwas"
    inputs = (cohort / "cohort.bed", cohort / "traits.parquet")
    assert code_of("gwas", "run", *inputs, "--full", "--quiet", "--genome-build", "GRCh38", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def store(cohort, gwas):
    out = cohort / "store"
    options = ["--gwas", gwas, "--atlas", cohort / "atlas", "--heritability", cohort / "h2.parquet",
               "--signature", cohort / "signature", "--title", "Small", "--genome-build", "GRCh38",
               "--significant", "1e-7", "--quiet", "--out", out]  # fmt: skip
    assert code_of("store", "build", *options) == 0
    return out


def test_store_is_sound_and_has_a_manifest(store):
    assert verify(store).ok
    manifest = json.loads(store.with_name("store.json").read_text())
    assert manifest["step"] == "store build"
    assert manifest["counts"]["phenotypes"] == 4


@pytest.fixture
def opened(store):
    with closing(LocalStore(store)) as reader:
        yield reader


def test_scans_come_back(opened, gwas):
    full = read_full(gwas / "full", "C2_1")
    assert opened.phenotype("only_h2")["has_gwas"] is False
    pid = opened.phenotype("C2_1")["pid"]
    variant = opened.find_variant(f"rs{CAUSAL}")
    row = int(np.flatnonzero(full["variant_id"] == f"rs{CAUSAL}")[0])
    found = {r["pid"]: r for r in opened.phewas(variant.vid)}[pid]
    assert found["beta"] == pytest.approx(full["beta"][row], rel=1.3e-4)
    assert found["neg_log10_p"] == pytest.approx(full["neg_log10_p"][row], rel=5e-4)
    assert opened.find_variant("rs7") is None, "a variant without variation has no result"
    traits = read_results(gwas / "traits.parquet")
    assert opened.phenotype("C2_1")["lambda_gc"] == pytest.approx(float(traits["lambda_gc"][0]))
    assert opened.loci(pid=pid).rows[0]["variant_id"] == f"rs{CAUSAL}"


def test_regions_meet_their_phenotypes(opened):
    row = opened.phenotype("C2_2")
    assert (row["scale"], row["parcel_index"], row["map_id"]) == (2, 2, "C-2")
    assert opened.phenotype("height")["map_id"] is None
    assert {m["kind"] for m in opened.maps} == {"template", "atlas"}
    assert opened.models[0]["value"] == 0.7
    assert opened.models[0]["lower"] == pytest.approx(0.7 - 1.96 * 0.03)


def test_portal_answers_over_it(store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient
    # As a context: leaving it shuts the application down, which closes the store.
    with TestClient(create_app(store)) as client:
        assert client.get("/api/v1/meta").json()["title"] == "Small"
        values = client.get(f"/api/v1/variants/rs{CAUSAL}/map").json()["values"]
    assert [v["parcel_index"] for v in values] == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give at least one of --gwas"),
        (["--loci", "atlas", "--heritability", "h2.parquet"], "give --gwas together with --loci"),
        (["--atlas", "signature"], r"expected C*/labels.nii.gz"),
        (["--heritability", "h2.parquet", "--signature", "atlas"], "expected performance.json"),
        (["--gwas", "nowhere"], "nowhere"),
        (["--heritability", "h2.parquet", "--min-cell", "2"], "greater than or equal to 5"),
        (["--heritability", "h2.parquet", "--precision", "half"], "half"),
        (["--phenome", "people.parquet"], "looks like a participant identifier"),
    ],
)
def test_bad_input_gives_one_message_and_leaves_nothing(cohort, capsys, tmp_path, options, message):
    paths = [str(cohort / o) if (cohort / o).exists() else o for o in options]
    code, err = run(capsys, "store", "build", *paths, "--quiet", "--out", tmp_path / "s")
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_scan_without_full_results_says_what_to_run(gwas, capsys, tmp_path):
    import shutil

    shutil.copytree(gwas, tmp_path / "gwas", ignore=shutil.ignore_patterns("full"))
    code, err = run(capsys, "store", "build", "--gwas", tmp_path / "gwas", "--quiet", "--out", tmp_path / "s")
    assert code == 2
    assert "gwas run --full" in err
    assert not (tmp_path / "s").exists()


def test_serving_what_is_no_store(capsys, tmp_path):
    code, err = run(capsys, "serve", tmp_path)
    assert code == 2
    assert "store.json" in err
