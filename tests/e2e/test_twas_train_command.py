"""``twas train`` through the command line: planted genes, PredictDB files, statuses, resuming, bad input."""

import gzip
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, find_covariance, read_covariance, read_expression_model, read_results
from tests.expression_study import write_expression_study


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_expression_study(tmp_path_factory.mktemp("study"))


def train(study, out, *options, tissues=("Cortex",)):
    files = [study.files[t] for t in tissues]
    return code_of(
        "twas", "train", study.genotypes, *files, "--genes", study.genes, "--covariates", study.covariates,
        "--genome-build", "GRCh38", "--window-kb", "100", *options, "--quiet", "--executor", "serial", "--out", out,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "models"
    assert train(study, out) == 3  # some genes have only a status
    return out


def test_planted_genes_have_models_and_others_a_status(trained):
    table = read_results(trained / "genes.parquet")
    status = dict(zip(table["gene"].tolist(), table["status"].tolist(), strict=True))
    assert status["G1.3"] == status["G2"] == "ok"
    assert status["G3"] in ("not_predictive", "no_variant_chosen")
    assert status["FLAT"] == "constant_expression"
    assert status["FAR"] == "no_variants"
    assert status["SCAFFOLD"] == "unknown_chromosome"
    assert status["NOWHERE"] == "not_annotated"
    assert "ELSEWHERE" not in status  # on a chromosome that has no genotypes
    row = table["gene"].tolist().index("G1.3")
    assert table["n"][row] == 110
    assert table["rho_avg"][row] > 0.4
    assert table["gene_name"][row] == "ALPHA"
    manifest = json.loads(trained.with_name("models.json").read_text())
    counts = manifest["counts"]
    assert counts["tissues"][0]["samples"] == 111
    assert counts["tissues"][0]["with_genotypes"] == 110
    assert counts["tissues"][0]["with_covariates"] == 110
    assert counts["variants_palindromic"] == 1
    assert counts["variants_without_id"] == 1
    assert counts["genes_on_chromosomes_without_genotypes"] == 1


def test_the_model_is_a_predictdb_file(trained, study):
    connection = sqlite3.connect(trained / "Cortex.db")
    names = {r[0] for r in connection.execute("SELECT name FROM sqlite_master")}
    assert {"weights", "extra", "construction", "sample_info", "weights_rsid_gene"} <= names
    assert connection.execute("SELECT n_samples, tissue FROM sample_info").fetchall() == [(110, "Cortex")]
    rows = connection.execute("SELECT gene, rsid, varID, ref_allele, eff_allele, weight FROM weights").fetchall()
    connection.close()
    at = {r[1]: r for r in rows if r[0] == "G1.3"}
    assert at["rs20"][2:5] == ("chr1_1060000_A_G_b38", "A", "G")
    assert at["rs20"][5] > 0.2
    assert at["rs33"][5] < -0.1
    assert not {"rs5", "."} & {r[1] for r in rows}
    model = read_expression_model(trained / "Cortex.db")
    table = read_results(trained / "genes.parquet").take(read_results(trained / "genes.parquet")["status"] == "ok")
    order = np.argsort(table["gene"])
    assert model.genes.tolist() == table["gene"][order].tolist()
    assert model.gene_names.tolist() == table["gene_name"][order].tolist()
    np.testing.assert_allclose(model.pred_perf_r2, table["rho_avg"][order] ** 2)
    np.testing.assert_allclose(model.pred_perf_pval, 10 ** -table["neg_log10_p"][order])
    np.testing.assert_allclose(model.pred_perf_qval, table["q_bh"][order])
    np.testing.assert_array_equal(model.n_snps_in_model, np.diff(model.offsets))


def test_covariances_are_those_of_the_dosages_of_the_people_trained_on(trained, study):
    path = find_covariance(trained / "Cortex.db")
    assert path == trained / "Cortex.cov.txt.gz"
    assert gzip.decompress(path.read_bytes()).startswith(b"GENE RSID1 RSID2 VALUE\nG")
    found = read_covariance(path)
    header = study.files["Cortex"].read_text().split("\n")[0].split("\t")[1:-1]
    x = study.dosage[:, [study.people.index(p) for p in header]].astype(float)
    ids = study.variants.variant_id.tolist()
    gene = found.genes.tolist().index("G1.3")
    for k in range(found.offsets[gene], found.offsets[gene + 1]):
        a, b = (ids.index(found.names[i]) for i in (found.first[k], found.second[k]))
        assert found.value[k] == pytest.approx(np.cov(x[a], x[b])[0, 1], rel=1e-12)


def test_nothing_depends_on_shards_threads_or_order(trained, study, tmp_path):
    out = tmp_path / "models"
    options = ("--shard-genes", "1", "--threads", "2", "--executor", "threads")
    code_of(
        "twas", "train", study.genotypes, study.files["Cortex"], "--genes", study.genes, "--covariates",
        study.covariates, "--genome-build", "GRCh38", "--window-kb", "100", *options, "--quiet", "--out", out,
    )  # fmt: skip
    for name in ("Cortex.db", "Cortex.cov.txt.gz"):
        assert (out / name).read_bytes() == (trained / name).read_bytes()
    lines = study.files["Cortex"].read_text().strip().split("\n")
    turned = tmp_path / "Cortex.tsv"
    cells = [line.split("\t") for line in [lines[0], *reversed(lines[1:])]]
    turned.write_text("".join("\t".join([row[0], *reversed(row[1:])]) + "\n" for row in cells))
    again = tmp_path / "again"
    code_of(
        "twas", "train", study.genotypes, turned, "--genes", study.genes, "--covariates", study.covariates,
        "--genome-build", "GRCh38", "--window-kb", "100", "--quiet", "--out", again,
    )  # fmt: skip
    assert (again / "Cortex.cov.txt.gz").read_bytes() == (trained / "Cortex.cov.txt.gz").read_bytes()


def test_forms_of_expression_and_covariates_are_one(trained, study, tmp_path):
    lines = [line.split("\t") for line in study.files["Cortex"].read_text().strip().split("\n")]
    people = lines[0][1:]
    (tmp_path / "a").mkdir()
    tall = tmp_path / "a" / "Cortex.csv"
    tall.write_text(
        "participant_id," + ",".join(row[0] for row in lines[1:]) + "\n"
        + "".join(p + "," + ",".join(row[k + 1] for row in lines[1:]) + "\n" for k, p in enumerate(people))
    )  # fmt: skip
    wide = tmp_path / "covariates.txt"
    rows = [line.split("\t") for line in study.covariates.read_text().strip().split("\n")[1:]]
    wide.write_text("ID\t" + "\t".join(r[0] for r in rows) + "\nage\t" + "\t".join(r[1] for r in rows) + "\n")
    bed = tmp_path / "Cortex.expression.bed.gz"
    places = {"G1.3": ("chr1", 1060000, 1100000), "G2": ("chr2", 1110000, 1120000), "G3": ("chr1", 1050000, 1060000)}
    with gzip.open(bed, "wt") as stream:
        stream.write("\t".join(["#chr", "start", "end", "gene_id", *people]) + "\n")
        for row in lines[1:]:
            if row[0] in places:
                c, start, stop = places[row[0]]
                stream.write("\t".join([c, str(start - 1), str(stop), *row]) + "\n")
    shared = ("--covariates", wide, "--genome-build", "GRCh38", "--window-kb", "100", "--quiet")
    assert code_of("twas", "train", study.genotypes, bed, *shared, "--out", tmp_path / "bed") == 0
    code_of("twas", "train", study.genotypes, tall, "--genes", study.genes, *shared, "--out", tmp_path / "tall")
    expected = read_covariance(trained / "Cortex.cov.txt.gz")
    for name in ("bed", "tall"):
        assert (tmp_path / name / "Cortex.cov.txt.gz").read_bytes() == (trained / "Cortex.cov.txt.gz").read_bytes()
    assert expected.genes.size == 2


def test_joint_models_of_all_tissues(study, tmp_path):
    out = tmp_path / "jti"
    tissues = ("Cortex", "Putamen", "Liver")
    options = ("--method", "jti", "--similarity", study.similarity, "--window-kb", "50,100")
    files = [study.files[t] for t in tissues]
    code = code_of(
        "twas", "train", study.genotypes, *files, "--genes", study.genes, "--covariates", study.covariates, *options,
        "--tissue", "Cortex,Liver", "--quiet", "--out", out,
    )  # fmt: skip
    assert code == 3
    assert sorted(p.name for p in out.glob("*.db")) == ["Cortex.db", "Liver.db"]
    table = read_results(out / "genes.parquet")
    cortex = table.take((table["tissue"] == "Cortex") & (table["status"] == "ok"))
    assert set(cortex["gene"].tolist()) >= {"G1.3", "G2"}
    assert (cortex["out_of_fold_r"] >= cortex["single_tissue_r"]).all()
    assert set(table["window_kb"][table["status"] == "ok"].tolist()) <= {50.0, 100.0}
    model = read_expression_model(out / "Cortex.db")
    assert (np.diff(model.offsets) <= 200).all()
    assert {"rs20"} <= set(model.snps.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "jti"), "expected --similarity"),
        (("--dnase", "{similarity}"), "expected --method jti"),
        (("--window-kb", "100,200"), "one window with elastic-net"),
        (("--tissues", "A,B"), "expected 1 names"),
        (("--tissue", "Lung", "--tissues", "Liver"), "there is no tissue 'Lung'"),
        (("--genes", "{covariates}"), "expected columns gene, chromosome, start and stop"),
        (("--covariates", "{similarity}"), "expected a column participant_id"),
        (("--gene-list", "{covariates}"), "expected a column gene"),
    ],
)
def test_bad_input_has_one_message(study, tmp_path, capsys, options, message):
    files = {"similarity": study.similarity, "covariates": study.covariates}
    filled = [o.format(**files) for o in options]
    given = ["--genes", study.genes] if "--genes" not in filled else []
    code = code_of(
        "twas", "train", study.genotypes, study.files["Cortex"], *given, *filled, "--quiet", "--out", tmp_path / "x"
    )
    error = capsys.readouterr().err
    assert code == 2
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("duplicate", "A gene may have one row of expression"),
        ("strangers", "No participant id is shared"),
        ("word", "a number in every cell"),
        ("header", "Rename the column of the ids"),
    ],
)
def test_bad_expression_has_one_message(study, tmp_path, capsys, change, message):
    lines = study.files["Cortex"].read_text().strip().split("\n")
    if change == "duplicate":
        lines.append(lines[1])
    if change == "strangers":
        lines[0] = lines[0].replace("sub-", "person-")
    if change == "word":
        lines[2] = lines[2].rsplit("\t", 1)[0] + "\tmany"
    if change == "header":
        lines[0] = lines[0].replace("gene_id", "what")
    path = tmp_path / "Cortex.tsv"
    path.write_text("\n".join(lines) + "\n")
    code = code_of("twas", "train", study.genotypes, path, "--genes", study.genes, "--quiet", "--out", tmp_path / "x")
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_negative_similarity_is_refused(study, tmp_path, capsys):
    path = tmp_path / "similarity.tsv"
    path.write_text(study.similarity.read_text().replace("0.97", "-0.1"))
    files = [study.files[t] for t in ("Cortex", "Putamen", "Liver")]
    code = code_of(
        "twas", "train", study.genotypes, *files, "--genes", study.genes, "--method", "jti", "--similarity", path,
        "--quiet", "--out", tmp_path / "x",
    )  # fmt: skip
    assert code == 2
    assert "Similarity of Cortex and Putamen is negative (-0.1)" in " ".join(capsys.readouterr().err.split())


def test_one_gene_and_no_model(study, tmp_path):
    wanted = tmp_path / "genes.txt"
    wanted.write_text("G3\n")
    assert train(study, tmp_path / "one", "--gene-list", wanted) == 0
    table = read_results(tmp_path / "one" / "genes.parquet")
    assert table["gene"].tolist() == ["G3"]
    assert (tmp_path / "one" / "Cortex.db").is_file()


def test_a_trained_model_finds_the_gene_of_a_phenotype(trained, study, tmp_path):
    """The full circle: expression changes a phenotype, whose GWAS and the trained model name the gene."""
    rng = np.random.default_rng(5)
    g = study.effects["G1.3"] @ study.dosage
    y = 0.6 * (g - g.mean()) / g.std() + 0.8 * rng.normal(size=g.size)
    n = y.size
    lines = ["variant_id\teffect_allele\tother_allele\tbeta\tstandard_error\tn"]
    for k, x in enumerate(study.dosage.astype(float)):
        x = x - x.mean()
        beta = x @ (y - y.mean()) / (x @ x)
        residual = y - y.mean() - beta * x
        error = np.sqrt(residual @ residual / (n - 2) / (x @ x))
        # Half of the GWAS counts the other allele.
        sign, alleles = (1, "G\tA") if k % 2 else (-1, "A\tG")
        lines.append(f"rs{k}\t{alleles}\t{sign * beta:.8g}\t{error:.8g}\t{n}")
    gwas = tmp_path / "volume.tsv"
    gwas.write_text("\n".join(lines) + "\n")
    out = tmp_path / "twas.tsv"
    assert code_of("twas", "associate", gwas, "--models", trained / "Cortex.db", "--quiet", "--out", out) == 0
    table = read_results(out)
    found = dict(zip(table["gene"].tolist(), table["zscore"].tolist(), strict=True))
    assert found["G1.3"] > 5
    assert abs(found["G2"]) < 4
    # z of the prediction itself, from the individuals.
    model = read_expression_model(trained / "Cortex.db")
    number = model.genes.tolist().index("G1.3")
    rows = slice(model.offsets[number], model.offsets[number + 1])
    ids = study.variants.variant_id.tolist()
    predicted = model.weight[rows] @ study.dosage[[ids.index(r) for r in model.snps[rows]]]
    r = np.corrcoef(predicted, y)[0, 1]
    assert found["G1.3"] == pytest.approx(r * np.sqrt((n - 2) / (1 - r * r)), rel=0.2)


def test_an_interrupted_run_is_taken_up(trained, study, tmp_path, monkeypatch):
    from brainlocus.pipeline import twas_training

    real, calls = twas_training.cis_dosage, []

    def stop(*arguments, **options):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    out = tmp_path / "models"
    monkeypatch.setattr(twas_training, "cis_dosage", stop)
    assert train(study, out, "--shard-genes", "1") == 130
    assert not out.exists()
    monkeypatch.setattr(twas_training, "cis_dosage", real)
    taken_up = []
    monkeypatch.setattr(twas_training, "cis_dosage", lambda *a, **o: taken_up.append(1) or real(*a, **o))
    assert train(study, out, "--shard-genes", "1", "--resume") == 3
    assert len(taken_up) < 5
    assert (out / "Cortex.db").read_bytes() == (trained / "Cortex.db").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
def test_genes_are_trained_within_the_memory_given(tmp_path):
    """12 genes across 9,000 variants of 1,200 people; the windows of a shard are 2,000 to 4,000 variants."""
    from tests.e2e.test_memory import MIB, measure

    rng = np.random.default_rng(0)
    n, m = 1_200, 9_000
    people = SampleIndex.of([f"p{k}" for k in range(n)])
    ids = text_array([f"rs{k}" for k in range(m)])
    variants = VariantTable(
        np.array(["1"] * m),
        1_000_000 + 1_000 * np.arange(m),
        text_array(["G"] * m),
        text_array(["A"] * m),
        ids,
        "GRCh38",
    )
    with BedWriter(tmp_path / "g", people, variants) as out:
        out.append(rng.binomial(2, rng.uniform(0.05, 0.5, m)[:, None], (m, n)).astype(np.float32))
    lines = ["#chr\tstart\tend\tgene_id\t" + "\t".join(people.ids.tolist())]
    for k in range(12):
        values = "\t".join(f"{v:.4f}" for v in rng.normal(size=n))
        lines.append(f"1\t{2_000_000 + 500_000 * k}\t{2_000_001 + 500_000 * k}\tG{k}\t{values}")
    (tmp_path / "few.bed").write_text("\n".join(lines[:2]) + "\n")
    (tmp_path / "all.bed").write_text("\n".join(lines) + "\n")
    command = ("twas", "train", tmp_path / "g.bed")
    more = ("--executor", "serial", "--shard-genes", "4")
    warm = (*command, tmp_path / "few.bed", "--window-kb", "5")
    code, peak, message, _ = measure(tmp_path, warm, (*command, tmp_path / "all.bed"), 200, *more)
    assert code == 0, message
    assert peak <= 200 * MIB, f"{peak / MIB:.0f} MiB of 200"
    code, _, message, out = measure(tmp_path, warm, (*command, tmp_path / "all.bed"), 100, *more)
    assert code == 2
    assert "--memory" in message
