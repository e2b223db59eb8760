"""``twas causal`` through the command line: planted effects, several genes, statuses, bad input."""

import json
import shutil

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.io import read_results
from tests.real_data import real_data


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _rows(gene, effect, n, seed, phenotype="thickness"):
    rng = np.random.default_rng(seed)
    x, s = rng.normal(0, 0.3, n), rng.uniform(0.01, 0.03, n)
    y = effect * x + rng.normal(0, s)
    p = np.minimum(1, 2 * np.exp(-0.5 * (y / s) ** 2))
    return [
        f"{gene}\t{phenotype}\trs{k}\t{x[k]:.6f}\t0.05\t{y[k]:.6f}\t{s[k]:.6f}\t{p[k]:.6g}\t{rng.uniform(1, 20):.3f}"
        for k in range(n)
    ]


HEADER = "gene\tphenotype\trsid\teqtl_beta\teqtl_se\tgwas_beta\tgwas_se\tgwas_p\tldscore"


@pytest.fixture
def table(tmp_path):
    """An effect of 0.3, none, and a gene of 4 variants."""
    rows = _rows("ENSG1", 0.3, 60, 0) + _rows("ENSG2", 0.0, 60, 1) + _rows("ENSG3", 0.3, 4, 2)
    path = tmp_path / "instruments.tsv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_planted_effects(table, tmp_path):
    out, report = tmp_path / "causal.tsv", tmp_path / "report"
    options = ("--method", "all", "--bootstrap", "200", "--cv-repeats", "2", "--quiet")
    assert code_of("twas", "causal", table, *options, "--report", report, "--out", out) == 3
    found = read_results(out)
    main_rows = found.take(found["term"] == "expression")
    keys = list(zip(main_rows["gene"].tolist(), main_rows["method"].tolist(), strict=True))
    methods = ["mr-jti", "ivw-fixed", "ivw-random", "egger", "weighted-median"]
    assert keys == [(g, m) for g in ("ENSG1", "ENSG2", "ENSG3") for m in methods]
    for k, (gene, _) in enumerate(keys):
        if gene == "ENSG1":
            assert main_rows["beta"][k] == pytest.approx(0.3, abs=0.05)
            assert main_rows["significant"][k]
        elif gene == "ENSG2":
            assert abs(main_rows["beta"][k]) < 0.05
    statuses = dict(zip(keys, main_rows["status"].tolist(), strict=True))
    assert statuses.pop(("ENSG3", "mr-jti")) == "too few variants: 4 have every value, 20 are needed"
    assert set(statuses.values()) == {"ok"}
    manifest = json.loads((tmp_path / "causal.tsv.json").read_text())
    assert manifest["counts"]["alpha"] == pytest.approx(0.05 / 3)
    assert {p.name for p in report.iterdir()} == {
        "genes.tsv", "variants.tsv", *(f"ENSG{k}_thickness.png" for k in (1, 2, 3)),
    }  # fmt: skip
    genes = read_results(report / "genes.tsv")
    assert genes["n"].tolist() == [60, 60, 4]
    again = tmp_path / "again.tsv"
    code_of("twas", "causal", table, *options, "--executor", "serial", "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_a_gene_alone_gives_the_same_as_among_others(table, tmp_path):
    alone = tmp_path / "ENSG1.tsv"
    alone.write_text("\n".join([HEADER, *_rows("ENSG1", 0.3, 60, 0)]) + "\n")
    options = ("--genes-tested", "3", "--bootstrap", "50", "--cv-repeats", "1", "--quiet")
    code_of("twas", "causal", table, *options, "--out", tmp_path / "a.tsv")
    assert code_of("twas", "causal", alone, *options, "--out", tmp_path / "b.tsv") == 0
    all_lines = (tmp_path / "a.tsv").read_text().splitlines()
    assert (
        all_lines[: len((tmp_path / "b.tsv").read_text().splitlines())] == (tmp_path / "b.tsv").read_text().splitlines()
    )


def test_the_published_example_and_its_columns(tmp_path):
    path = shutil.copy(real_data("twas/mr/mrjti_example.txt"), tmp_path / "ENSG00000134243.txt")
    out = tmp_path / "jti.parquet"
    assert code_of("twas", "causal", path, "--genes-tested", "100", "--quiet", "--out", out) == 0
    found = read_results(out)
    assert found.names[:9] == (
        "gene", "term", "estimate", "lower", "upper", "significant", "lambda", "n", "n_gwas",
    )  # fmt: skip
    assert set(found["gene"].tolist()) == {"ENSG00000134243"}
    assert found["term"][:2].tolist() == ["expression", "ldsc"]
    assert len(found) == 52
    assert found["estimate"][0] == pytest.approx(-0.714, abs=0.01)


def test_other_column_names_one_variant_and_missing_values(tmp_path, capsys):
    path = tmp_path / "gene.csv"
    path.write_text("rsid,b,s,bg,p\nrs1,0.5,0.1,0.2,0.01\nrs2,NA,0.1,0.2,0.01\n")
    out = tmp_path / "wald.tsv"
    options = ("--columns", "eqtl_beta=b,gwas_se=s,gwas_beta=bg", "--method", "ivw")
    assert code_of("twas", "causal", path, *options, "--out", out) == 0
    found = read_results(out)
    assert found["method"].tolist() == ["wald-ratio"]
    assert found["beta"][0] == pytest.approx(0.4)
    assert json.loads((tmp_path / "wald.tsv.json").read_text())["counts"]["variants_incomplete"] == 1


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("rsid\teqtl_beta\tgwas_beta\tgwas_p\n", (), "expected a column ldscore, found rsid, eqtl_beta"),
        (f"{HEADER}\n", (), "expected variants, found a header without rows"),
        (f"{HEADER}\ng\tt\trs1\tx\t1\t1\t1\t0.5\t1\n", (), "line 2 has 'x'"),
        (f"{HEADER}\ng\tt\trs1\t1\t1\t1\t0\t0.5\t1\n", (), "outcome_se must be above 0"),
        (f"{HEADER}\ng\tt\trs1\t1\t1\t1\t1\t1.5\t1\n", (), "p must lie between 0 and 1, found 1.5 at rs1"),
        (f"{HEADER}\ng\tt\trs1\t1\t1\t1\t1\t.5\t1\ng\tt\trs1\t1\t1\t1\t1\t.5\t1\n", (), "may occur once"),
        (f"{HEADER}\ng\tt\t\t1\t1\t1\t1\t.5\t1\n", (), "rsid is empty in line 2"),
        (f"{HEADER}\ng\tt\trs1\t1\t1\t1\t1\t.5\t1\n", ("--columns", "beta=x"), "there is no column 'beta'"),
        (f"{HEADER}\ng\tt\trs1\t1\t1\t1\t1\t.5\t1\n", ("--columns", "rsid"), "expected OURS=THEIRS"),
        (f"{HEADER}\ng\tt\trs1\t1\t1\t1\t1\t.5\t1\n", ("--min-variants", "5"), "more variants than folds"),
    ],
)
def test_bad_input(tmp_path, capsys, text, options, message):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    assert code_of("twas", "causal", path, *options, "--quiet", "--out", tmp_path / "x.tsv") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.tsv").exists()


def test_a_gene_given_twice_and_too_few_tested(table, tmp_path, capsys):
    other = shutil.copy(table, tmp_path / "again.tsv")
    assert code_of("twas", "causal", table, other, "--quiet", "--out", tmp_path / "x.tsv") == 2
    assert "gene ENSG1 and phenotype thickness were in" in " ".join(capsys.readouterr().err.split())
    assert code_of("twas", "causal", table, "--genes-tested", "2", "--quiet", "--out", tmp_path / "x.tsv") == 2
    assert "--genes-tested: expected 3 or more" in " ".join(capsys.readouterr().err.split())
