"""``twas multi-tissue`` through the command line: tables, folders, CSVs of S-PrediXcan, statuses, bad input."""

import json
import sqlite3

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from brainlocus.cli.main import main
from brainlocus.io import read_results
from tests.reference.multixcan import naive_multixcan

WEIGHTS = {
    "Cortex": {"G1": {"a": 0.5, "b": -0.2}, "G2": {"c": 1.0}},
    "Liver": {"G1": {"b": 0.4}, "G3": {"z": 0.3}},
    "Lung": {"G1": {"a": 0.1, "d": 0.0}, "G2": {"c": 0.0}},
}
COVARIANCE = {
    "G1": {
        ("a", "a"): 0.4, ("a", "b"): 0.1, ("b", "b"): 0.3, ("a", "d"): 0.02, ("b", "d"): 0.0, ("d", "d"): 0.2,
    },
    "G2": {("c", "c"): 0.25},
}  # fmt: skip
Z = {
    ("t1", "Cortex", "G1"): 2.0, ("t1", "Liver", "G1"): -1.0, ("t1", "Lung", "G1"): 0.5,
    ("t2", "Cortex", "G1"): 40.0, ("t2", "Liver", "G1"): 39.0,
    ("t1", "Cortex", "G2"): 1.5, ("t2", "Cortex", "G2"): 0.1, ("t1", "Lung", "G2"): 1.0,
    ("t1", "Liver", "G3"): 1.0, ("t1", "Liver", "G4"): 0.3,
}  # fmt: skip


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def study(tmp_path):
    """Three models, their covariance, and associations of two phenotypes."""
    (tmp_path / "db").mkdir()
    for tissue, genes in WEIGHTS.items():
        connection = sqlite3.connect(tmp_path / "db" / f"TW_{tissue}.db")
        connection.execute("CREATE TABLE weights (rsid TEXT, gene TEXT, weight REAL, ref_allele TEXT, eff_allele TEXT)")
        connection.execute("CREATE TABLE extra (gene TEXT, genename TEXT)")
        for gene, weights in genes.items():
            connection.execute("INSERT INTO extra VALUES (?, ?)", (gene, f"S{gene}"))
            rows = [(snp, gene, w, "A", "C") for snp, w in weights.items()]
            connection.executemany("INSERT INTO weights VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
        connection.close()
    lines = [f"{g} {a} {b} {v}" for g, pairs in COVARIANCE.items() for (a, b), v in pairs.items()]
    (tmp_path / "covariance.txt").write_text("GENE RSID1 RSID2 VALUE\n" + "\n".join(lines) + "\n")
    rows = [f"{p}\t{t}\t{g}\tS{g}\t{z}" for (p, t, g), z in Z.items()]
    (tmp_path / "z.tsv").write_text("phenotype\ttissue\tgene\tgene_name\tzscore\n" + "\n".join(rows) + "\n")
    return tmp_path


def _options(study):
    return ("--models", study / "db", "--model-pattern", r"TW_(.+)\.db", "--covariance", study / "covariance.txt")


def _expected(phenotype, gene, present=None):
    weights = {t: g[gene] for t, g in WEIGHTS.items() if gene in g}
    z = {t: Z.get((phenotype, t, gene)) for t in weights}
    return naive_multixcan(weights, COVARIANCE[gene], z, present)


def test_tests_and_statuses(study):
    out = study / "out.tsv"
    assert code_of("twas", "multi-tissue", study / "z.tsv", *_options(study), "--quiet", "--out", out) == 3
    found = read_results(out)
    rows = {(p, g): k for k, (p, g) in enumerate(zip(found["phenotype"], found["gene"], strict=True))}
    assert len(found) == 8
    for key in (("t1", "G1"), ("t1", "G2"), ("t2", "G2")):
        expected = _expected(*key)
        for name, value in expected.items():
            if isinstance(value, str):
                assert found[name][rows[key]] == value
            else:
                assert found[name][rows[key]] == pytest.approx(value, rel=1e-10, nan_ok=True), name
        assert found["status"][rows[key]] == "ok"
    # z of 40 and 39: p has no double.
    far = rows["t2", "G1"]
    assert (found["status_code"][far], found["pvalue"][far]) == (-4, 0.0)
    assert found["neg_log10_p"][far] > 340
    codes = {key: int(found["status_code"][k]) for key, k in rows.items()}
    assert codes["t1", "G3"] == -3  # not in the covariance
    assert codes["t2", "G3"] == codes["t2", "G4"] == -2
    assert codes["t1", "G4"] == -1  # in no model
    assert found["tissues_left_out"][rows["t1", "G2"]] == "Lung"
    assert found["gene_name"][rows["t1", "G1"]] == "SG1"
    first = found.take(found["phenotype"] == "t1")
    assert np.all(np.diff(first["pvalue"][np.isfinite(first["pvalue"])]) >= 0)
    tested = found["neg_log10_p"][np.isfinite(found["neg_log10_p"])]
    np.testing.assert_allclose(
        found["q_bh"][np.isfinite(found["q_bh"])],
        stats.false_discovery_control(10.0**-tested),
        rtol=1e-10,
    )
    counts = json.loads((study / "out.tsv.json").read_text())["counts"]
    assert counts["tests"] == 4
    assert counts["without_result"] == {
        "no tissue has a z": 2,
        "no model with variance in the reference panel": 1,
        "no tissue with a z has a model of the gene": 1,
    }


def test_hits_keep_corrections(study):
    every, some = study / "all.tsv", study / "some.tsv"
    for path, more in ((every, ()), (some, ("--hits", "0.2"))):
        code_of("twas", "multi-tissue", study / "z.tsv", *_options(study), *more, "--quiet", "--out", path)
    full, part = read_results(every), read_results(some)
    kept = np.flatnonzero(full["neg_log10_p"] >= -np.log10(0.2))
    assert part["gene"].tolist() == full["gene"][kept].tolist()
    np.testing.assert_array_equal(part["q_bh"], full["q_bh"][kept])
    np.testing.assert_array_equal(part["p_bonferroni"], full["p_bonferroni"][kept])


def test_snps_that_the_gwas_lacks_do_not_count(study):
    lines = "".join(f"{snp}\tA\tC\t1.0\n" for snp in ("a", "c", "d", "elsewhere"))
    gwas = study / "gwas.tsv"
    gwas.write_text("SNP\tA1\tA2\tZ\n" + lines)
    out = study / "out.tsv"
    code_of("twas", "multi-tissue", study / "z.tsv", *_options(study), "--gwas", gwas, "--quiet", "--out", out)
    found = read_results(out)
    at = int(np.flatnonzero((found["phenotype"] == "t1") & (found["gene"] == "G1"))[0])
    expected = _expected("t1", "G1", {"a", "c", "d"})
    assert found["pvalue"][at] == pytest.approx(expected["pvalue"], rel=1e-10)
    assert found["tissues_left_out"][at] == "Liver"


def test_acat_of_csv_files_named_by_pattern(study):
    folder = study / "csv"
    folder.mkdir()
    p = {"Cortex": 0.01, "Liver": 0.2, "Lung": 1e-30}
    for tissue, value in p.items():
        z = stats.norm.isf(value / 2)
        (folder / f"SCZ_xt_{tissue}.csv").write_text(f"gene,gene_name,zscore\nG1,S,{z:.17g}\nG2,S,NA\n")
    out = study / "acat.tsv"
    pattern = r"(?P<phenotype>[^_]+)_xt_(?P<tissue>.+)\.csv"
    files = sorted(folder.glob("*.csv"))
    options = ("--method", "acat", "--file-pattern", pattern, "--quiet")
    assert code_of("twas", "multi-tissue", *files, *options, "--out", out) == 3
    found = read_results(out)
    t = sum(1 / np.tan(np.pi * one) for one in p.values()) / 3
    assert found["acat_pvalue"][0] == pytest.approx(np.arctan2(1, t) / np.pi, rel=1e-9)
    assert found["n"].tolist() == [3, 0]
    assert found["status"].tolist() == ["ok", "no tissue has a z"]


def test_a_folder_of_whole_matrices_gives_the_same(study):
    folder = study / "full"
    folder.mkdir()
    keys = sorted({(t, g) for _, t, g in Z})
    names = {"tissue": [t for t, _ in keys], "gene": [g for _, g in keys], "gene_name": [f"S{g}" for _, g in keys]}
    pq.write_table(pa.table(names | {"pred_perf_r2": [0.1] * len(keys)}), folder / "models.parquet")
    pq.write_table(pa.table({"phenotype": ["t1", "t2"]}), folder / "phenotypes.parquet")
    z = np.array([[Z.get((p, t, g), np.nan) for p in ("t1", "t2")] for t, g in keys])
    np.save(folder / "z.npy", z)
    one, two = study / "one.tsv", study / "two.tsv"
    options = (*_options(study), "--method", "both", "--quiet")
    code_of("twas", "multi-tissue", study / "z.tsv", *options, "--out", one)
    code_of("twas", "multi-tissue", folder, *options, "--out", two)
    assert sorted(one.read_text().splitlines()) == sorted(two.read_text().splitlines())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--model-pattern", "(.+)"), "No tissue of the results has a model. Results have Cortex"),
        (("--eigen-ratio", "0.1", "--trace-ratio", "0.1"), "Expected one rule for the components to keep"),
        (("--eigen-ratio", "0"), "keeps everything"),
        (("--hits", "1e-400"), "--hits"),
        (("--hits", "1e-300", "--gwas", "none.tsv"), "none.tsv"),
    ],
)
def test_bad_options(study, capsys, change, message):
    options = list(map(str, _options(study)))
    if change[0] == "--model-pattern":
        options = [*options[:2], *options[4:]]
    out = study / "x.tsv"
    assert code_of("twas", "multi-tissue", study / "z.tsv", *options, *change, "--quiet", "--out", out) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_bad_files(study, capsys):
    out = study / "x.tsv"
    options = _options(study)
    alone = ("twas", "multi-tissue", study / "z.tsv", "--quiet", "--out", out)
    assert code_of(*alone) == 2
    assert "S-MultiXcan needs --models and --covariance" in " ".join(capsys.readouterr().err.split())
    text = (study / "covariance.txt").read_text()
    (study / "covariance.txt").write_text(text.replace("G1 a b 0.1\n", ""))
    assert code_of(*alone, *options) == 2
    assert "Gene G1: 1 pairs of SNPs" in " ".join(capsys.readouterr().err.split())
    assert code_of(*alone, *options, "--missing-covariance", "zero") == 3
    out.unlink()
    (study / "covariance.txt").write_text(text + "G1 a b 0.1\n")
    assert code_of(*alone, *options) == 2
    assert "expected the rows of a gene together, found G1 again" in " ".join(capsys.readouterr().err.split())
    (study / "covariance.txt").write_text(text.replace("\nG", "\nH"))
    assert code_of(*alone, *options) == 2
    assert "it has none of the 3 genes" in " ".join(capsys.readouterr().err.split())
    (study / "covariance.txt").write_text(text)
    (study / "z.tsv").write_text("phenotype\ttissue\tgene\tzscore\nt\tLiver\tENSG1.2\t1\n")
    assert code_of(*alone, *options) == 2
    assert "No gene of the results is in the models" in " ".join(capsys.readouterr().err.split())


def test_a_prepared_folder_says_which_snps_each_phenotype_has(study):
    snps = {"t1": ("a", "c", "d"), "t2": ("a", "b", "c")}
    files = []
    for phenotype, names in snps.items():
        files.append(study / f"{phenotype}.tsv")
        files[-1].write_text("SNP\tA1\tA2\tZ\n" + "".join(f"{s}\tC\tA\t1.0\n" for s in names))
    for tissue in WEIGHTS:
        lines = [f"{g} {a} {b} {v}" for g, p in COVARIANCE.items() for (a, b), v in p.items()]
        (study / "db" / f"TW_{tissue}.txt").write_text("GENE RSID1 RSID2 VALUE\n" + "\n".join(lines) + "\n")
    prepared, out = study / "prepared", study / "out.tsv"
    given = ("--models", study / "db", "--model-pattern", r"TW_(.+)\.db")
    assert code_of("twas", "prepare", *files, *given, "--quiet", "--out", prepared) == 0
    rows = [f"{p}\t{t}\tG1\t{z}" for p in snps for t, z in (("Cortex", 2.0), ("Liver", -1.0), ("Lung", 0.5))]
    (study / "z.tsv").write_text("phenotype\ttissue\tgene\tzscore\n" + "\n".join(rows) + "\n")
    options = (*_options(study), "--gwas", prepared, "--quiet", "--out", out)
    assert code_of("twas", "multi-tissue", study / "z.tsv", *options) == 0
    found = read_results(out)
    z = {"Cortex": 2.0, "Liver": -1.0, "Lung": 0.5}
    weights = {t: g["G1"] for t, g in WEIGHTS.items()}
    for phenotype, names in snps.items():
        at = int(np.flatnonzero(found["phenotype"] == phenotype)[0])
        expected = naive_multixcan(weights, COVARIANCE["G1"], z, set(names))
        assert found["pvalue"][at] == pytest.approx(expected["pvalue"], rel=1e-10)
        assert found["n_indep"][at] == expected["n_indep"]
