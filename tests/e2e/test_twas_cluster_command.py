"""``twas cluster`` through the command line: planted clusters, annotations, real contexts, bad input, memory."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.genetics.twas import adjusted_rand
from brainlocus.io import read_results
from tests.e2e.test_memory import MIB, measure
from tests.real_data import real_data

MORE = ("--permutations", "99", "--quiet")
LOBES = ("frontal", "temporal", "parietal", "occipital", "insula")


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write_folder(folder, z_by_tissue, phenotypes, symbols=True):
    folder.mkdir()
    rows = [
        (tissue, f"ENSG{k:05d}", f"G{k}" if symbols else "") for tissue, z in z_by_tissue.items() for k in range(len(z))
    ]
    columns = dict(zip(("tissue", "gene", "gene_name"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table({**columns, "pred_perf_r2": np.full(len(rows), 0.1)}), folder / "models.parquet")
    pq.write_table(pa.table({"phenotype": phenotypes}), folder / "phenotypes.parquet")
    np.save(folder / "z.npy", np.concatenate(list(z_by_tissue.values())).astype(np.float32))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Phenotypes of 5 lobes, left and right, of two tissues, with some missing cells and one that lacks most."""
    root = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    lobe = np.repeat(np.arange(5), 8)
    names, rows = [], []
    for side in ("left", "right"):
        for k in range(40):
            names.append(f"area_{side[0]}_{k}")
            rows.append(("T1", "a" if k % 2 else "b", side, LOBES[lobe[k]], f"region{k}", "area"))
    tissues = {}
    for tissue, n_genes in (("Brain_Cortex", 400), ("Liver", 300)):
        shared, own = rng.normal(size=(n_genes, 5)), rng.normal(size=(n_genes, 40))
        z = np.tile(shared[:, lobe] + 0.7 * own, 2) + 0.5 * rng.normal(size=(n_genes, 80))
        z[rng.random(z.shape) < 0.002] = np.nan
        z[10:, 79] = np.nan
        tissues[tissue] = z
    write_folder(root / "full", tissues, names)
    header = "phenotype\tmodality\tatlas\tside\tlobe\tregion\tmeasurement"
    lines = ["\t".join((name, *row)) for name, row in zip(names, rows, strict=True)]
    (root / "annotation.tsv").write_text("\n".join([header, *lines]) + "\n")
    return root, lobe


def test_planted_clusters_are_found(planted, tmp_path):
    root, lobe = planted
    out = tmp_path / "out"
    options = ("--annotation", root / "annotation.tsv", "--colour-by", "lobe", "--validate-by", "lobe,atlas,modality")
    assert code_of("twas", "cluster", root / "full", *options, "--embed", "pca", *MORE, "--out", out) == 0
    tissues = read_results(out / "tissues.parquet")
    assert tissues["tissue"].tolist() == ["Brain_Cortex", "Liver"]
    assert tissues["n_phenotypes"].tolist() == [79, 79]  # one lacks most genes
    assert tissues["n_clusters"].tolist() == [5, 5]
    clusters = read_results(out / "clusters.parquet")
    first = clusters.take(clusters["tissue"] == "Brain_Cortex")
    assert adjusted_rand(first["phenotype_cluster"], np.tile(lobe, 2)[:79]) == 1.0
    assert sorted(first["leaf"].tolist()) == list(range(1, 80))
    rho = np.load(out / "Brain_Cortex" / "spearman.npy")
    assert (out / "Brain_Cortex" / "phenotypes.txt").read_text().split() == first["phenotype"].tolist()
    assert first["spearman"][0] == np.sort(rho[0])[-2]
    validity = read_results(out / "validity.parquet")
    assert validity["annotation"].tolist()[:3] == ["lobe", "atlas", "homologue"]  # modality has one level
    assert validity["tissue"].tolist() == ["Brain_Cortex"] * 3 + ["Liver"] * 3
    assert validity["adjusted_rand"][0] == 1.0
    assert abs(validity["adjusted_rand"][1]) < 0.1
    assert validity["neighbour_hit_rate"][0] == 1.0
    assert validity["neighbour_hit_p"][0] == 1 / 100
    assert validity["neighbour_hit_rate"][2] > 0.95  # homologues share everything but noise
    points = read_results(out / "embedding.parquet")
    assert {"pc_1", "pc_10"} <= set(points.names)
    components = read_results(out / "components.parquet")
    assert components["component"].tolist() == [*range(1, 11)] * 2
    assert components["tissue"].tolist() == ["Brain_Cortex"] * 10 + ["Liver"] * 10
    assert components["gene_name"][0].startswith("G")
    assert components["variance_explained"][:4].sum() > 0.5
    linkage = read_results(out / "Liver" / "linkage.parquet")
    assert linkage["n_phenotypes"][-1] == 79
    assert (out / "Liver" / "tree.nwk").read_text().count("area") == 79
    for name in ("heatmap", "dendrogram", "pca"):
        assert (out / "Liver" / f"{name}.png").stat().st_size > 10_000
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["tissues"]["Liver"] == {
        "phenotypes_in_results": 80, "not_in_annotation": 0, "below_min_finite": 1, "homologues_in_one_cluster": 1.0,
        "homologues": 39, "lateral_without_homologue": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_umap_keeps_planted_clusters_together(planted, tmp_path):
    pytest.importorskip("umap")
    root, lobe = planted
    out = tmp_path / "out"
    options = ("--annotation", root / "annotation.tsv", "--colour-by", "lobe", "--tissues", "Liver", "--quiet")
    assert code_of("twas", "cluster", root / "full", *options, "--out", out) == 0
    tissues = read_results(out / "tissues.parquet")
    assert (tissues["umap_neighbours"][0], tissues["umap_min_distance"][0]) == (78, 0.09)
    assert tissues["trustworthiness"][0] > 0.85
    points = read_results(out / "embedding.parquet")
    at = np.stack([points["umap_1"], points["umap_2"]], axis=1)
    far = ((at[:, None] - at[None]) ** 2).sum(axis=2) + np.diag(np.full(79, np.inf))
    truth = np.tile(lobe, 2)[:79]
    assert (truth[far.argmin(axis=1)] == truth).mean() > 0.95
    assert (out / "Liver" / "umap.png").stat().st_size > 10_000
    notes = json.loads((tmp_path / "out.json").read_text())["counts"]["notes"]
    assert notes[0] == "Liver: UMAP with 78 neighbours rather than 150, as there are 79 phenotypes."


def test_choices_of_phenotypes_and_all_tissues_together(planted, tmp_path):
    root, _ = planted
    (tmp_path / "list.txt").write_text("\n".join([f"area_l_{k}" for k in range(30)] + ["unheard_of"]) + "\n")
    out = tmp_path / "out"
    code = code_of(
        "twas", "cluster", root / "full", "--annotation", root / "annotation.tsv", "--side", "left", "--atlas", "a",
        "--measurement", "area", "--phenotype-list", tmp_path / "list.txt", "--phenotypes", "area_?_*", "--linkage",
        "ward.D", "--order", "optimal", "--clusters", "4", "--embed", "pca", "--embed-over", "all", "--scale",
        "--no-figures", "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 0
    tissues = read_results(out / "tissues.parquet")
    assert tissues["tissue"].tolist() == ["Brain_Cortex", "Liver", "all"]
    assert tissues["n_phenotypes"].tolist() == [15, 15, 15]
    assert tissues["n_genes"].tolist() == [400, 300, 700]
    assert read_results(out / "embedding.parquet")["tissue"].tolist() == ["all"] * 15
    clusters = read_results(out / "clusters.parquet")
    assert clusters["phenotype_cluster"].max() == 4
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]["tissues"]["Liver"]
    assert counts["not_in_list"] == 50
    assert counts["listed_but_not_in_results"] == 1
    assert counts["other_side"] == 0
    assert counts["other_atlas"] == 15
    assert not list(out.rglob("*.png"))


def test_same_bytes_again_and_a_tissue_alone(planted, tmp_path):
    root, _ = planted
    for name, memory in (("a", "2GiB"), ("b", "150MiB")):
        options = ("--embed", "pca", "--no-figures", "--memory", memory, "--quiet")
        assert code_of("twas", "cluster", root / "full", "--tissues", "Liver", *options, "--out", tmp_path / name) == 0
    for name in ("clusters.parquet", "Liver/spearman.npy", "Liver/tree.nwk"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_tissue_that_cannot_be_clustered_has_a_status(tmp_path):
    z = np.random.default_rng(1).normal(size=(20, 6))
    flat = z.copy()
    flat[:, 2] = 1.5
    write_folder(tmp_path / "full", {"Good": z, "Flat": flat}, [f"p{k}" for k in range(6)])
    out = tmp_path / "out"
    assert code_of("twas", "cluster", tmp_path / "full", "--embed", "none", "--out", out, "--quiet") == 3
    tissues = read_results(out / "tissues.parquet")
    assert tissues["status"][0] == "ok"
    assert "6 of 6 phenotypes have correlations that are undefined: p2 (6)" in tissues["status"][1]
    assert not (out / "Flat").exists()


def test_single_cell_contexts_of_schizophrenia(tmp_path):
    """Twelve cell types with 976 to 1,837 genes each, as phenotypes; against pandas."""
    import pandas as pd

    folder = real_data("twas/results_singlecell_scz")
    files = sorted(folder.glob("*.csv.gz"))
    out = tmp_path / "out"
    code = code_of(
        "twas", "cluster", *files, "--file-pattern", r"(?P<phenotype>[^.]+)\.assn", "--tissue-name", "scz",
        "--min-finite", "0.1", "--missing", "pairwise", "--embed", "pca", "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 0
    names = (out / "scz" / "phenotypes.txt").read_text().split()
    z = pd.concat({f.name.split(".")[0]: pd.read_csv(f).set_index("gene").zscore for f in files}, axis=1)[names]
    rho = np.load(out / "scz" / "spearman.npy")
    assert np.abs(rho - z.corr("spearman").to_numpy()).max() < 1e-12
    # The cell types share the GWAS: all but a few pairs agree, the nearest being floor plate progenitors.
    assert (rho[np.triu_indices(12, 1)] > 0).mean() > 0.9
    clusters = read_results(out / "clusters.parquet")
    assert dict(zip(clusters["phenotype"], clusters["nearest_phenotype"], strict=True))["FPP52"] == "PFPP11"


def test_big40_annotation_goes_with_its_names(tmp_path):
    """Simulated z of all 3,934 named phenotypes would be slow; 300 of them show that the columns are understood."""
    annotation = real_data("twas/nidp/BIG40-IDPs_v4_discovery2_anno.tsv.gz")
    from brainlocus.io import read_annotation

    names = [n for n in read_annotation(annotation).phenotypes.tolist() if n.startswith("aparc-Desikan")][:200]
    write_folder(tmp_path / "full", {"T": np.random.default_rng(0).normal(size=(100, 200))}, names)
    out = tmp_path / "out"
    options = ("--annotation", annotation, "--modality", "T1", "--measurement", "area,volume", "--side", "left,right")
    code = code_of("twas", "cluster", tmp_path / "full", *options, "--embed", "none", "--no-figures", "--out", out)
    assert code == 0
    rows = read_results(out / "validity.parquet")
    assert set(rows["annotation"].tolist()) == {"region", "side", "measurement", "homologue"}
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]["tissues"]["T"]
    assert counts["not_in_annotation"] == 0
    assert counts["homologues"] > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--modality", "T1"), "--modality: give the table that says this of phenotypes with --annotation"),
        (("--annotation", "{a}", "--modality", "T2"), "has nothing of 'T2'. There are: T1."),
        (("--annotation", "{a}", "--validate-by", "lobes"), "no column 'lobes'. Did you mean 'lobe'?"),
        (("--annotation", "{a}", "--colour-by", "colour"), "--colour-by: the annotation has no column 'colour'"),
        (("--colour-by", "lobe"), "--colour-by: give the table of phenotypes with --annotation"),
        (("--phenotypes", "area_x*"), "no phenotype of the results matches 'area_x*'"),
        (("--clusters", "3", "--height", "1"), "--clusters and --height both cut the tree"),
        (("--clusters", "80"), "--clusters 80, but there are 79 phenotypes"),
        (("--embed", "tsne"), "expected pca, umap or none, found 'tsne'"),
        (("--values", "effect_size"), "the results have no effect sizes"),
        (("--min-finite", "1"), "expected two phenotypes or more with values for 100%"),
        (("--tissues", "liver"), "there is no tissue 'liver'. Did you mean 'Liver'?"),
        (("--file-pattern", "(?P<gene>x)"), "expected a group (?P<phenotype>...) or (?P<tissue>...)"),
        (("--file-pattern", "("), "expected a regular expression"),
        (("--memory", "20MiB"), "Raise --memory"),
    ],
)
def test_bad_input(planted, tmp_path, capsys, options, message):
    root, _ = planted
    given = [o.replace("{a}", str(root / "annotation.tsv")) for o in options]
    if options[0] == "--min-finite":
        given += ["--phenotypes", "area_r_39,area_l_0"]
    out = tmp_path / "x"
    assert code_of("twas", "cluster", root / "full", *given, "--out", out, "--quiet") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["zero", "pairwise"])
def test_phenotypes_stream_within_the_memory_given(tmp_path, missing):
    """1,500 phenotypes x 6,000 genes, 72 MB on disk in float64 terms, of which no copy is ever whole."""
    rng = np.random.default_rng(0)
    for name, n_genes, n in (("small", 60, 20), ("large", 6000, 1500)):
        write_folder(tmp_path / name, {"T": rng.normal(size=(n_genes, n))}, [f"p{k}" for k in range(n)], symbols=False)
    command = ("twas", "cluster", tmp_path / "{}", "--neighbours", "15", "--missing", missing)
    small, large = ([str(a).format(name) for a in command] for name in ("small", "large"))
    code, peak, message, _ = measure(tmp_path, small, large, 300)
    assert code == 0, message
    assert peak <= 300 * MIB, f"{peak / MIB:.0f} MiB"
    for path in tmp_path.glob("*out*"):
        path.rename(path.with_name(f"first-{path.name}"))
    code, peak, message, out = measure(tmp_path, small, large, 120)
    assert code == 2
    assert "Raise --memory" in message
    assert not out.exists()
