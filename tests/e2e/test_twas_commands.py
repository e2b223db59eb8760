"""``twas prepare`` and ``twas associate`` on files: against the formula, in every way of giving them, and bad input."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.core import SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, open_gene_folder, read_gene_associations, read_results, write_table
from brainlocus.numerics import benjamini_hochberg_q, neg_log10_p_from_z
from tests.real_data import real_data
from tests.twas_files import Panel, write_covariance_text, write_db


def code_of(*arguments) -> int:
    try:
        main([*map(str, arguments), "--quiet"])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def panel():
    return Panel(np.random.default_rng(11), n_genes=30)


@pytest.fixture(scope="module")
def study(panel, tmp_path_factory):
    """Models, and GWAS of five phenotypes: two lack SNPs, one swaps alleles, one is gzipped."""
    folder = tmp_path_factory.mktemp("twas")
    models = panel.write_models(folder / "models")
    scans = {}
    for k, absent in enumerate([(), (0, 5, 9), (), (0, 5, 9), (7,)]):
        scans[f"p{k}"] = panel.gwas(absent)
        name = folder / f"p{k}.txt{'.gz' if k == 2 else ''}"
        panel.write_gwas(name, scans[f"p{k}"], swap=lambda s, k=k: k == 1 and s % 3 == 0, gz=k == 2)
    return folder, models, scans


def files(folder):
    return sorted(folder.glob("p*.txt*"))


def options(models):
    return ("--models", ",".join(map(str, models)))


def as_rows(path):
    table = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else None
    assert table is not None
    return {(r["phenotype"], r["tissue"], r["gene"]): r for r in table}


def check(rows, panel, scans, tolerance=1e-12):
    expected = {}
    for phenotype, gwas in scans.items():
        for tissue in panel.tissues:
            for gene, values in panel.expected(tissue, gwas).items():
                expected[phenotype, tissue, gene] = values
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        found = (row["zscore"], row["effect_size"], row["var_g"])
        np.testing.assert_allclose(found, expected[key][:3], rtol=tolerance, atol=tolerance)
        assert row["n_snps_used"] == expected[key][3]
        assert row["neg_log10_p"] == pytest.approx(
            float(neg_log10_p_from_z(expected[key][0])), rel=10 * tolerance, abs=10 * tolerance
        )
        assert row["pvalue"] == pytest.approx(10 ** -row["neg_log10_p"], rel=1e-12)


def test_all_phenotypes_at_once(panel, study, tmp_path):
    folder, models, scans = study
    out = tmp_path / "t.parquet"
    assert code_of("twas", "associate", *files(folder), *options(models), "--out", out, "--report", tmp_path / "r") == 0
    rows = as_rows(out)
    check(rows, panel, scans)
    table = read_results(out)
    assert table.names[:15] == (
        "phenotype", "tissue", "gene", "gene_name", "zscore", "effect_size", "pvalue", "neg_log10_p", "var_g",
        "pred_perf_r2", "pred_perf_pval", "pred_perf_qval", "n_snps_used", "n_snps_in_cov", "n_snps_in_model",
    )  # fmt: skip
    np.testing.assert_allclose(table["q_bh_study"], benjamini_hochberg_q(table["neg_log10_p"]), rtol=1e-9)
    # By tissue, by phenotype, the strongest first.
    strengths = [r["neg_log10_p"] for r in rows.values() if (r["phenotype"], r["tissue"]) == ("p0", "Liver")]
    assert strengths == sorted(strengths, reverse=True)
    counts = json.loads((tmp_path / "t.parquet.json").read_text())["counts"]
    assert counts["rows"] == len(rows)
    assert counts["swapped"] > 0
    report = pq.read_table(tmp_path / "r" / "gwas.parquet").to_pylist()
    assert [r["snps_found"] for r in report] == [
        len([s for s in g if any(s in m for t in panel.models.values() for m in t.values())]) for g in scans.values()
    ]
    assert report[0]["rows_not_in_models"] >= panel.n_snps
    assert {r["tissue"] for r in pq.read_table(tmp_path / "r" / "models.parquet").to_pylist()} == set(panel.tissues)


def test_one_phenotype_as_text(panel, study, tmp_path):
    folder, models, scans = study
    for name in ("one.tsv", "one.csv", "one.tsv.gz"):
        assert code_of("twas", "associate", folder / "p0.txt", *options(models[:1]), "--out", tmp_path / name) == 0
    one = read_gene_associations([tmp_path / "one.csv"])
    assert one.tissues.tolist() == ["Cortex"]
    expected = panel.expected("Cortex", scans["p0"])
    assert sorted(one.genes[one.gene].tolist()) == sorted(expected)
    np.testing.assert_allclose(one.z, [expected[g][0] for g in one.genes[one.gene].tolist()], rtol=1e-12)
    np.testing.assert_array_equal(one.z, read_gene_associations([tmp_path / "one.tsv.gz"]).z)


def test_prepared_and_whole_matrices(panel, study, tmp_path):
    folder, models, scans = study
    prepared = tmp_path / "prepared"
    assert code_of(
        "twas", "prepare", *files(folder), *options(models), "--precision", "float64", "--out", prepared
    ) == 0  # fmt: skip
    assert code_of("twas", "associate", prepared, "--out", tmp_path / "a.parquet", "--full", tmp_path / "full") == 0
    assert code_of("twas", "associate", *files(folder), *options(models), "--out", tmp_path / "b.parquet") == 0
    assert as_rows(tmp_path / "a.parquet") == as_rows(tmp_path / "b.parquet")
    whole = open_gene_folder(tmp_path / "full")
    assert whole.tissues == panel.tissues
    matrix = whole.matrix("Liver")
    for phenotype, gwas in scans.items():
        expected = panel.expected("Liver", gwas)
        column = matrix.phenotypes.tolist().index(phenotype)
        for g, gene in enumerate(matrix.genes.tolist()):
            want = expected.get(gene, (np.nan, np.nan))
            np.testing.assert_allclose([matrix.z[g, column], matrix.effect[g, column]], want[:2], rtol=1e-12)
    listed = read_gene_associations([tmp_path / "full"], max_p=0.05)
    strong = {k for k, r in as_rows(tmp_path / "a.parquet").items() if r["neg_log10_p"] >= -np.log10(0.05)}
    names = zip(
        listed.phenotypes[listed.phenotype], listed.tissues[listed.tissue], listed.genes[listed.gene], strict=True
    )
    assert {tuple(map(str, n)) for n in names} == strong
    single = tmp_path / "single"
    assert code_of("twas", "prepare", *files(folder), *options(models), "--out", single) == 0
    assert code_of("twas", "associate", single, "--out", tmp_path / "c.parquet") == 0
    check(as_rows(tmp_path / "c.parquet"), panel, scans, tolerance=2e-6)


def test_memory_and_executor_change_nothing(study, tmp_path, monkeypatch):
    from brainlocus.pipeline import twas_gwas, twas_results, twas_scan

    folder, models, _ = study
    assert code_of("twas", "associate", *files(folder), *options(models), "--out", tmp_path / "a.parquet") == 0
    monkeypatch.setattr(twas_scan, "_LARGEST_BLOCK", 2)
    monkeypatch.setattr(twas_scan, "_IN_MEMORY_SHARE", 0.0)
    monkeypatch.setattr(twas_results, "_CELLS", 20)
    monkeypatch.setattr(twas_results, "_COLUMNS_AT_ONCE", 2)
    monkeypatch.setattr(twas_gwas, "_FILES_A_TASK", 2)
    for executor in ("serial", "processes"):
        out = tmp_path / f"{executor}.parquet"
        full = ("--full", tmp_path / f"full-{executor}")
        assert code_of(
            "twas", "associate", *files(folder), *options(models), "--executor", executor, *full, "--out", out
        ) == 0  # fmt: skip
        assert as_rows(out) == as_rows(tmp_path / "a.parquet")
        assert open_gene_folder(full[1]).z.shape[1] == 5


def test_scopes(study, tmp_path):
    folder, models, _ = study
    annotation = tmp_path / "annotation.tsv"
    annotation.write_text("phenotype\tmodality\n" + "".join(f"p{k}\t{'T1' if k < 2 else 'dMRI'}\n" for k in range(5)))
    out = tmp_path / "t.parquet"
    scopes = "study,tissue,phenotype,phenotype-tissue,modality"
    assert code_of(
        "twas", "associate", *files(folder), *options(models), "--annotation", annotation, "--scope", scopes,
        "--adjust", "bh,by,bonferroni", "--out", out,
    ) == 0  # fmt: skip
    rows = list(as_rows(out).values())
    strength = np.array([r["neg_log10_p"] for r in rows])
    modality = {f"p{k}": "T1" if k < 2 else "dMRI" for k in range(5)}
    groups = {
        "study": [0 for _ in rows],
        "tissue": [r["tissue"] for r in rows],
        "phenotype": [r["phenotype"] for r in rows],
        "phenotype_tissue": [r["phenotype"] + r["tissue"] for r in rows],
        "modality": [modality[r["phenotype"]] for r in rows],
    }
    for scope, group in groups.items():
        for level in sorted(set(group)):
            mine = np.array([g == level for g in group])
            q = benjamini_hochberg_q(strength[mine])
            found = {
                m: np.array([r[m] for r in rows])[mine]
                for m in (f"q_bh_{scope}", f"q_by_{scope}", f"p_bonferroni_{scope}")
            }
            n = int(mine.sum())
            np.testing.assert_allclose(found[f"q_bh_{scope}"], q, rtol=1e-9)
            harmonic = np.sum(1 / np.arange(1, n + 1))
            factor = benjamini_hochberg_q(strength[mine] - np.log10(harmonic)) if harmonic else q
            np.testing.assert_allclose(found[f"q_by_{scope}"], np.minimum(factor, 1), rtol=1e-9)
            np.testing.assert_allclose(
                found[f"p_bonferroni_{scope}"], np.minimum(n * 10 ** -strength[mine], 1), rtol=1e-9
            )
    # Only some tests are written, but all are counted.
    some = tmp_path / "some.parquet"
    assert code_of(
        "twas", "associate", *files(folder), *options(models), "--hits", "0.1", "--scope", "study,phenotype",
        "--out", some,
    ) == 0  # fmt: skip
    kept = as_rows(some)
    whole = {k: r for k, r in as_rows(out).items() if r["pvalue"] <= 0.1}
    assert kept.keys() == whole.keys()
    for key, row in kept.items():
        assert row["q_bh_study"] == pytest.approx(whole[key]["q_bh_study"], rel=1e-12)
        assert row["q_bh_phenotype"] == pytest.approx(whole[key]["q_bh_phenotype"], rel=1e-12)


def test_a_list_of_files_and_a_folder(panel, study, tmp_path):
    folder, models, scans = study
    listed = tmp_path / "list.tsv"
    listed.write_text("phenotype\tpath\n" + "".join(f"x{k}\t{f}\n" for k, f in enumerate(files(folder)[:2])))
    assert code_of("twas", "associate", listed, *options(models), "--out", tmp_path / "l.parquet") == 0
    check(as_rows(tmp_path / "l.parquet"), panel, {"x0": scans["p0"], "x1": scans["p1"]})
    here = tmp_path / "scans"
    here.mkdir()
    for f in files(folder):
        (here / f.name).write_bytes(f.read_bytes())
    assert code_of("twas", "associate", here, *options(models), "--out", tmp_path / "f.parquet") == 0
    check(as_rows(tmp_path / "f.parquet"), panel, scans)
    assert code_of("twas", "associate", here, "--models", folder / "models", "--out", tmp_path / "m.parquet") == 0
    check(as_rows(tmp_path / "m.parquet"), panel, scans)


def test_by_position_and_var_id(panel, study, tmp_path):
    _, models, scans = study
    gwas = scans["p0"]
    lines = ["CHR BP effect_allele other_allele beta se"]
    for s, (z, beta) in gwas.items():
        other, effect = panel.allele_pair(s)
        lines.append(f"chr1 {5000 + 10 * s} {effect} {other} {beta!r} {beta / z!r}")
    (tmp_path / "places.txt").write_text("\n".join(lines) + "\n")
    covariances = []
    for tissue in panel.tissues:
        rows = []
        for gene, chosen in panel.models[tissue].items():
            data = next(g for g in panel.genes if g["gene"] == gene)
            snps = sorted(chosen)
            for a, one in enumerate(snps):
                for two in snps[a:]:
                    value = data["covariance"][data["snps"].index(one), data["snps"].index(two)]
                    rows.append((gene, panel.var_id(one), panel.var_id(two), repr(float(value))))
        covariances.append(tmp_path / f"{tissue}.txt")
        write_covariance_text(covariances[-1], rows)
    given = (*options(models), "--covariances", ",".join(map(str, covariances)), "--snp-key", "varID")
    out = tmp_path / "t.parquet"
    assert code_of(
        "twas", "associate", tmp_path / "places.txt", *given, "--match", "position", "--genome-build", "hg38",
        "--out", out,
    ) == 0  # fmt: skip
    check(as_rows(out), panel, {"places": gwas})
    # Without chr on one side.
    lines = ["id effect_allele other_allele beta se"]
    for s, (z, beta) in gwas.items():
        other, effect = panel.allele_pair(s)
        lines.append(f"{panel.var_id(s)[3:]} {effect} {other} {beta!r} {beta / z!r}")
    (tmp_path / "ids.txt").write_text("\n".join(lines) + "\n")
    assert code_of("twas", "associate", tmp_path / "ids.txt", *given, "--out", tmp_path / "u.parquet") == 0
    check(as_rows(tmp_path / "u.parquet"), panel, {"ids": gwas})


def test_inflation(panel, study, tmp_path):
    folder, _, scans = study
    model = tmp_path / "Cortex.db"
    weights, extra = [], []
    for k, (gene, chosen) in enumerate(panel.models["Cortex"].items()):
        for s, weight in sorted(chosen.items()):
            other, effect = panel.allele_pair(s)
            weights.append(
                {"rsid": panel.name(s), "gene": gene, "weight": weight, "ref_allele": other, "eff_allele": effect}
            )
        extra.append({"gene": gene, "phi": [1e-5, -1e-5, None][k % 3]})
    write_db(model, weights, extra, order=("rsid", "gene", "weight", "ref_allele", "eff_allele"))
    traits = tmp_path / "traits.tsv"
    traits.write_text("phenotype\tn\th2\np0\t30000\t0.4\n")
    out = tmp_path / "t.parquet"
    assert code_of(
        "twas", "associate", folder / "p0.txt", folder / "p1.txt", "--models", model,
        "--covariances", folder / "models" / "Cortex.txt.gz", "--traits", traits, "--out", out,
    ) == 0  # fmt: skip
    expected = panel.expected("Cortex", scans["p0"])
    phi = {row["gene"]: row["phi"] for row in extra}
    for (phenotype, _, gene), row in as_rows(out).items():
        if phenotype == "p1":
            assert not row["calibrated"]
            assert row["zscore"] == row["uncalibrated_zscore"]
            continue
        factor = np.sqrt(1 + max(phi[gene] or 0.0, 0.0) * 30000 * 0.4)
        assert row["uncalibrated_zscore"] == pytest.approx(expected[gene][0], rel=1e-12)
        assert row["zscore"] == pytest.approx(expected[gene][0] / factor, rel=1e-12)
        assert row["calibrated"] == (phi[gene] is not None)


def test_files_that_are_not_whole(study, tmp_path, capsys):
    folder, models, _ = study
    given = ("twas", "associate", folder / "p0.txt", *options(models), "--full", tmp_path / "full")
    assert code_of("twas", "prepare", folder / "p0.txt", *options(models), "--out", tmp_path / "prepared") == 0
    assert code_of(*given, "--out", tmp_path / "t.tsv") == 0
    for cut, command in (
        (tmp_path / "prepared" / "z.npy", ("twas", "associate", tmp_path / "prepared")),
        (tmp_path / "full" / "z.npy", ("twas", "specificity", tmp_path / "full")),
        (tmp_path / "full" / "models.parquet", ("twas", "specificity", tmp_path / "full")),
    ):
        whole = cut.read_bytes()
        cut.write_bytes(whole[: len(whole) - 50])
        assert code_of(*command, "--out", tmp_path / "o.tsv") == 2
        assert str(cut) in capsys.readouterr().err
        cut.write_bytes(whole)
    header, noise = tmp_path / "header.txt", tmp_path / "noise.txt"
    header.write_text((folder / "p0.txt").read_text().splitlines()[0] + "\n")
    noise.write_bytes(bytes(range(256)) * 9)
    for path, message in ((header, "expected rows below the header"), (noise, "expected text, plain or compressed")):
        assert code_of("twas", "associate", path, *options(models), "--out", tmp_path / "o.tsv") == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("o.tsv*"))


def test_figures(panel, study, tmp_path):
    folder, models, _ = study
    positions = tmp_path / "genes.tsv"
    lines = ["gene\tchromosome\tstart\tstop"]
    lines += [
        f"{g['gene'].split('.')[0]}\t{k % 22 + 1}\t{1000 * k + 1}\t{1000 * k + 500}"
        for k, g in enumerate(panel.genes[:-1])
    ]
    positions.write_text("\n".join(lines) + "\n")
    report, out = tmp_path / "report", tmp_path / "t.tsv"
    figures = ("--gene-positions", positions, "--report", report)
    assert code_of("twas", "associate", *files(folder), *options(models), *figures, "--out", out) == 0
    for name in ("manhattan.png", "qq.png"):
        assert (report / name).stat().st_size > 10_000
    modelled = {g for t in panel.models.values() for g in t}
    absent = json.loads((tmp_path / "t.tsv.json").read_text())["counts"]["genes_without_position"]
    assert absent == int(panel.genes[-1]["gene"] in modelled)


def test_resumes_where_it_stopped(study, tmp_path, monkeypatch, capsys):
    from brainlocus.pipeline import twas_gwas

    folder, models, _ = study
    monkeypatch.setattr(twas_gwas, "_FILES_A_TASK", 1)
    read, real = [], twas_gwas.GwasReader.read

    def fails(self, path, columns):
        read.append(path.name)
        if path.name == "p3.txt" and len(read) <= 4:
            raise KeyboardInterrupt
        return real(self, path, columns)

    monkeypatch.setattr(twas_gwas.GwasReader, "read", fails)
    given = ("twas", "prepare", *files(folder), *options(models), "--executor", "serial")
    assert code_of(*given, "--out", tmp_path / "p") == 130
    assert code_of(*given, "--out", tmp_path / "p", "--resume") == 0
    assert read == ["p0.txt", "p1.txt", "p2.txt.gz", "p3.txt", "p3.txt", "p4.txt"]
    assert code_of(*given, "--out", tmp_path / "q") == 0
    for name in ("z.npy", "beta.npy", "models/snps.npz"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "q" / name).read_bytes()


def test_a_gwas_without_model_snps_is_an_item_that_failed(study, tmp_path, capsys):
    folder, models, _ = study
    (tmp_path / "other.txt").write_text("snp effect_allele other_allele z\nrs99999999 A C 1\n")
    out = tmp_path / "t.parquet"
    assert code_of("twas", "associate", folder / "p0.txt", tmp_path / "other.txt", *options(models), "--out", out) == 3
    assert {key[0] for key in as_rows(out)} == {"p0"}
    assert "other" in capsys.readouterr().out


BAD = [
    ("rs5 A C 1", (), "none of the"),
    ("chr1_5000_A_C_b38 A C 1", (), "--snp-key varID"),
    ("rs1000 N N 1", (), "none has their alleles"),
]


@pytest.mark.parametrize(("line", "more", "message"), BAD)
def test_nothing_matches(study, tmp_path, capsys, line, more, message):
    _, models, _ = study
    path = tmp_path / "x.txt"
    path.write_text(f"snp effect_allele other_allele z\n{line}\n")
    out = tmp_path / "t.parquet"
    assert code_of("twas", "associate", path, *options(models), *more, "--out", out) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "absent.db"), "found nothing"),
        ((), "--models: required"),
        (("--adjust", "fdr"), "expected bh, by or bonferroni"),
        (("--scope", "modality"), "--annotation"),
        (("--columns", "beta"), "expected field=NAME"),
        (("--match", "position"), "--snp-key varID"),
        (("--snp-key", "varID", "--genome-build", "hg19"), "no SNP of it has a variance"),
        (("--hits", "0"), "--hits"),
        (("--covariances", "one,two"), "one for each"),
        (("--phenotype-pattern", "q(.)"), "does not match"),
        (("--palindromic", "frequency"), "--frequencies"),
        (("--traits", "TRAITS"), "no inflation factor"),
        (("--annotation", "TRAITS"), "it has none of the 1 phenotypes"),
    ],
)
def test_bad_options(study, tmp_path, capsys, arguments, message):
    folder, models, _ = study
    (tmp_path / "TRAITS.tsv").write_text("phenotype\tn\th2\n")
    arguments = [str(tmp_path / "TRAITS.tsv") if a == "TRAITS" else a for a in arguments]
    if "one,two" in arguments:
        arguments[1] = f"{folder / 'p0.txt'},{folder / 'p1.txt'}"
    given = () if arguments[:1] == ["--models"] or not arguments else options(models)
    out = tmp_path / "t.parquet"
    assert code_of("twas", "associate", folder / "p0.txt", *given, *arguments, "--out", out) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_two_phenotypes_of_one_name_and_two_models_of_one_tissue(study, tmp_path, capsys):
    folder, models, _ = study
    out = ("--out", tmp_path / "t.tsv")
    names = ("--phenotype-pattern", "(p).")
    assert code_of("twas", "associate", *files(folder), *options(models), *names, *out) == 2
    assert "are called 'p'" in capsys.readouterr().err
    # Cortex and Blood both have an o.
    for given in (options([*models, models[0]]), (*options([models[0], models[2]]), "--model-pattern", "(o)")):
        assert code_of("twas", "associate", *files(folder), *given, *out) == 2
        assert "occurs twice" in capsys.readouterr().err
    assert not out[1].exists()


def test_prepared_folder_takes_no_options_of_reading(study, tmp_path, capsys):
    folder, models, _ = study
    assert code_of("twas", "prepare", folder / "p0.txt", *options(models), "--out", tmp_path / "p") == 0
    assert code_of("twas", "associate", tmp_path / "p", "--strand", "complement", "--out", tmp_path / "t.tsv") == 2
    assert "--strand can only be given to twas prepare" in capsys.readouterr().err
    assert code_of("twas", "associate", tmp_path / "p", *options(models), "--out", tmp_path / "t.tsv") == 2
    assert "give it alone" in capsys.readouterr().err


def test_scans_of_our_own(tmp_path):
    """``gwas run --full`` is input as it is: equal to its traits written as GWAS-SSF and read again."""
    rng = np.random.default_rng(0)
    n, m = 300, 40
    people = SampleIndex.of([f"p{k}" for k in range(n)])
    names = [f"rs{k + 1}" for k in range(m)]
    variants = VariantTable(
        np.full(m, "1"), np.arange(1, m + 1) * 100, text_array(["A"] * m), text_array(["G"] * m), text_array(names),
        "GRCh37",
    )  # fmt: skip
    dosage = rng.binomial(2, 0.3, (m, n)).astype(np.float32)
    with BedWriter(tmp_path / "g", people, variants) as out:
        out.append(dosage)
    values = rng.normal(size=(n, 2)) + 0.5 * dosage[:2].T
    traits = tmp_path / "traits.tsv"
    write_table(quantitative_table(people, ["a", "b"], values), traits)
    covariance, weights, rows = np.cov(dosage), [], []
    for a in range(m):
        gene = f"G{a // 5}"
        weight = {"rsid": names[a], "gene": gene, "weight": float(rng.normal()), "ref_allele": "G", "eff_allele": "A"}
        weights.append(weight)
        rows += [(gene, names[a], names[b], repr(float(covariance[a, b]))) for b in range(a, a // 5 * 5 + 5)]
    order = ("rsid", "gene", "weight", "ref_allele", "eff_allele")
    write_db(tmp_path / "T.db", weights, [{"gene": f"G{g}"} for g in range(m // 5)], order=order)
    write_covariance_text(tmp_path / "T.txt.gz", rows)
    scan = tmp_path / "scan"
    assert code_of("gwas", "run", tmp_path / "g.bed", traits, "--full", "--out", scan) == 0
    models = ("--models", tmp_path / "T.db")
    assert code_of("twas", "associate", scan, *models, "--out", tmp_path / "t.parquet") == 0
    assert code_of("gwas", "export", scan, "--genome-build", "GRCh37", "--out", tmp_path / "ssf") == 0
    exported = sorted((tmp_path / "ssf").glob("*.gz"))
    pattern = ("--phenotype-pattern", r"([ab])\.")
    assert code_of("twas", "associate", *exported, *pattern, *models, "--out", tmp_path / "s.parquet") == 0
    ours, theirs = as_rows(tmp_path / "t.parquet"), as_rows(tmp_path / "s.parquet")
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2 * m // 5
    for key, row in ours.items():
        assert row["zscore"] == pytest.approx(theirs[key]["zscore"], abs=1e-4)
        assert row["n_snps_used"] == 5
    planted = {k[0]: max(((r["neg_log10_p"], k[2]) for k, r in ours.items()), default=None) for k in ours}
    assert set(planted) == {"a", "b"}
    assert all(gene == "G0" for _, gene in planted.values())


def test_published_gwas_with_the_published_model(tmp_path):
    """80 weights of the Liver model are in the lipid GWAS, 30 of them counted the other way round."""
    data = real_data("twas")
    out = tmp_path / "t.parquet"
    liver = data / "models" / "mashr_liver"
    assert code_of(
        "twas", "associate", data / "gwas" / "glgc_ldl_chr22.txt.gz", "--models", liver / "mashr_Liver.db",
        "--covariances", liver / "mashr_Liver_cov_rsid.txt.gz", "--out", out,
    ) == 0  # fmt: skip
    rows = list(as_rows(out).values())
    assert sum(r["n_snps_used"] for r in rows) == 80
    import gzip
    import sqlite3

    with gzip.open(data / "gwas" / "glgc_ldl_chr22.txt.gz", "rt") as stream:
        header = stream.readline().split()
        gwas = {f[0]: dict(zip(header, f, strict=True)) for f in (line.split() for line in stream)}
    with sqlite3.connect(liver / "mashr_Liver.db") as connection:
        weights = connection.execute("select gene, rsid, weight, ref_allele, eff_allele from weights").fetchall()
    connection.close()
    with gzip.open(liver / "mashr_Liver_cov_rsid.txt.gz", "rt") as stream:
        next(stream)
        covariance = {(g, a, b): float(v) for g, a, b, v in (line.split() for line in stream)}
    swapped = 0
    for row in rows:
        used = []
        for gene, snp, weight, other, effect in weights:
            if gene != row["gene"] or snp not in gwas:
                continue
            pair = (gwas[snp]["Allele1"].upper(), gwas[snp]["Allele2"].upper())
            sign = {(effect, other): 1, (other, effect): -1}[pair]
            swapped += sign < 0
            used.append((snp, weight, sign * float(gwas[snp]["GC.Zscore"]), sign * float(gwas[snp]["Effect"])))

        def gamma(a, b, gene=row["gene"]):
            return covariance.get((gene, a, b), covariance.get((gene, b, a)))

        variance = sum(w * v * gamma(a, b) for a, w, *_ in used for b, v, *_ in used)
        z = sum(w * np.sqrt(gamma(a, a)) * x for a, w, x, _ in used) / np.sqrt(variance)
        effect = sum(w * gamma(a, a) * b for a, w, _, b in used) / variance
        np.testing.assert_allclose([row["zscore"], row["effect_size"], row["var_g"]], [z, effect, variance], rtol=1e-12)
    assert swapped == 30


def test_gene_z_of_ctwas(tmp_path):
    """Genes of one SNP have the z that ctwas computed from the same model and GWAS; others use another LD panel."""
    data = real_data("twas")
    import gzip

    (tmp_path / "ldl.tsv").write_bytes(gzip.decompress((data / "gwas" / "ukb_ldl_chr16_locus_z.tsv.gz").read_bytes()))
    liver = data / "models" / "mashr_liver"
    assert code_of(
        "twas", "associate", tmp_path / "ldl.tsv", "--columns", "snp=id,z=z,effect_allele=A1,other_allele=A2",
        "--models", liver / "mashr_Liver.db", "--covariances", liver / "mashr_Liver_cov_rsid.txt.gz",
        "--out", tmp_path / "t.parquet",
    ) == 0  # fmt: skip
    with gzip.open(data / "gwas" / "ctwas_chr16_ldl_gene_z.tsv.gz", "rt") as stream:
        cells = [line.rstrip("\n").split("\t") for line in stream][1:]
    theirs = {c[0].split("|")[0]: float(c[1]) for c in cells if c[3] == "liver"}
    rows = [r for (_, _, gene), r in as_rows(tmp_path / "t.parquet").items() if gene in theirs]
    single = [r for r in rows if r["n_snps_used"] == r["n_snps_in_model"] == 1]
    assert len(single) >= 2
    for row in single:
        assert row["zscore"] == pytest.approx(theirs[row["gene"]], rel=1e-10)
