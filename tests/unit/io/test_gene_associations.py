"""Tables of gene associations by any program, folders of whole matrices, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io import open_gene_folder, read_annotation, read_gene_associations, read_gene_matrices
from brainlocus.numerics import neg_log10_p_from_z

S_PREDIXCAN = "gene,gene_name,zscore,effect_size,pvalue,pred_perf_r2\nG1,ONE,2.5,0.1,0.0124,0.3\nG2,NA,NA,NA,NA,NA\n"


def test_s_predixcan_named_by_pattern_and_neuroimagene(tmp_path):
    first = tmp_path / "SCZ_xt_Brain_Cortex.csv"
    first.write_text(S_PREDIXCAN)
    second = tmp_path / "resource.tsv"
    second.write_text("gene\tgene_name\tgwas_phenotype\ttraining_model\tzscore\nG3\tTHREE\tarea\tLiver\t-4\n")
    found = read_gene_associations([first, second], pattern=r"(?P<phenotype>[^_]+)_xt_(?P<tissue>.+)\.csv")
    assert found.genes.tolist() == ["G1", "G2", "G3"]
    assert found.gene_names.tolist() == ["ONE", "", "THREE"]
    assert found.phenotypes[found.phenotype].tolist() == ["SCZ", "SCZ", "area"]
    assert found.tissues[found.tissue].tolist() == ["Brain_Cortex", "Brain_Cortex", "Liver"]
    np.testing.assert_array_equal(found.z, [2.5, np.nan, -4.0])
    np.testing.assert_array_equal(found.effect, [0.1, np.nan, np.nan])
    np.testing.assert_allclose(found.neg_log10_p, neg_log10_p_from_z(np.array([2.5, np.nan, 4.0])))
    few = read_gene_associations([second], max_p=1e-3)
    assert len(few) == 1
    assert len(read_gene_associations([second], max_p=1e-5)) == 0


def test_matrices_of_tables(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("phenotype\ttissue\tgene\tzscore\np1\tA\tG1\t1\np2\tA\tG2\t2\np1\tB\tG1\t3\n")
    one, two = read_gene_matrices([path])
    np.testing.assert_array_equal(one.z, [[1, np.nan], [np.nan, 2]])
    assert one.effect is None
    np.testing.assert_array_equal(two.z, [[3, np.nan]])
    with pytest.raises(SchemaError, match="no tissue 'C'"):
        list(read_gene_matrices([path], tissues=["C"]))
    path.write_text(path.read_text() + "p1\tB\tG1\t3\n")
    with pytest.raises(SchemaError, match="two results for one phenotype"):
        list(read_gene_matrices([path]))


def test_folder(tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    models = {"tissue": ["A", "A", "B"], "gene": ["G1", "G2", "G1"], "gene_name": ["", "TWO", ""]}
    pq.write_table(pa.table({**models, "pred_perf_r2": [0.1, 0.2, 0.3]}), folder / "models.parquet")
    pq.write_table(pa.table({"phenotype": ["p1", "p2"]}), folder / "phenotypes.parquet")
    z = np.array([[1, 5], [np.nan, -6], [0.5, 2.5]], dtype=np.float32)
    np.save(folder / "z.npy", z)
    opened = open_gene_folder(folder)
    assert opened.tissues == ("A", "B")
    np.testing.assert_array_equal(opened.matrix("B").z, z[2:])
    whole = read_gene_associations([folder])
    assert len(whole) == 6
    strong = read_gene_associations([folder], max_p=0.05)
    names = zip(
        strong.genes[strong.gene], strong.tissues[strong.tissue], strong.phenotypes[strong.phenotype], strict=True
    )
    assert [tuple(map(str, n)) for n in names] == [("G1", "A", "p2"), ("G2", "A", "p2"), ("G1", "B", "p2")]
    assert strong.pred_perf_r2.tolist() == [0.1, 0.2, 0.3]
    np.save(folder / "z.npy", z[:2])
    with pytest.raises(FormatError, match="not whole"):
        open_gene_folder(folder)
    with pytest.raises(FormatError, match="expected a folder of twas associate --full"):
        open_gene_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene,p\nG1,0.1\n", "expected columns gene and zscore"),
        ("gene,zscore\nG1,0.1\n", "expected a column tissue"),
        ("gene,zscore\nG1,high\n", "expected a table of gene associations"),
    ],
)
def test_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises((FormatError, SchemaError), match=message):
        read_gene_associations([tmp_path / "t.csv"])
    (tmp_path / "u.csv").write_text("gene,zscore\nG1,1\n")
    with pytest.raises(SchemaError, match="does not match the pattern"):
        read_gene_associations([tmp_path / "u.csv"], pattern="(?P<tissue>x)")


def test_annotation(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("gwas_phenotype\tmodality\tatlas\np1\tT1\tnull\np2\t\tDK\n")
    found = read_annotation(path)
    assert found.of("atlas", np.array(["p2", "p9", "p1"])).tolist() == ["DK", "", ""]
    assert found.unknown(np.array(["p1", "p9"])) == 1
    with pytest.raises(SchemaError, match="has none of the 1 phenotypes"):
        found.unknown(np.array(["p9"]))
    with pytest.raises(SchemaError, match="no column 'region'"):
        found.of("region", np.array(["p1"]))
    path.write_text(path.read_text() + "p1\tT1\t\n")
    with pytest.raises(SchemaError, match="1 phenotypes more than once: p1"):
        read_annotation(path)
