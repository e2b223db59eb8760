"""``twas replicate``, ``specificity``, ``enrich`` and ``genes ontology`` through the command line: planted and real."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.io import read_results
from tests.real_data import real_data
from tests.unit.twas.replication_panel import cohorts
from tests.unit.twas.study import small_study

PATTERN = r"(?P<phenotype>[^_]+)_[xs]t_(?P<tissue>.+)\.csv"


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def message(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def write_table(tests, path):
    """Write tests as a table, as twas associate does."""
    pq.write_table(
        pa.table(
            {
                "phenotype": tests.phenotypes[tests.phenotype].tolist(),
                "tissue": tests.tissues[tests.tissue].tolist(),
                "gene": tests.genes[tests.gene].tolist(),
                "gene_name": tests.gene_names[tests.gene].tolist(),
                "zscore": tests.z,
                "neg_log10_p": tests.neg_log10_p,
            }
        ),
        path,
    )
    return path


def write_folder(tests, modelled, path):
    """Write tests as a folder of whole matrices."""
    path.mkdir()
    n_phenotypes = tests.phenotypes.size
    tissue, gene = np.nonzero(modelled.T)
    row = np.full(modelled.shape, -1)
    row[gene, tissue] = np.arange(gene.size)
    z = np.full((gene.size, n_phenotypes), np.nan)
    z[row[tests.gene, tests.tissue], tests.phenotype] = tests.z
    np.save(path / "z.npy", z)
    columns = {"tissue": tests.tissues[tissue], "gene": tests.genes[gene], "gene_name": tests.gene_names[gene]}
    models = {name: column.tolist() for name, column in columns.items()}
    pq.write_table(pa.table(models | {"pred_perf_r2": np.linspace(0.01, 0.4, gene.size)}), path / "models.parquet")
    pq.write_table(pa.table({"phenotype": tests.phenotypes.tolist()}), path / "phenotypes.parquet")
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tests, modelled = small_study()
    strong = tests.take(tests.neg_log10_p >= -np.log10(0.05))
    return {
        "all": write_table(tests, folder / "all.parquet"),
        "strong": write_table(strong, folder / "strong.parquet"),
        "folder": write_folder(tests, modelled, folder / "full"),
        "tests": tests,
        "n": len(tests),
    }


def test_replicate_jti_and_predixcan_on_real_tables(tmp_path):
    """5,066 genes in both, 632 nominal in both, 0.9984 of equal sign, Spearman of effects 0.9168."""
    first = real_data("twas/results_jti/SCZ_xt_Brain_Frontal_Cortex_BA9.csv.gz")
    second = real_data("twas/results_jti/SCZ_st_Brain_Frontal_Cortex_BA9.csv.gz")
    out = tmp_path / "agreement.parquet"
    options = ("--file-pattern", PATTERN, "--report", tmp_path / "report", "--quiet")
    assert code_of("twas", "replicate", first, second, *options, "--out", out) == 0
    found = read_results(out)
    (row,) = np.flatnonzero((found["level"] == "all") & (found["selection"] == "both"))
    assert found["n_tests"][row] == 632
    assert round(found["same_sign"][row], 4) == 0.9984
    assert round(found["spearman_rho"][row], 4) == 0.9168
    counts = json.loads((tmp_path / "agreement.parquet.json").read_text())["counts"]
    assert counts["tests_in_both"] == 5066
    assert (tmp_path / "report" / "estimates.png").stat().st_size > 5000


def test_replicate_by_modality_and_from_folders(tmp_path, study):
    annotation = tmp_path / "annotation.tsv"
    rows = [f"p{k}\t{'T1' if k % 2 else 'dMRI'}" for k in range(70)]
    annotation.write_text("phenotype\tmodality\n" + "\n".join(rows) + "\n")
    outs = []
    for k, (first, second) in enumerate(((study["folder"], study["folder"]), (study["all"], study["folder"]))):
        out = tmp_path / f"agreement{k}.tsv"
        options = ("--annotation", annotation, "--report", tmp_path / f"report{k}", "--estimate", "z", "--quiet")
        assert code_of("twas", "replicate", first, second, *options, "--out", out) == 0
        outs.append(read_results(out))
    assert (outs[0]["same_sign"][outs[0]["n_tests"] > 0] == 1).all()
    for name in outs[0].names:
        np.testing.assert_array_equal(outs[0][name], outs[1][name])
    assert sorted(p.name for p in (tmp_path / "report0").iterdir()) == [
        "estimates.png",
        "modalities.png",
        "modalities_tissues.png",
    ]
    assert {"T1", "dMRI"} == set(outs[0]["modality"][outs[0]["level"] == "modality"].tolist())


def test_replicate_external(tmp_path):
    first, second = cohorts(seed=1, effect=4.0, tissues=1, genes=80)
    lines = ["phenotype\ttissue\tgene\tzscore\tpred_perf_r2"]
    m = first[0]
    place = {name: k for k, name in enumerate(m.phenotypes.tolist())}
    for i, gene in enumerate(m.genes.tolist()):
        for side in ("lh", "rh"):
            lines.append(f"{side}_a\tt0\t{gene}\t{m.z[i, place['p0']]:.6f}\t{m.pred_perf_r2[i]:.4f}")
    (tmp_path / "one.tsv").write_text("\n".join(lines).replace("nan", "NA") + "\n")
    lines = ["phenotype\ttissue\tgene\tzscore"]
    n = second[0]
    column = n.phenotypes.tolist().index("p0") if "p0" in n.phenotypes.tolist() else 0
    lines += [f"a\tt0\t{gene}\t{z:.6f}" for gene, z in zip(n.genes.tolist(), n.z[:, column], strict=True)]
    (tmp_path / "two.tsv").write_text("\n".join(lines).replace("nan", "NA") + "\n")
    (tmp_path / "pairs.tsv").write_text("left\tright\texternal\nlh_a\trh_a\ta\n")
    (tmp_path / "annotation.tsv").write_text("phenotype\tside\tregion\nlh_a\tleft\tx\nrh_a\tright\tx\na\tboth\tx\n")
    command = ("twas", "replicate", tmp_path / "one.tsv", tmp_path / "two.tsv", "--mode", "external", "--quiet")
    tables = []
    for name, option in (("pairs", "--pairs"), ("annotation", "--annotation")):
        options = (option, tmp_path / f"{name}.tsv", "--tests", tmp_path / f"{name}_tests.tsv")
        out = tmp_path / f"{name}_out.tsv"
        assert code_of(*command, *options, "--report", tmp_path / f"{name}_report", "--out", out) == 0
        tables.append(read_results(out))
        found = read_results(tmp_path / f"{name}_tests.tsv")
        assert len(found) == tables[-1]["n_discovered"][0] > 5
        assert (tmp_path / f"{name}_report" / "external.png").stat().st_size > 5000
    assert tables[0]["share_significant"][0] == tables[1]["share_significant"][0] > 0.3


def test_specificity_of_table_folder_and_of_the_strong_tests(study, tmp_path):
    outs = {}
    for name, results, options in (
        ("folder", study["folder"], ()),
        ("strong", study["strong"], ("--models", study["folder"] / "models.parquet", "--n-tests", study["n"])),
    ):
        out = tmp_path / name
        assert code_of("twas", "specificity", results, *options, "--quiet", "--out", out) == 0
        outs[name] = read_results(out / "genes.parquet")
        assert len(read_results(out / "comparisons.parquet")) == 14
        for figure in ("breadth", "strength", "tissues"):
            assert (out / f"{figure}.png").stat().st_size > 5000
    for name in outs["folder"].names:
        np.testing.assert_array_equal(outs["strong"][name], outs["folder"][name])


def test_specificity_of_the_vignette(tmp_path):
    vignette = real_data("twas/nidp/neuroimagene_vignette_associations.tsv.gz")
    assert code_of("twas", "specificity", vignette, "--method", "p", "--quiet", "--out", tmp_path / "out") == 0
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert (counts["tests_significant"], counts["genes_significant"]) == (3824, 7)
    tissues = read_results(tmp_path / "out" / "tissues.parquet")
    assert (tissues["group"] == "brain").sum() == 13
    assert tissues["n_associations"].sum() == 3824


def test_enrich_from_table_and_folder(study, tmp_path):
    (tmp_path / "genes.txt").write_text("# a set\nENSG00000000003\nsym7\nENSG00000000011.3\nNOWHERE\n")
    (tmp_path / "phenotypes.tsv").write_text("phenotype\tx\n" + "".join(f"p{k}\t1\n" for k in range(45)))
    command = ("--genes", tmp_path / "genes.txt", "--phenotypes", tmp_path / "phenotypes.tsv", "--permutations", "99")
    tables = {}
    for name in ("all", "folder"):
        out = tmp_path / name
        assert code_of("twas", "enrich", study[name], *command, "--quiet", "--out", out) == 0
        tables[name] = read_results(out / "thresholds.parquet")
        counts = json.loads((tmp_path / f"{name}.json").read_text())["counts"]
        assert counts["genes_unmatched"] == ["NOWHERE"]
        assert counts["genes_of_set_tested"] == 3
        assert read_results(out / "genes.parquet")["gene_name"].tolist() == ["SYM3", "SYM7", "SYM11"]
        assert (out / "draws.png").stat().st_size > 5000
    for name in tables["all"].names:
        np.testing.assert_array_equal(tables["all"][name], tables["folder"][name])
    assert tables["all"]["threshold"].tolist()[:6] == [0.05, 0.01, 0.005, 0.001, 5e-4, 1e-4]


def test_enrich_matched_on_real_positions_and_blocks(tmp_path):
    results = real_data("twas/results_jti/SCZ_xt_Brain_Frontal_Cortex_BA9.csv.gz")
    positions = real_data("twas/genes/gencode.v32.GRCh37.simplified.txt.gz")
    blocks = real_data("twas/genes/ldetect_EUR.b37.bed")
    (tmp_path / "phenotypes.txt").write_text("SCZ\n")
    # Five genes of the MHC and three others.
    (tmp_path / "genes.txt").write_text("ZSCAN26\nHLA-DRB1\nHLA-DQB1\nBTN3A2\nC4A\nCNNM2\nFURIN\nPPP2R3A\n")
    for match in ("blocks",):
        out = tmp_path / match
        options = ("--match", match, "--positions", positions, "--blocks", blocks, "--permutations", "200")
        code = code_of(
            "twas", "enrich", results, "--file-pattern", PATTERN, "--genes", tmp_path / "genes.txt", "--phenotypes",
            tmp_path / "phenotypes.txt", *options, "--exclude-set", "--quiet", "--out", out,
        )  # fmt: skip
        assert code == 0
        counts = json.loads((tmp_path / f"{match}.json").read_text())["counts"]
        if match == "blocks":
            assert counts["genes_of_set_by_block"][0] >= 2
            assert counts["genes_of_set_without_block"] == 0


def go_options():
    folder = "twas/go"
    return (
        "--ontology", real_data(f"{folder}/go_edges.tsv.gz"), "--terms", real_data(f"{folder}/go_terms.tsv.gz"),
        "--annotation", real_data(f"{folder}/human_direct_cc.tsv.gz"), "--ids",
        real_data(f"{folder}/human_gene_ids.tsv.gz"), "--ontologies", "CC",
    )  # fmt: skip


def test_ontology_of_real_genes(tmp_path):
    """Symbols, Ensembl with a version and Entrez ids of the same genes; a cluster that nothing is known of."""
    ids = [line.split("\t") for line in _lines(real_data("twas/go/human_gene_ids.tsv.gz"))[1:]]
    direct = _lines(real_data("twas/go/human_direct_cc.tsv.gz"))[1:]
    ribosome = sorted({line.split("\t")[0] for line in direct if line.split("\t")[1] == "GO:0022625"})[:30]
    symbol = {e: s for e, s, _ in ids}
    ensembl = {e: g for e, _, g in ids if g.startswith("ENSG")}
    genes = [(e, "entrez") for e in ribosome] + [(symbol[e].lower(), "symbol") for e in ribosome]
    genes += [(ensembl[e] + ".7", "ensembl") for e in ribosome if e in ensembl] + [("NOTHING", "unknown")]
    (tmp_path / "q.tsv").write_text("gene\tcluster\n" + "".join(f"{g}\t{c}\n" for g, c in genes))
    (tmp_path / "universe.txt").write_text("\n".join(sorted({line.split("\t")[0] for line in direct})))
    out = tmp_path / "terms.tsv"
    options = (
        "--universe",
        tmp_path / "universe.txt",
        "--simplify",
        "jaccard",
        "--similarity",
        "0.4",
        "--report",
        tmp_path / "report",
    )
    assert code_of("genes", "ontology", tmp_path / "q.tsv", *go_options(), *options, "--quiet", "--out", out) == 3
    found = read_results(out)
    one = {c: found.take(np.flatnonzero(found["cluster"] == c)) for c in ("entrez", "symbol", "ensembl", "unknown")}
    assert one["unknown"]["status"].tolist() == ["no gene of the cluster is annotated"]
    assert one["entrez"]["term"][0] in ("cytosolic large ribosomal subunit", "large ribosomal subunit")
    assert one["entrez"]["neg_log10_p"][0] > 60
    for name in ("term_id", "n_overlap", "neg_log10_p", "similar_to"):
        np.testing.assert_array_equal(one["symbol"][name], one["entrez"][name])
    assert "" in one["entrez"]["similar_to"].tolist()
    repeated = np.flatnonzero(one["entrez"]["similar_to"] != "")
    assert repeated.size > 0
    kept = one["entrez"]["term_id"][one["entrez"]["similar_to"] == ""].tolist()
    assert all(term in kept for term in one["entrez"]["similar_to"][repeated].tolist())
    left_out = read_results(tmp_path / "report" / "genes_left_out.tsv")
    assert ("NOTHING", "unknown id") in list(zip(left_out["gene"].tolist(), left_out["reason"].tolist(), strict=True))
    assert (tmp_path / "report" / "terms_CC.png").stat().st_size > 5000
    # One list of one gene.
    (tmp_path / "one.txt").write_text(symbol[ribosome[0]] + "\n")
    options = ("--all-annotated", "--quiet", "--out", tmp_path / "one.parquet")
    assert code_of("genes", "ontology", tmp_path / "one.txt", *go_options(), *options) == 0
    assert set(read_results(tmp_path / "one.parquet")["cluster"].tolist()) == {"one"}


def _lines(path):
    import gzip

    return gzip.decompress(path.read_bytes()).decode().splitlines()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replicate", "{all}", "{other}"), "No tissue is in both"),
        (("replicate", "{all}", "{all}", "--fdr", "0.2"), "up to alpha"),
        (("replicate", "{all}", "{all}", "--mode", "external"), "needs --pairs or --annotation"),
        (
            ("replicate", "{all}", "{all}", "--mode", "external", "--pairs", "{genes}"),
            "expected columns left, right and",
        ),
        (("replicate", "{all}", "{all}", "--file-pattern", "("), "expected a regular expression"),
        (("replicate", "{all}", "{all}", "--estimate", "effect"), "no effect sizes; compare z"),
        (("specificity", "{all}", "--alpha", "1e-300"), "is significant"),
        (("specificity", "{other}"), "'Muscle' is neither called brain"),
        (("specificity", "{all}", "--scope", "modality"), "needs --annotation"),
        (("specificity", "{all}", "--groups", "{genes}"), "expected columns tissue and group"),
        (("specificity", "{all}", "{folder}"), "found both; give one kind"),
        (
            ("enrich", "{all}", "--genes", "{none}", "--phenotypes", "{phenotypes}"),
            "none of its 2 genes is in the results: X1, X2",
        ),
        (
            ("enrich", "{all}", "--genes", "{genes}", "--phenotypes", "{none}"),
            "none of its 2 phenotypes is in the results",
        ),
        (
            ("enrich", "{all}", "--genes", "{genes}", "--phenotypes", "{phenotypes}", "--thresholds", "0,2"),
            "p-values above 0",
        ),
        (
            ("enrich", "{all}", "--genes", "{genes}", "--phenotypes", "{phenotypes}", "--match", "blocks"),
            "needs --positions",
        ),
        (("enrich", "{all}", "--genes", "{every}", "--phenotypes", "{phenotypes}", "--exclude-set"), "can be drawn"),
        (
            ("enrich", "{all}", "--genes", "{genes}", "--phenotypes", "{phenotypes}", "--match", "r2"),
            "no model of the results has",
        ),
    ],
)
def test_bad_input(study, tmp_path, capsys, arguments, expected):
    (tmp_path / "other.tsv").write_text("phenotype\ttissue\tgene\tzscore\np1\tMuscle\tg\t5\n")
    (tmp_path / "genes.tsv").write_text("gene\tx\nSYM1\t1\n")
    (tmp_path / "phenotypes.txt").write_text("p1\n")
    (tmp_path / "none.txt").write_text("X1\nX2\n")
    (tmp_path / "every.txt").write_text("\n".join(study["tests"].genes.tolist()))
    names = {n: study[n] for n in ("all", "folder")} | {
        "other": tmp_path / "other.tsv",
        "genes": tmp_path / "genes.tsv",
        "phenotypes": tmp_path / "phenotypes.txt",
        "none": tmp_path / "none.txt",
        "every": tmp_path / "every.txt",
    }
    out = tmp_path / ("x.tsv" if arguments[0] == "replicate" else "x")
    assert code_of("twas", *(a.format(**names) for a in arguments), "--quiet", "--out", out) == 2
    assert expected in message(capsys)
    assert not out.exists()


def test_ontology_wants_a_universe(tmp_path, capsys):
    for name, text in (
        ("edges.tsv", "child\tparent\trelationship_type\na\tb\tisa\n"),
        ("terms.tsv", "go_id\tterm\tontology\na\tA\tCC\nb\tB\tCC\n"),
        ("genes.tsv", "entrez\tgo_id\n1\ta\n2\tb\n"),
        ("q.txt", "1\n"),
    ):
        (tmp_path / name).write_text(text)
    command = (
        "genes", "ontology", tmp_path / "q.txt", "--ontology", tmp_path / "edges.tsv", "--terms",
        tmp_path / "terms.tsv", "--annotation", tmp_path / "genes.tsv", "--quiet", "--out", tmp_path / "out.tsv",
    )  # fmt: skip
    assert code_of(*command) == 2
    assert "expected the genes that were tested" in message(capsys)
    (tmp_path / "far.txt").write_text("9\n")
    assert code_of(*command, "--universe", tmp_path / "far.txt") == 2
    assert "none of its 1 genes is annotated" in message(capsys)
    assert code_of(*command, "--all-annotated", "--ontologies", "XX") == 2
    assert "there is no XX" in message(capsys)
    assert code_of(*command, "--all-annotated", "--min-size", "1") == 0
    found = read_results(tmp_path / "out.tsv")
    assert found["term_id"].tolist() == ["a", "b"]
