"""``twas map`` through the command line: ENIGMA's tables, results of genes, other parcellations, bad input."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.cli.main import main
from brainlocus.genetics.twas import DESIKAN_KILLIANY
from brainlocus.io import read_results
from tests.real_data import real_data


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def cortex(tmp_path_factory):
    """Labels of fsaverage5 in stripes from front to back, both hemispheres alike; results of two genes."""
    pytest.importorskip("nilearn")
    from brainlocus.io.surfaces import read_fsaverage5

    root = tmp_path_factory.mktemp("cortex")
    names = [n for n in DESIKAN_KILLIANY if n != "corpuscallosum"]
    codes = [k + 1 for k, n in enumerate(DESIKAN_KILLIANY) if n != "corpuscallosum"]
    numbers = []
    for side, mesh in enumerate(read_fsaverage5("inflated")):
        rank = np.argsort(np.argsort(mesh.vertices[:, 1]))
        part = rank * len(codes) // rank.size
        numbers.append(np.where(rank % 50 == 0, 0, np.array(codes)[part] + 35 * side))
    np.savetxt(root / "dk.csv", np.concatenate(numbers), fmt="%d")
    phenotypes, rows = [], []
    for measure in ("area", "thickness"):
        for side in ("lh", "rh"):
            for name in names:
                phenotypes.append(f"dk_{side}_{measure}_{name}")
                rows.append((phenotypes[-1], side, name, f"{side}_{name}", "dk"))
    for side, word in (("lh", "Left"), ("rh", "Right")):
        phenotypes.append(f"aseg_{side}_area_Caudate")
        rows.append((phenotypes[-1], side, "Caudate", f"{word}-Caudate", "aseg"))
    phenotypes += ["dk_lh_area_Total", "aseg_lh_area_Cerebellum", "other"]
    rows += [("dk_lh_area_Total", "lh", "Total", "", "dk")]
    rows += [("aseg_lh_area_Cerebellum", "lh", "cerebellum", "Right-Cerebellum-Cortex", "aseg")]
    lines = ["\t".join(r) for r in rows]
    (root / "regions.tsv").write_text("\n".join(["phenotype\themisphere\tfs_name\tlabel\tatlas", *lines]) + "\n")
    measures = [p.split("_")[2] if "_" in p else "" for p in phenotypes]
    text = "".join(f"{p}\t{m}\n" for p, m in zip(phenotypes, measures, strict=True))
    (root / "annotation.tsv").write_text("phenotype\tmeasurement\n" + text)
    folder = root / "full"
    folder.mkdir()
    genes = ["ENSG1.4", "ENSG2.1", "ENSG2.1"]
    pq.write_table(
        pa.table(
            {"tissue": ["A", "A", "B"], "gene": genes, "gene_name": ["ONE", "TWO", "TWO"], "pred_perf_r2": [0.1] * 3}
        ),
        folder / "models.parquet",
    )
    pq.write_table(pa.table({"phenotype": phenotypes}), folder / "phenotypes.parquet")
    z = np.random.default_rng(0).normal(size=(3, len(phenotypes)))
    z[0, 3] = np.nan
    np.save(folder / "z.npy", z)
    return root, phenotypes, z


def test_a_gene_on_the_cortex(cortex, tmp_path):
    root, phenotypes, z = cortex
    out = tmp_path / "out"
    code = code_of(
        "twas", "map", root / "full", "--gene", "one", "--regions", root / "regions.tsv", "--annotation",
        root / "annotation.tsv", "--measurement", "area", "--labels", root / "dk.csv", "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 3  # the table puts a left phenotype on the right
    table = read_results(out / "regions.tsv")
    ok = table.take(table["status"] == "ok")
    assert len(ok) == 67 + 2
    for name, value in zip(ok["region"].tolist(), ok["value"].tolist(), strict=True):
        assert value == z[0, phenotypes.index(name)]
    others = {
        (region, label): status
        for region, label, status in zip(table["region"], table["label"], table["status"], strict=True)
        if status != "ok"
    }
    missing = phenotypes[3].replace("dk_lh_area_", "lh_")
    assert others == {
        ("", missing): "no value",
        ("dk_lh_area_Total", ""): "no region",
        ("aseg_lh_area_Cerebellum", ""): "the table gives Right-Cerebellum-Cortex to a phenotype of the lh",
    }
    assert table["n_vertices"][0] > 200
    assert (out / "map.png").stat().st_size > 50_000
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert (counts["regions_drawn"], counts["structures_drawn"], counts["without_value"]) == (67, 2, 1)
    assert counts["other_measurement"] == 69
    assert counts["not_of_atlas"] == 0


def test_the_same_with_hemisphere_and_name_and_by_pattern(cortex, tmp_path):
    root, _, _ = cortex
    lines = [line.split("\t") for line in (root / "regions.tsv").read_text().splitlines()]
    few = ["\t".join((a, b, c, "Desikan" if e == "dk" else e)) for a, b, c, d, e in lines if d.startswith(("lh", "rh"))]
    (tmp_path / "fs.tsv").write_text("\n".join(["gwas_phenotype\themisphere\tfs_name\tatlas", *few]) + "\n")
    out = tmp_path / "out"
    code = code_of(
        "twas", "map", root / "full", "--gene", "ENSG2", "--tissue", "B", "--regions", tmp_path / "fs.tsv",
        "--phenotypes", "dk_*_thickness_*", "--labels", root / "dk.csv", "--surface", "pial", "--limit", "2",
        "--title", "TWO in B", "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 0
    assert (read_results(out / "regions.tsv")["status"] == "ok").sum() == 68


def test_any_table_with_a_table_of_names(cortex, tmp_path):
    root, _, _ = cortex
    (tmp_path / "effects.csv").write_text("place,beta\nIns L,0.5\nIns R,-0.2\nMoon,1\nCun L,NA\n")
    (tmp_path / "names.tsv").write_text("region\tlabel\nIns L\tlh_insula\nIns R\trh_insula\nCun L\tlh_cuneus\n")
    out = tmp_path / "out"
    code = code_of(
        "twas", "map", tmp_path / "effects.csv", "--region-column", "place", "--value", "beta", "--region-names",
        tmp_path / "names.tsv", "--labels", root / "dk.csv", "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 3
    table = read_results(out / "regions.tsv")
    assert table["label"][:3].tolist() == ["lh_insula", "rh_insula", ""]
    assert table["status"][:3].tolist() == ["ok", "ok", "not on the map"]
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["unmatched"] == {"Moon": "not on the map"}
    assert (counts["without_value"], len(counts["regions_without_value"])) == (1, 66)


@pytest.mark.parametrize(("atlas", "name"), [("destrieux", "G_and_S_frontomargin"), ("dkt", "insula")])
def test_other_parcellations_by_annot_files(tmp_path, atlas, name):
    """FreeSurfer's own files; the names of the NIDPs' table are those of the files."""
    nibabel = pytest.importorskip("nibabel")
    regions = real_data("twas/nidp/fs_anno_r.tsv.gz")
    from brainlocus.io import read_annotation

    read = read_annotation(regions)
    mine = read.columns["atlas"] == atlas
    labels = sorted(set(read.columns["label"][mine].tolist()) - {""})
    for side in ("lh", "rh"):
        names = ["Unknown", *(label.removeprefix(f"{side}_") for label in labels if label.startswith(side))]
        assert name in names
        code = (np.arange(10_242) * len(names) // 10_242).astype(np.int32)
        colours = np.array([[k, 9, 9, 0, k + 9 * 256 + 9 * 65536] for k in range(len(names))])
        nibabel.freesurfer.write_annot(str(tmp_path / f"{side}.test.annot"), code, colours, names)
    chosen = [p for p in read.phenotypes[mine].tolist() if "_thickness_" in p]
    z = np.random.default_rng(0).normal(size=len(chosen))
    rows = "".join(f"{p}\tT\tENSG1\tONE\t{v}\n" for p, v in zip(chosen, z.tolist(), strict=True))
    (tmp_path / "results.tsv").write_text("phenotype\ttissue\tgene\tgene_name\tzscore\n" + rows)
    out = tmp_path / "out"
    code = code_of(
        "twas", "map", tmp_path / "results.tsv", "--gene", "ONE", "--regions", regions, "--atlas", atlas, "--labels",
        f"{tmp_path / 'lh.test.annot'},{tmp_path / 'rh.test.annot'}", "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 0
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["regions_drawn"] == len(labels)
    assert counts["regions_drawn"] >= 60
    assert counts["regions_without_value"] == []


@pytest.mark.parametrize("table", ["scz_case-controls_CortThick", "22q_case-controls_CortSurf"])
def test_enigma_tables(tmp_path, table):
    folder = real_data("twas/enigma")
    out = tmp_path / "out"
    tables = [folder / f"summary_statistics/{name}.csv" for name in (table, "scz_case-controls_SubVol")]
    options = ("--value", "d_icv", "--labels", folder / "surfaces/aparc_fsa5.csv", "--quiet")
    code = code_of("twas", "map", *tables, *options, "--out", out)
    assert code == 0
    rows = read_results(out / "regions.tsv")
    assert (rows["status"] == "ok").all()
    assert len(rows) == 68 + 16
    at = dict(zip(rows["label"].tolist(), rows["value"].tolist(), strict=True))
    assert at["Left-Hippocampus"] == pytest.approx(-0.43)
    if table.startswith("scz"):
        assert min(at, key=at.get) in ("lh_fusiform", "rh_fusiform")  # van Erp et al. 2018


def test_neuroimagene_associations(tmp_path):
    """EXOSC6 in the adrenal gland, as the vignette of NeuroimaGene has it: the values of the file, and no more."""
    import pandas as pd

    folder = real_data("twas/nidp")
    associations = folder / "neuroimagene_vignette_associations.tsv.gz"
    out = tmp_path / "out"
    code = code_of(
        "twas", "map", associations, "--gene", "EXOSC6", "--tissue", "JTI_Adrenal_Gland", "--regions",
        folder / "fs_anno_r.tsv.gz", "--annotation", folder / "BIG40-IDPs_v4_discovery2_anno.tsv.gz", "--measurement",
        "thickness", "--labels", real_data("twas/enigma/surfaces/aparc_fsa5.csv"), "--out", out, "--quiet",
    )  # fmt: skip
    assert code == 0
    table = read_results(out / "regions.tsv")
    drawn = table.take(table["status"] == "ok")
    theirs = pd.read_csv(associations, sep="\t")
    theirs = theirs[(theirs.gene_name == "EXOSC6") & (theirs.training_model == "JTI_Adrenal_Gland")]
    expected = theirs.set_index("gwas_phenotype").zscore
    expected = expected[expected.index.str.match("aparc-Desikan_.h_thickness_(?!Global)")]
    assert dict(zip(drawn["region"].tolist(), drawn["value"].tolist(), strict=True)) == expected.to_dict()
    assert len(drawn) == 5


def test_every_enigma_table_has_its_place(tmp_path):
    """All 104 tables: no structure of any is unknown. Two of them end in columns without a name."""
    from brainlocus.genetics.twas import enigma_regions
    from brainlocus.io import read_arrow

    folder = real_data("twas/enigma/summary_statistics")
    names = set()
    for path in folder.glob("*.csv"):
        names |= {str(n).strip() for n in read_arrow(path).column("Structure").to_pylist()} - {"", "None"}
    assert names - set(enigma_regions()) == set()
    assert len(names) == 68 + 16


def test_subcortex_alone(tmp_path):
    (tmp_path / "t.tsv").write_text("region\tz\nLeft-Caudate\t2\nRight-Caudate\t-1\nBrain-Stem\t0.5\n")
    out = tmp_path / "out"
    options = ("--value", "z", "--atlas", "subcortex", "--out", out, "--quiet")
    assert code_of("twas", "map", tmp_path / "t.tsv", *options) == 0
    assert read_results(out / "regions.tsv")["status"].tolist() == ["ok"] * 3
    assert (out / "map.png").stat().st_size > 5000


BAD = [
    (("{full}", "--gene", "ONE"), "--gene: give the table of phenotypes and their regions with --regions"),
    (("{full}", "--gene", "TWO", "--regions", "{r}"), "--tissue: TWO has models in A, B; name one"),
    (("{full}", "--gene", "ON", "--regions", "{r}"), "--gene: no model of 'ON' in A, B. Did you mean 'ONE'?"),
    (("{full}", "--gene", "ONE", "--regions", "{r}", "--value", "beta"), "expected zscore or effect_size with --gene"),
    (("{full}", "--gene", "ONE", "--regions", "{r}", "--value", "effect_size"), "the results have no effect sizes"),
    (("{full}", "--gene", "ONE", "--regions", "{a}"), "expected columns atlas, and label or hemisphere and fs_name"),
    (("{full}", "--gene", "ONE", "--regions", "{r}"), "Two values are of lh_bankssts: dk_lh_area_bankssts and dk_lh"),
    (("{full}", "--value", "z"), "a folder of results needs --gene"),
    (("{t}",), "--value: name the column. t.tsv has: region, z"),
    (("{t}", "--value", "y"), "--value: there is no column 'y'"),
    (("{t}", "--value", "z", "--tissue", "A"), "--tissue: only with --gene"),
    (("{t}", "--value", "z"), "No region has a place on the map of dk. The input has Mars, Moon ...; the map has"),
    (("{t}", "--value", "z", "--region-column", "z"), "No region has a place"),
    (("{t}", "--value", "region", "--region-column", "z"), "t.tsv, line 2: expected a number in region, found 'Moon'"),
    (("{t}", "--value", "z", "--meshes", "{t}"), "--meshes: expected two files"),
    (("{t}", "--value", "z", "--label-names", "{t}"), "expected columns code and label"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(cortex, tmp_path, capsys, options, message):
    root, _, _ = cortex
    (tmp_path / "t.tsv").write_text("region\tz\nMoon\t1\nMars\t2\n")
    places = {"full": root / "full", "r": root / "regions.tsv", "a": root / "annotation.tsv", "t": tmp_path / "t.tsv"}
    given = [o.format(**places) for o in options]
    out = tmp_path / "x"
    assert code_of("twas", "map", *given, "--labels", root / "dk.csv", "--out", out, "--quiet") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_labels_must_be_given_and_fit_the_mesh(tmp_path, capsys):
    (tmp_path / "t.tsv").write_text("region\tz\nlh_insula\t1\n")
    assert code_of("twas", "map", tmp_path / "t.tsv", "--value", "z", "--out", tmp_path / "x", "--quiet") == 2
    assert "--labels: give the dk labels of the vertices" in capsys.readouterr().err
    (tmp_path / "few.csv").write_text("1\n36\n")
    options = ("--value", "z", "--labels", tmp_path / "few.csv", "--out", tmp_path / "x", "--quiet")
    assert code_of("twas", "map", tmp_path / "t.tsv", *options) == 2
    assert "expected a label for each of the 10242 vertices of the left mesh, found 1" in capsys.readouterr().err
