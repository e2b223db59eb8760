"""``store build --twas`` and ``store query`` through the command line, on planted and on published results."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.io import read_results
from brainlocus.store import verify
from tests.gene_folder import ANNOTATION, write_gene_folder

NIDP = Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere")) / "twas" / "nidp"
VIGNETTE = NIDP / "neuroimagene_vignette_associations.tsv.gz"
needs_nidp = pytest.mark.skipif(not VIGNETTE.exists(), reason="needs BRAINLOCUS_DATA: twas/nidp")


def code_of(*arguments):
    """Run the command line and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def run(capsys, *arguments):
    """Return the exit code and what was printed."""
    code = code_of(*arguments)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("twas")
    write_gene_folder(root / "full")
    (root / "annotation.tsv").write_text(ANNOTATION)
    return root


@pytest.fixture(scope="module")
def store(root):
    out = root / "store"
    options = ["--twas", root / "full", "--twas-annotation", root / "annotation.tsv", "--title", "Genes", "--quiet"]
    assert code_of("store", "build", *options, "--out", out) == 0
    return out


def query(capsys, store, out, *options):
    code, err = run(capsys, "store", "query", store, *options, "--out", out)
    return code, err, (read_results(out) if out.exists() else None)


def test_a_store_of_genes_alone_is_sound(store):
    report = verify(store)
    assert report.ok, report.problems
    counts = json.loads(store.with_name("store.json").read_text())["counts"]
    assert counts["gene_associations"] > 50
    assert counts["variants"] == 0


def test_a_list_of_genes_gives_their_phenotypes(capsys, store, tmp_path):
    code, err, table = query(capsys, store, tmp_path / "q.parquet", "--genes", "gene7,GENE8,NOSUCH,GENE777")
    assert code == 3
    assert "2 of the genes are not in the store: NOSUCH, GENE777" in err
    assert set(table["gene_name"].tolist()) == {"GENE7", "GENE8"}
    assert set(table["phenotype"][table["gene_name"] == "GENE7"].tolist()) == {"C12_3", "C12_4"}
    assert (table["q_bh"] <= 0.05).all()
    assert (table["zscore"][table["gene_name"] == "GENE8"] < 0).all()
    counts = json.loads((tmp_path / "q.parquet.json").read_text())["counts"]
    assert counts["genes"] == 2
    assert counts["genes_unknown_names"] == ["NOSUCH", "GENE777"]
    assert counts["associations"] == len(table) < counts["associations_read"]


def test_a_file_of_ids_is_read(capsys, store, tmp_path):
    genes = pq.read_table(store / "genes.parquet").to_pydict()
    (tmp_path / "genes.txt").write_text("# a comment\n" + "\n".join(g.split(".")[0] for g in genes["gene"][:5]) + "\n")
    code, _, table = query(capsys, store, tmp_path / "q.tsv", "--genes", tmp_path / "genes.txt", "--scope", "nominal")
    assert code == 0
    assert set(table["gene"].tolist()) <= set(genes["gene"][:5])
    assert (table["pvalue"] <= 0.05 * (1 + 1e-5)).all()


def test_phenotypes_give_their_genes(capsys, store, tmp_path):
    options = ["--phenotypes", "FA of tract (left)", "--scope", "phenotype", "--correction", "bonferroni"]
    code, _, table = query(capsys, store, tmp_path / "q.parquet", *options)
    assert code == 0
    assert table["gene_name"].tolist()[0] == "GENE8"
    assert set(table["phenotype"].tolist()) == {"FA_of_tract_(left)"}
    assert (table["p_bonferroni"] <= 0.05).all()


def test_filters_and_sums(capsys, store, tmp_path):
    options = ["--modality", "T1", "--side", "left,right", "--tissue", "Liver", "--scope", "nominal"]
    _, _, rows = query(capsys, store, tmp_path / "rows.parquet", *options)
    assert set(rows["tissue"].tolist()) == {"Liver"}
    assert set(rows["modality"].tolist()) == {"T1"}
    _, _, sums = query(capsys, store, tmp_path / "sums.tsv", *options, "--summary", "phenotype")
    assert sums["n_associations"].sum() == len(rows)
    for k, phenotype in enumerate(sums["phenotype"].tolist()):
        mine = rows["phenotype"] == phenotype
        assert sums["n_genes"][k] == np.unique(rows["gene"][mine]).size
        assert sums["mean_abs_z"][k] == pytest.approx(np.abs(rows["zscore"][mine]).mean(), rel=1e-5)
    for by in ("gene", "region", "tissue", "modality"):
        code, _, sums = query(capsys, store, tmp_path / f"{by}.parquet", *options, "--summary", by)
        assert code == 0
        assert sums["n_associations"].sum() == len(rows)


def test_nothing_that_passes_is_an_empty_table(capsys, store, tmp_path):
    code, err, table = query(capsys, store, tmp_path / "q.parquet", "--genes", "GENE11", "--alpha", "1e-30")
    assert code == 0
    assert len(table) == 0
    assert "0 associations at q <= 1e-30 over the study" in err
    assert "zscore" in table.names
    code, _, table = query(
        capsys, store, tmp_path / "s.tsv", "--genes", "GENE11", "--alpha", "1e-30", "--summary", "gene"
    )
    assert code == 0
    assert len(table) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--genes", "NOSUCH"], "None of the 1 genes is in the store"),
        (["--genes", "GENE777"], "Did you mean 'GENE7"),
        (["--phenotypes", "C12_33"], "Did you mean 'C12_3'"),
        (["--modality", "T9"], "There is no modality 'T9' in this store"),
        (["--tissue", "liver,Lung"], "There is no tissue 'Lung'"),
        (["--alpha", "0.2", "--scope", "nominal"], "alpha 0.2 is above 0.05"),
        (["--alpha", "2"], "less than or equal to 1"),
        (["--scope", "studies"], "studies"),
        (["--summary", "genes"], "genes"),
    ],
)
def test_bad_queries_give_one_message_and_leave_nothing(capsys, store, tmp_path, options, message):
    code, err = run(capsys, "store", "query", store, *options, "--out", tmp_path / "q.tsv")
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_store_without_genes_says_what_to_build(capsys, tmp_path):
    from tests.portal_study import write_study

    write_study(tmp_path / "s", brain=False)
    code, err = run(capsys, "store", "query", tmp_path / "s", "--genes", "A", "--out", tmp_path / "q.tsv")
    assert code == 2
    assert "store build --twas" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--twas-annotation", "annotation.tsv"], "give at least one of"),
        (["--twas", "annotation.tsv"], "expected columns gene and zscore"),
        (["--twas", "empty.tsv"], "expected a table with a header"),
        (["--twas", "header.tsv"], "found a table without rows"),
        (["--twas", "broken.parquet"], "broken.parquet"),
        (["--twas", "full,full"], "has two results for phenotype"),
        (["--twas", "cut"], "expected numbers of 237 x 7, found float32 of (3, 7)"),
        (["--twas", "nowhere.tsv"], "nowhere.tsv"),
        (["--twas", "full", "--twas-max-p", "0"], "greater than 0"),
        (["--twas", "full", "--twas-annotation", "twice.tsv"], "more than once"),
        (["--twas", "one.tsv"], "expected a column tissue, or a pattern"),
    ],
)
def test_bad_results_give_one_message_and_leave_nothing(root, capsys, tmp_path, options, message):
    import shutil

    (root / "empty.tsv").write_text("")
    (root / "header.tsv").write_text("gene\ttissue\tphenotype\tzscore\n")
    (root / "broken.parquet").write_bytes(b"PAR1 but no more")
    (root / "twice.tsv").write_text("phenotype\tmodality\na\tT1\na\tT1\n")
    (root / "one.tsv").write_text("gene\tzscore\nG\t3\n")
    if not (root / "cut").exists():
        shutil.copytree(root / "full", root / "cut")
        np.save(root / "cut" / "z.npy", np.zeros((3, 7), dtype=np.float32))
    paths = [",".join(str(root / part) if (root / part).exists() else part for part in o.split(",")) for o in options]
    code, err = run(capsys, "store", "build", *paths, "--quiet", "--out", tmp_path / "s")
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@needs_nidp
def test_published_associations_come_back_as_filtered_by_hand(capsys, tmp_path):
    """The vignette of NeuroimaGene with the annotation of 3,935 phenotypes, against a literal filter of its table."""
    import csv
    import gzip

    annotation = NIDP / "BIG40-IDPs_v4_discovery2_anno.tsv.gz"
    options = ["--twas", VIGNETTE, "--twas-annotation", annotation, "--out", tmp_path / "s"]
    code, err = run(capsys, "store", "build", *options)
    assert code == 0
    assert "no q for the scopes study, atlas, phenotype, phenotype-tissue" in err
    assert verify(tmp_path / "s").ok
    with gzip.open(VIGNETTE, "rt") as stream:
        published = list(csv.DictReader(stream, delimiter="\t"))
    with gzip.open(annotation, "rt") as stream:
        known = {row["gwas_phenotype"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert len(published) == 3_824
    for gene in ("EXOSC6", "PICK1", "ZIC4"):
        mine = [
            row
            for row in published
            if row["gene_name"] == gene
            and float(row["mod_BHpval"]) <= 0.01
            and known[row["gwas_phenotype"]]["measurement"] == "thickness"
        ]
        chosen = ["--genes", gene, "--scope", "modality", "--alpha", "0.01", "--measurement", "thickness"]
        code, _, table = query(capsys, tmp_path / "s", tmp_path / f"{gene}.parquet", *chosen)
        assert code == 0
        found = {
            (p, t): (z, q)
            for p, t, z, q in zip(table["phenotype"], table["tissue"], table["zscore"], table["q_bh"], strict=True)
        }
        assert len(found) == len(mine) == len(table)
        for row in mine:
            z, q = found[row["gwas_phenotype"], row["training_model"]]
            assert z == pytest.approx(float(row["zscore"]), rel=1e-5)
            assert q == pytest.approx(float(row["mod_BHpval"]), rel=1e-5)
        assert set(table["side"].tolist()) <= {"left", "right", "midline", "global", ""}


@needs_nidp
def test_every_published_phenotype_name_is_an_id(tmp_path):
    """No name of the 3,935 has to be changed to be found under."""
    import gzip

    from brainlocus.store import public_id

    with gzip.open(NIDP / "BIG40-IDPs_v4_discovery2_anno.tsv.gz", "rt") as stream:
        names = [line.split("\t")[0] for line in stream][1:]
    assert len(names) == 3_935
    assert [public_id(name) for name in names] == names


def test_the_store_corrects_as_the_scan_does(capsys, tmp_path):
    """Simulated models and GWAS, scanned by twas associate: its q and Bonferroni p, by another algorithm."""
    sim, scopes = tmp_path / "sim", ("study", "phenotype", "phenotype-tissue")
    assert run(capsys, "simulate", "twas", sim, "--genes", "60", "--regions", "2", "--causal", "6", "--quiet")[0] == 0
    options = ["--models", sim / "models", "--scope", ",".join(scopes), "--adjust", "bh,bonferroni", "--hits", "0.05"]
    outputs = ["--full", tmp_path / "full", "--out", tmp_path / "t.parquet", "--quiet"]
    assert run(capsys, "twas", "associate", sim / "discovery.tsv", *options, *outputs)[0] == 0
    scan = read_results(tmp_path / "t.parquet")
    for source in ("full", "t.parquet"):
        store = tmp_path / f"store of {source}"
        assert run(capsys, "store", "build", "--twas", tmp_path / source, "--quiet", "--out", store)[0] == 0
        for scope in scopes:
            name = scope.replace("-", "_")
            code, _, found = query(capsys, store, tmp_path / f"{source}-{name}.parquet", "--scope", scope)
            assert code == 0
            keys = ("gene", "phenotype", "tissue")
            passed = scan.take(scan[f"q_bh_{name}"] <= 0.05)
            columns = (*keys, f"q_bh_{name}", f"p_bonferroni_{name}")
            expected = {row[:3]: row[3:] for row in zip(*(passed[c].tolist() for c in columns), strict=True)}
            assert len(found) == len(expected) > 5
            for row in zip(*(found[k].tolist() for k in (*keys, "q_bh", "p_bonferroni")), strict=True):
                q, p = expected[row[:3]]
                assert row[3] == pytest.approx(q, rel=1e-4)
                assert row[4] == pytest.approx(p, rel=2e-3)
