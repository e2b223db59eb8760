"""Gene associations in a store: what comes back, and q of every scope, against the tests themselves."""

import json
from contextlib import closing

import numpy as np
import pyarrow.parquet as pq
import pytest

from brainlocus.core import SCOPES, GeneAssociations, GeneBlock, PhenotypeAnnotation, SchemaError
from brainlocus.io import read_annotation, read_gene_blocks
from brainlocus.numerics import neg_log10_p_from_z
from brainlocus.numerics.multiplicity import benjamini_hochberg_q
from brainlocus.store import (
    GeneFilter,
    LocalStore,
    PhenotypeInfo,
    StoreSettings,
    StoreWriter,
    UnknownValueError,
    gene_peak_bytes,
    public_id,
    verify,
)
from tests.gene_folder import ANNOTATION, write_gene_folder

MAX_P = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_gene_folder(tmp_path_factory.mktemp("twas") / "full")


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    path = tmp_path_factory.mktemp("annotation") / "annotation.tsv"
    path.write_text(ANNOTATION)
    return read_annotation(path)


def build(path, blocks, annotation=None, *, max_p=MAX_P, **settings):
    with StoreWriter(path, StoreSettings(**settings)) as writer:
        writer.add_gene_associations(blocks, max_p=max_p, annotation=annotation)
        writer.seal()
    return path


@pytest.fixture(scope="module")
def path(folder, annotation, tmp_path_factory):
    return build(
        tmp_path_factory.mktemp("store") / "s",
        read_gene_blocks([folder.path], max_p=MAX_P),
        annotation,
        precision="full",
    )


@pytest.fixture(scope="module")
def store(path):
    with closing(LocalStore(path)) as opened:
        yield opened


def every_test(folder):
    """Return gene, tissue, phenotype, z and -log10 p of every test with a result, read literally."""
    tests = []
    for m in range(folder.gene.size):
        for p, name in enumerate(folder.phenotypes.tolist()):
            z = folder.z[m, p]
            if np.isfinite(z):
                strength = float(neg_log10_p_from_z(np.array([z]))[0])
                tests.append((str(folder.gene[m]), str(folder.tissue[m]), name, float(z), strength))
    return tests


def group_of(scope, tissue, phenotype, annotation):
    """Return what is corrected together with a test."""
    known = dict(zip(annotation.phenotypes.tolist(), range(annotation.phenotypes.size), strict=True))
    at = known.get(phenotype)
    if scope in ("modality", "atlas"):
        return "" if at is None else str(annotation.columns[scope][at])
    return {"study": "", "phenotype": phenotype, "phenotype-tissue": (phenotype, tissue)}[scope]


def naive_q(tests, scope, annotation):
    """Return q of every test, corrected over all tests of its group."""
    groups = {}
    for k, (_, tissue, phenotype, _, _) in enumerate(tests):
        groups.setdefault(group_of(scope, tissue, phenotype, annotation), []).append(k)
    q = np.full(len(tests), np.nan)
    for rows in groups.values():
        q[rows] = benjamini_hochberg_q(np.array([tests[k][4] for k in rows]))
    return q, {name: len(rows) for name, rows in groups.items()}


def test_verifies_and_counts(path, folder):
    report = verify(path)
    assert report.ok, report.problems
    counts = json.loads((path / "store.json").read_text())["counts"]
    tests = every_test(folder)
    assert counts["gene_tests"] == len(tests)
    assert counts["gene_associations"] == sum(t[4] >= -np.log10(MAX_P) for t in tests)
    assert counts["genes"] == np.unique(folder.gene).size
    assert counts["gene_models"] == folder.gene.size
    assert counts["phenotypes_renamed"] == 1
    assert counts["phenotypes_not_annotated"] == 1


@pytest.mark.parametrize("scope", SCOPES)
def test_q_of_every_scope_is_that_of_all_tests(store, folder, annotation, scope):
    """Exact up to the p that was kept, never too small above it; Bonferroni exact throughout."""
    tests = every_test(folder)
    q, sizes = naive_q(tests, scope, annotation)
    expected = {t[:3]: (t, value) for t, value in zip(tests, q, strict=True)}
    seen = 0
    for gene in store.twas.genes:
        rows = store.twas.of_gene(gene["gid"], GeneFilter(scope="nominal"))
        names = store.twas.columns(rows, scope)
        for k in range(len(rows)):
            name = next(n for n in folder.phenotypes.tolist() if public_id(n) == names["phenotype_id"][k])
            test, _ = expected[names["gene"][k], names["tissue"][k], name]
            assert names["zscore"][k] == pytest.approx(test[3], rel=1e-6)
            m = sizes[group_of(scope, test[1], name, annotation)]
            assert names["p_bonferroni"][k] == pytest.approx(min(10.0 ** -test[4] * m, 1.0), rel=1e-4)
            seen += 1
    assert seen == sum(t[4] >= -np.log10(MAX_P) for t in tests)
    table = pq.read_table(store.root / "twas/by_gene/g00000.parquet").to_pylist()
    table += pq.read_table(store.root / "twas/by_gene/g00001.parquet").to_pylist()
    for row in table:
        phenotype = next(p for p in store.phenotypes if p["pid"] == row["pid"])
        name = next(n for n in folder.phenotypes.tolist() if public_id(n) == phenotype["phenotype_id"])
        gene, tissue = store.twas.genes[row["gid"]]["gene"], store.twas.tissues[row["tid"]]["tissue"]
        true = expected[gene, tissue, name][1]
        found = 10.0 ** -row[f"nlog10q_{scope.replace('-', '_')}"]
        if true <= MAX_P:
            assert found == pytest.approx(true, rel=1e-4)
        else:
            assert found >= true * (1 - 1e-4)


def test_a_scope_selects_what_its_q_says(store, folder, annotation):
    tests = every_test(folder)
    for scope in SCOPES:
        q, _ = naive_q(tests, scope, annotation)
        expected = {(*t[:2], public_id(t[2])) for t, value in zip(tests, q, strict=True) if value <= 0.05}
        found = set()
        for _, rows in store.twas.stream(GeneFilter(scope=scope)):
            columns = store.twas.columns(rows, scope)
            found |= set(zip(columns["gene"], columns["tissue"], columns["phenotype_id"], strict=True))
            assert all(value <= 0.05 * (1 + 1e-5) for value in columns["q_bh"])
        assert found == expected
        assert found


def test_bonferroni_selects_by_the_size_of_the_scope(store, folder, annotation):
    tests = every_test(folder)
    for scope in SCOPES:
        _, sizes = naive_q(tests, scope, annotation)
        expected = {
            (*t[:2], public_id(t[2]))
            for t in tests
            if 10.0 ** -t[4] * sizes[group_of(scope, t[1], t[2], annotation)] <= 0.05
        }
        chosen = GeneFilter(scope=scope, correction="bonferroni")
        found = set()
        for _, rows in store.twas.stream(chosen):
            columns = store.twas.columns(rows, scope)
            found |= set(zip(columns["gene"], columns["tissue"], columns["phenotype_id"], strict=True))
        assert found == expected


def test_both_orders_give_the_same_rows(store):
    """Phenotype by phenotype and gene by gene."""

    def rows_of(parts):
        rows = [(g, p, t, z) for r in parts for g, p, t, z in zip(r.gid, r.pid, r.tid, r.z, strict=True)]
        return sorted(rows)

    by_gene = rows_of(store.twas.of_gene(g["gid"], GeneFilter()) for g in store.twas.genes)
    by_phenotype = rows_of(store.twas.of_phenotype(p["pid"], GeneFilter()) for p in store.phenotypes)
    streamed = rows_of(r for _, r in store.twas.stream(GeneFilter(), pids=[p["pid"] for p in store.phenotypes]))
    assert by_gene == by_phenotype == streamed == rows_of(r for _, r in store.twas.stream(GeneFilter()))
    strengths = store.twas.of_gene(store.twas.find_gene("GENE7")["gid"], GeneFilter()).strength
    assert (np.diff(strengths) <= 0).all()


def test_planted_genes_come_first(store):
    gene = store.twas.find_gene("gene7")
    rows = store.twas.rows(store.twas.of_gene(gene["gid"], GeneFilter(scope="study")), "study")
    assert {r["phenotype_id"] for r in rows} == {"C12_3", "C12_4"}
    assert all(r["zscore"] > 0 and r["q_bh"] < 0.05 for r in rows)
    assert gene["n_significant"] == len(rows)
    assert gene["n_phenotypes_significant"] == 2
    tract = store.phenotype("FA_of_tract_(left)")
    first = store.twas.rows(store.twas.of_phenotype(tract["pid"], GeneFilter(scope="study")), "study")[0]
    assert first["gene_name"] == "GENE8"
    assert first["zscore"] < 0
    assert tract["n_genes_significant"] == 1


def test_genes_are_found_by_symbol_and_id(store):
    by_name = store.twas.find_gene("GeNe7")
    assert store.twas.find_gene(by_name["gene"]) == by_name
    assert store.twas.find_gene(by_name["gene"].split(".")[0].lower()) == by_name
    assert store.twas.find_gene(by_name["gene"].split(".")[0] + ".99") == by_name
    assert store.twas.find_gene("GENE700") is None
    assert "GENE7" in store.twas.near_genes("GENE777")
    assert store.twas.near_genes("zzz") == []
    assert [g["gene_name"] for g in store.twas.search_genes("gene8", limit=3)] == ["GENE8", "GENE81", "GENE82"]
    assert store.twas.search_genes("", limit=3) == []


def test_filters_are_those_of_the_annotation(store):
    def ids(**chosen):
        parts = (rows for _, rows in store.twas.stream(GeneFilter(**chosen)))
        return {store.twas._phenotype[p]["phenotype_id"] for rows in parts for p in rows.pid.tolist()}

    assert ids(modality=("dmri",)) == {"FA_of_tract_(left)"}
    assert ids(atlas=("Desikan", "dkt"), side=("right",)) == {"C12_2", "C12_4", "aparc_G+S-insula"}
    assert ids(region=("cuneus",)) == {"C12_1", "C12_2"}
    assert ids(measurement=("area",)) == {"aparc_G+S-insula"}
    rows = next(rows for _, rows in store.twas.stream(GeneFilter(tissue=("liver",))))
    assert {store.twas.tissues[t]["tissue"] for t in rows.tid.tolist()} == {"Liver"}
    for name, value, hint in (
        ("modality", "T3", "T1"),
        ("tissue", "Livr", "Did you mean 'Liver'"),
        ("region", "cuneuss", "Did you mean 'cuneus'"),
    ):
        with pytest.raises(UnknownValueError, match=hint):
            store.twas.select(GeneFilter(**{name: (value,)}))
    with pytest.raises(UnknownValueError, match="studies"):
        store.twas.select(GeneFilter(scope="studies"))
    with pytest.raises(SchemaError, match=r"alpha 0.1 is above 0.05"):
        store.twas.select(GeneFilter(alpha=0.1))


@pytest.mark.parametrize("by", ["phenotype", "gene", "region", "tissue", "modality"])
def test_sums_are_those_of_a_loop(store, by):
    keys = {
        "phenotype": ("phenotype_id",),
        "gene": ("gene",),
        "region": ("atlas", "region", "side"),
        "tissue": ("tissue",),
        "modality": ("modality",),
    }[by]
    parts = [rows for _, rows in store.twas.stream(GeneFilter())]
    groups = {}
    for rows in parts:
        for row in store.twas.rows(rows, "study"):
            groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    found = store.twas.summarise(parts, by)
    assert len(found) == len(groups)
    assert [r["top_neg_log10_p"] for r in found] == sorted((r["top_neg_log10_p"] for r in found), reverse=True)
    for row in found:
        mine = groups[tuple(row[k] for k in keys)]
        z = np.array([m["zscore"] for m in mine])
        assert row["n_associations"] == len(mine)
        assert (row["n_positive"], row["n_negative"]) == ((z > 0).sum(), (z < 0).sum())
        assert row["mean_z"] == pytest.approx(z.mean())
        assert row["mean_abs_z"] == pytest.approx(np.abs(z).mean())
        assert abs(row["top_z"]) == np.abs(z).max()
        for name, key in (("n_genes", "gene"), ("n_phenotypes", "phenotype_id"), ("n_tissues", "tissue")):
            if name in row:
                assert row[name] == len({m[key] for m in mine})


def test_block_size_changes_nothing(folder, annotation, path, tmp_path):
    blocks = read_gene_blocks([folder.path], max_p=MAX_P, cells=11)
    other = build(tmp_path / "s", blocks, annotation, precision="full")
    files = [json.loads((p / "store.json").read_text())["files"] for p in (path, other)]
    assert files[0] == files[1]


def test_rounded_numbers_are_close_and_q_is_not_rounded(folder, annotation, path, tmp_path):
    other = build(tmp_path / "s", read_gene_blocks([folder.path], max_p=MAX_P), annotation)
    full, rounded = (pq.read_table(p / "twas/by_gene/g00000.parquet") for p in (path, other))
    for name, tolerance in (("z", 7.7e-6), ("nlog10p", 7.7e-6), ("effect", 1.3e-4)):
        np.testing.assert_allclose(rounded[name].to_numpy(), full[name].to_numpy(), rtol=tolerance)
    assert rounded["nlog10q_study"].equals(full["nlog10q_study"])


def as_table(folder, rows=slice(None), **more):
    """Return the results as the text that a table of S-PrediXcan has."""
    names = ["gene", "gene_name", "tissue", "phenotype", "zscore", *more]
    lines = ["\t".join(names)]
    cells = [(m, p) for m in range(folder.gene.size) for p in range(folder.phenotypes.size)]
    for k, (m, p) in list(enumerate(cells))[rows]:
        z = "NA" if np.isnan(folder.z[m, p]) else repr(float(folder.z[m, p]))
        row = [folder.gene[m], folder.gene_name[m], folder.tissue[m], folder.phenotypes[p], z]
        lines.append("\t".join([*map(str, row), *(str(v(k, m, p)) for v in more.values())]))
    return "\n".join(lines) + "\n"


def test_complete_tables_equal_folders(folder, annotation, path, tmp_path):
    (tmp_path / "t.tsv").write_text(as_table(folder))
    blocks = list(read_gene_blocks([tmp_path / "t.tsv"], max_p=MAX_P, complete=True))
    with closing(LocalStore(build(tmp_path / "s", blocks, annotation, precision="full"))) as other:
        assert other.twas.scopes == list(SCOPES)
        with closing(LocalStore(path)) as first:
            for gene in first.twas.genes:
                twin = other.twas.find_gene(gene["gene"])
                assert twin["n_significant"] == gene["n_significant"]
                assert twin["gene_name"] == gene["gene_name"]


def test_a_table_of_some_tests_has_no_q_unless_it_says_how_many(folder, tmp_path):
    (tmp_path / "some.tsv").write_text(as_table(folder))
    blocks = read_gene_blocks([tmp_path / "some.tsv"], max_p=MAX_P)
    with closing(LocalStore(build(tmp_path / "s", blocks))) as store:
        assert store.twas.scopes == []
        assert store.twas.genes[0]["n_significant"] is None
        with pytest.raises(UnknownValueError, match="did not say how many tests"):
            store.twas.select(GeneFilter(scope="study"))
        with pytest.raises(UnknownValueError, match="did not say how many tests"):
            store.twas.select(GeneFilter(scope="study", correction="bonferroni"))
    n = int(np.isfinite(folder.z).sum())
    per_pair = {
        (t, p): int(np.isfinite(folder.z[folder.tissue == t, k]).sum())
        for t in np.unique(folder.tissue).tolist()
        for k, p in enumerate(folder.phenotypes.tolist())
    }
    text = as_table(
        folder,
        n_tests=lambda k, m, p: n,
        n_tests_phenotype_tissue=lambda k, m, p: per_pair[str(folder.tissue[m]), str(folder.phenotypes[p])],
    )
    (tmp_path / "counted.tsv").write_text(text)
    blocks = read_gene_blocks([tmp_path / "counted.tsv"], max_p=MAX_P)
    with closing(LocalStore(build(tmp_path / "c", blocks))) as store:
        assert store.twas.scopes == ["study", "phenotype-tissue"]
        tests = every_test(folder)
        q = benjamini_hochberg_q(np.array([t[4] for t in tests]))
        found = sum(len(rows) for _, rows in store.twas.stream(GeneFilter(scope="study")))
        assert found == (q <= 0.05).sum()


def test_bonferroni_columns_show_how_many_tests_were_made(folder, annotation, path, tmp_path):
    """As ``twas associate`` writes them: p times the tests of the scope, at most 1."""
    n = int(np.isfinite(folder.z).sum())

    def corrected(k, m, p):
        z = folder.z[m, p]
        return "NA" if np.isnan(z) else repr(min(n * 10.0 ** -float(neg_log10_p_from_z(np.array([z]))[0]), 1.0))

    (tmp_path / "t.tsv").write_text(as_table(folder, p_bonferroni_study=corrected))
    blocks = read_gene_blocks([tmp_path / "t.tsv"], max_p=MAX_P)
    with closing(LocalStore(build(tmp_path / "s", blocks, annotation))) as store, closing(LocalStore(path)) as full:
        assert store.twas.scopes == ["study"]
        assert store.meta["counts"]["gene_tests"] == n
        for gene in full.twas.genes:
            assert store.twas.find_gene(gene["gene"])["n_significant"] == gene["n_significant"]


def test_q_that_comes_with_the_results_is_kept(folder, tmp_path):
    text = as_table(folder, mod_BHpval=lambda k, m, p: 0.001 if k % 2 else 0.2)
    (tmp_path / "t.tsv").write_text(text)
    with closing(LocalStore(build(tmp_path / "s", read_gene_blocks([tmp_path / "t.tsv"], max_p=MAX_P)))) as store:
        assert store.twas.scopes == ["modality"]
        rows = next(r for _, r in store.twas.stream(GeneFilter(scope="modality")))
        columns = store.twas.columns(rows, "modality")
        np.testing.assert_allclose(columns["q_bh"], 0.001, rtol=1e-6)
        assert set(columns["p_bonferroni"]) == {None}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n_tests": lambda k, m, p: 5 + k % 2}, "expected one number of tests for the whole study, found 5 to 6"),
        ({"n_tests": lambda k, m, p: 3}, "list 78 tests of a group for which they say that 3 were made"),
    ],
)
def test_impossible_numbers_of_tests_are_refused(folder, tmp_path, more, message):
    (tmp_path / "t.tsv").write_text(as_table(folder, **more))
    with pytest.raises(SchemaError, match=message):
        build(tmp_path / "s", read_gene_blocks([tmp_path / "t.tsv"], max_p=MAX_P))
    assert not (tmp_path / "s").exists()


def test_a_test_given_twice_is_refused(folder, tmp_path):
    with pytest.raises(SchemaError, match="has two results for phenotype"):
        build(tmp_path / "s", read_gene_blocks([folder.path, folder.path], max_p=MAX_P))


def block_of(phenotypes, z):
    n = len(z)
    tests = GeneAssociations(
        np.array(["ENSG1"]), np.array(["A"]), np.array(["T"]), np.array(phenotypes),
        np.zeros(n, dtype=int), np.zeros(n, dtype=int), np.arange(n), np.array(z), np.full(n, np.nan),
        neg_log10_p_from_z(np.array(z)), np.full(n, 0.1),
    )  # fmt: skip
    return GeneBlock(tests, np.ones((n, 1), dtype=int), np.array([0]), np.array([0]), np.array([0.1]), {}, {})


def test_two_names_that_become_one_id_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="'a b' and 'a/b' would both have the id 'a_b'"):
        build(tmp_path / "s", [block_of(["a b", "a/b"], [3.0, 4.0])])


def test_no_result_at_all_is_refused(tmp_path):
    with pytest.raises(SchemaError, match="Expected gene associations with a z, found none"):
        build(tmp_path / "s", [])


def test_one_row(tmp_path):
    with closing(LocalStore(build(tmp_path / "s", [block_of(["only"], [30.0])], max_p=1.0))) as store:
        rows = store.twas.rows(store.twas.of_gene(0, GeneFilter(scope="study")), "study")
        assert rows[0]["q_bh"] == pytest.approx(10.0 ** -rows[0]["neg_log10_p"])
        assert rows[0]["effect_size"] is None
        assert rows[0]["neg_log10_p"] == pytest.approx(197.0087, abs=2e-3)
    assert verify(tmp_path / "s").ok


def test_masked_phenotypes_stay_out_and_are_not_counted(tmp_path):
    with StoreWriter(tmp_path / "s") as writer:
        writer.add_phenotype(PhenotypeInfo("secret", masked=True))
        writer.add_gene_associations([block_of(["secret", "shown"], [9.0, 2.5])])
        writer.seal()
    with closing(LocalStore(tmp_path / "s")) as store:
        assert [p["phenotype_id"] for p in store.phenotypes] == ["shown"]
        assert store.meta["counts"]["gene_associations_masked"] == 1
        assert store.meta["counts"]["gene_tests"] == 1
        assert store.twas.genes[0]["n_associations"] == 1
    assert verify(tmp_path / "s").ok


def test_annotation_fills_the_catalogue(store):
    row = store.phenotype("C12_1")
    assert (row["modality"], row["atlas"], row["side"], row["region"]) == ("T1", "Desikan", "left", "cuneus")
    assert row["label"] == "volume of cuneus, left (Desikan)"
    assert row["category"] == "occipital"
    assert store.annotation(row["pid"]) == {"secondary": "occipital"}
    tract = store.phenotype("FA_of_tract_(left)")
    assert tract["measurement"] == "FA"
    assert store.phenotype("unknown_one")["modality"] == ""
    assert store.annotation(store.phenotype("unknown_one")["pid"]) == {}


def test_an_annotation_of_people_is_refused(tmp_path):
    people = PhenotypeAnnotation(np.array(["a"]), {"participant_id": np.array(["sub-01"])})
    with pytest.raises(SchemaError, match="participant identifier"):
        build(tmp_path / "s", [block_of(["a"], [3.0])], people)


def test_genes_are_added_once(tmp_path):
    with StoreWriter(tmp_path / "s") as writer:
        writer.add_gene_associations([block_of(["a"], [3.0])])
        with pytest.raises(SchemaError, match="once"):
            writer.add_gene_associations([block_of(["b"], [3.0])])


def test_verify_sees_a_changed_order(path, tmp_path):
    import shutil
    from hashlib import sha256

    shutil.copytree(path, tmp_path / "s")
    name = "twas/by_gene/g00000.parquet"
    table = pq.read_table(tmp_path / "s" / name)
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), tmp_path / "s" / name)
    meta = json.loads((tmp_path / "s/store.json").read_text())
    meta["files"][name]["sha256"] = sha256((tmp_path / "s" / name).read_bytes()).hexdigest()
    (tmp_path / "s/store.json").write_text(json.dumps(meta))
    assert any("not ordered" in problem for problem in verify(tmp_path / "s").problems)


def test_memory_estimate_grows_with_the_study():
    small = gene_peak_bytes(n_associations=10_000, n_models=1_000, n_genes=500, n_phenotypes=10)
    large = gene_peak_bytes(n_associations=40_000_000, n_models=174_000, n_genes=22_815, n_phenotypes=3_935)
    assert small < large < 2**30
