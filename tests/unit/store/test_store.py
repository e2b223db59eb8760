"""A store written, read back and verified."""

import json

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

from brainlocus.core import FormatError, Parcellation, ResultTable, SchemaError, VariantTable
from brainlocus.core.text import text_array
from brainlocus.store import LocalStore, PhenotypeInfo, PrivacyRules, StoreSettings, StoreWriter, peak_bytes, verify
from brainlocus.store.layout import by_phenotype, chromosome_code
from brainlocus.store.matching import VariantKeys
from brainlocus.store.writer import _distance_loci
from tests.portal_study import N_PEOPLE, N_REGIONS, make_scan, make_variants, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("store") / "study")


@pytest.fixture(scope="module")
def store(study):
    opened = LocalStore(study.path)
    yield opened
    opened.close()


def small_variants(**changes):
    columns = {
        "chromosome": np.array(["2", "1", "X", "1"]),
        "position": np.array([50, 900, 7, 100]),
        "effect_allele": text_array(["A", "C", "T", "G"]),
        "other_allele": text_array(["G", "T", "C", "A"]),
        "variant_id": text_array(["rs5", "b", "rs77", "1:100:A:G"]),
        "genome_build": "GRCh38",
    }
    return VariantTable(**{**columns, **changes})


def small_scan(variants, rows=slice(None), **changes):
    n = len(variants)
    columns = {
        "chromosome": variants.chromosome,
        "position": variants.position,
        "effect_allele": variants.effect_allele,
        "other_allele": variants.other_allele,
        "beta": np.arange(1.0, n + 1),
        "standard_error": np.ones(n),
        "neg_log10_p": np.arange(0.0, n),
    }
    columns |= changes
    return ResultTable({name: column[rows] for name, column in columns.items()})


def test_verifies(study):
    report = verify(study.path)
    assert report.ok, report.problems
    assert report.n_associations == N_REGIONS * len(study.variants)


def test_every_association_comes_back_within_its_precision(study, store):
    table = pq.read_table(study.path / by_phenotype(4))
    scan = study.scans[4]
    assert table.num_rows == len(study.variants)
    np.testing.assert_allclose(table["beta"].to_numpy(), scan["beta"], rtol=1.3e-4)
    np.testing.assert_allclose(table["se"].to_numpy(), scan["standard_error"], rtol=1.3e-4)
    np.testing.assert_allclose(table["nlog10p"].to_numpy(), scan["neg_log10_p"], rtol=5e-4)


def test_full_precision_is_kept_when_asked(tmp_path):
    variants = small_variants()
    with StoreWriter(tmp_path / "s", StoreSettings(precision="full")) as writer:
        writer.write_variants(variants)
        writer.add_phenotype(PhenotypeInfo("t"), small_scan(variants, beta=np.full(4, 0.123456789)))
        writer.seal()
    beta = pq.read_table(tmp_path / "s" / by_phenotype(0))["beta"].to_numpy()
    assert (beta == np.float32(0.123456789)).all()


def test_order_names_and_orientation(tmp_path):
    variants = small_variants()
    flipped = small_scan(
        variants, effect_allele=variants.other_allele, other_allele=variants.effect_allele, beta=np.arange(1.0, 5.0)
    )
    with StoreWriter(tmp_path / "s") as writer:
        writer.write_variants(variants, np.array([0.3, 0.001, 0.9999, np.nan]))
        writer.add_phenotype(PhenotypeInfo("same"), small_scan(variants))
        writer.add_phenotype(PhenotypeInfo("swapped"), flipped)
        writer.seal()
    table = pq.read_table(tmp_path / "s" / "variants.parquet").to_pydict()
    assert table["chrom"] == [1, 1, 2, 23]
    assert table["pos"] == [100, 900, 50, 7]
    assert table["ref"] == ["A", "T", "G", "C"]
    assert table["alt"] == ["G", "C", "A", "T"]
    assert table["rsid"] == [None, None, 5, 77]
    assert table["name"] == ["1:100:A:G", "b", None, None]
    np.testing.assert_allclose([x for x in table["af"] if x is not None], [0.01, 0.3, 0.99], rtol=1e-6)
    beta = [pq.read_table(tmp_path / "s" / by_phenotype(k))["beta"].to_pylist() for k in (0, 1)]
    assert beta[0] == [4, 2, 1, 3]
    assert beta[1] == [-4, -2, -1, -3]
    counts = json.loads((tmp_path / "s" / "store.json").read_text())["counts"]
    assert counts["associations_flipped"] == 4
    opened = LocalStore(tmp_path / "s")
    for key in ("rs77", "X-7-C-T", "23:7:T:C", "chrX_7_C_T"):
        assert opened.find_variant(key).vid == 3, key
    assert opened.find_variant("b").key == "1-900-T-C"
    assert opened.find_variant("rs6") is None
    assert opened.find_variant("1-100-A-T") is None


def test_matching_prefers_the_same_orientation_among_alleles_of_one_place():
    keys = VariantKeys(np.array([(1 << 32) | 5] * 3), text_array(["A", "A", "T"]), text_array(["C", "T", "A"]))
    match = keys.find(
        np.array(["1"] * 5), np.array([5, 5, 5, 5, 6]), text_array(["T", "A", "A", "G", "C"]),
        text_array(["A", "T", "C", "A", "A"]),
    )  # fmt: skip
    assert match.row.tolist() == [1, 2, 0, -1, -1]
    assert match.flipped.tolist() == [False, False, True, False, False]


def test_rows_that_cannot_be_kept_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    variants = make_variants(rng)
    frequency = np.full(len(variants), 0.4)
    frequency[:100] = 0.0001
    scan = make_scan(rng, variants, np.full(len(variants), 0.4))
    beta, error = scan["beta"].copy(), scan["standard_error"].copy()
    beta[200:210], error[300:305] = np.nan, 0.0
    position = variants.position.copy()
    position[400:403] += 1_000_000_000
    bad = ResultTable({**scan.columns, "beta": beta, "standard_error": error, "position": position})
    with StoreWriter(tmp_path / "s") as writer:
        writer.write_variants(variants, frequency, n=N_PEOPLE)
        writer.add_phenotype(PhenotypeInfo("t"), bad)
        writer.seal()
    counts = json.loads((tmp_path / "s" / "store.json").read_text())["counts"]
    assert counts["variants_rare"] == 100
    assert counts["variants"] == len(variants) - 100
    assert counts["associations_missing"] == 10
    assert counts["associations_impossible"] == 5
    assert counts["associations_not_in_store"] == 3
    assert counts["associations_withheld"] == 100
    assert counts["associations"] == len(variants) - 118
    assert verify(tmp_path / "s").ok


def test_too_many_impossible_rows_or_no_match_are_refused(tmp_path):
    variants = small_variants()
    with StoreWriter(tmp_path / "s") as writer:
        writer.write_variants(variants)
        with pytest.raises(SchemaError, match="1 of 4 associations of 't' are impossible"):
            writer.add_phenotype(PhenotypeInfo("t"), small_scan(variants, standard_error=np.array([1, 1, 0.0, 1])))
        with pytest.raises(SchemaError, match="None of the 4 associations"):
            writer.add_phenotype(PhenotypeInfo("t"), small_scan(variants, position=np.array([1, 2, 3, 4])))
        with pytest.raises(SchemaError, match="two rows for one variant"):
            writer.add_phenotype(PhenotypeInfo("t"), small_scan(variants, rows=np.array([0, 0])))
    assert not (tmp_path / "s").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"phenotype_id": "a b"}, "does not match"),
        ({"phenotype_id": "../x"}, "does not match"),
        ({"phenotype_id": "t", "n": 9}, "below the smallest cell"),
    ],
)
def test_phenotypes_that_are_refused(tmp_path, info, message):
    with StoreWriter(tmp_path / "s") as writer, pytest.raises(SchemaError, match=message):
        writer.add_phenotype(PhenotypeInfo(**info))


def test_duplicates_are_refused_or_first_is_kept(tmp_path):
    once = small_variants()
    twice = once.take(np.array([0, 1, 2, 3, 0]))
    with StoreWriter(tmp_path / "a") as writer, pytest.raises(SchemaError, match="'rs5' at 2:50"):
        writer.write_variants(twice)
    with StoreWriter(tmp_path / "b") as writer:
        writer.write_variants(twice, duplicates="first")
        writer.seal()
    assert pq.read_metadata(tmp_path / "b" / "variants.parquet").num_rows == 4
    with StoreWriter(tmp_path / "c") as writer, pytest.raises(SchemaError, match="not A, C, G, T: 1/2"):
        writer.write_variants(small_variants(effect_allele=text_array("2222"), other_allele=text_array("1111")))


def test_a_store_is_never_overwritten(study, tmp_path):
    with pytest.raises(FileExistsError, match="never changed once sealed"), StoreWriter(study.path):
        pass
    with pytest.raises(RuntimeError, match="boom"), StoreWriter(tmp_path / "s"):
        raise RuntimeError("boom")
    assert not list(tmp_path.iterdir())


def test_small_cells_and_participants(study, store):
    rows = {row["phenotype"]: row for row in store.associations(0, limit=10).rows}
    assert rows["rare_disease"]["suppressed"]
    assert rows["rare_disease"]["n_cases"] is None
    assert rows["rare_disease"]["n_controls"] is None
    assert rows["diagnosis"]["n_cases"] == 210
    table = ResultTable({"trait": np.array(["C12_1"]), "participant_id": np.array(["x"])})
    with StoreWriter(study.path.with_name("other")) as writer, pytest.raises(SchemaError, match="participant"):
        writer.add_table("associations", table)


def test_masked_phenotypes_leave_no_trace(tmp_path):
    variants = small_variants()
    with StoreWriter(tmp_path / "s") as writer:
        writer.write_variants(variants)
        writer.add_phenotype(PhenotypeInfo("open"), small_scan(variants))
        writer.add_phenotype(PhenotypeInfo("secret", masked=True), small_scan(variants))
        h2 = ResultTable(
            {
                "trait": np.array(["open", "secret"]),
                "n": np.array([100, 100]),
                "h2": np.array([0.2, 0.3]),
                "h2_standard_error": np.array([0.1, 0.1]),
            }
        )
        writer.add_table("heritability", h2)
        writer.seal()
    opened = LocalStore(tmp_path / "s")
    assert [p["phenotype_id"] for p in opened.phenotypes] == ["open"]
    assert opened.phenotype("secret") is None
    assert {row["pid"] for row in opened.phewas(0)} == {0}
    assert pq.read_table(tmp_path / "s" / "heritability.parquet")["pid"].to_pylist() == [0]
    assert not (tmp_path / "s" / by_phenotype(1)).exists()


def test_region_is_a_vid_range(study, store):
    chromosome, low, high = "2", 10_000_000, 12_000_000
    first, after = store.vid_range(chromosome, low, high)
    inside = (study.variants.chromosome == chromosome) & (study.variants.position >= low)
    inside &= study.variants.position <= high
    assert after - first == inside.sum()
    found = store.region_associations(2, chromosome, low, high)
    assert found.columns["position"] == np.sort(study.variants.position[inside]).tolist()
    np.testing.assert_allclose(found.columns["beta"], study.scans[2]["beta"][inside], rtol=1.3e-4)
    assert store.vid_range("9", 1, 10) == (0, 0)
    assert store.vid_range("2", 0, 2**40) == (2_000, 4_000)
    assert store.region_associations(2, "2", 5, 4).n_rows == 0


def test_phewas_is_the_transpose(study, store):
    rows = store.phewas(123)
    assert [row["pid"] for row in rows] == list(range(N_REGIONS))
    np.testing.assert_allclose([row["beta"] for row in rows], [scan["beta"][123] for scan in study.scans], rtol=1.3e-4)


def test_hits_and_planted_loci(study, store):
    for pid, row in study.planted.items():
        hits = store.hits(pid, min_neg_log10_p=5.0, offset=0, limit=100)
        strength = study.scans[pid]["neg_log10_p"]
        assert hits.total == (strength >= 5).sum()
        assert [h["neg_log10_p"] for h in hits.rows] == sorted((h["neg_log10_p"] for h in hits.rows), reverse=True)
        top = store.loci(pid=pid).rows[0]
        assert top["chromosome"] == study.variants.chromosome[row]
        assert abs(top["position"] - study.variants.position[row]) < 250_000
        assert hits.rows[0]["vid"] == top["vid"]
    assert store.loci(pid=11).total == 0


def test_distance_loci_against_a_naive_loop(study):
    hits = pq.read_table(study.path / "gwas/hits.parquet")
    rows = sorted(hits.to_pylist(), key=lambda h: (h["pid"], -h["nlog10p"]))
    kept = []
    for hit in rows:
        if hit["nlog10p"] >= 6 and not any(
            k["pid"] == hit["pid"] and k["chrom"] == hit["chrom"] and abs(k["pos"] - hit["pos"]) <= 250_000
            for k in kept
        ):
            kept.append(hit)
    assert _distance_loci(hits, significant=6.0)["vid"].to_pylist() == [k["vid"] for k in kept]


def test_clumped_loci_replace_distance_loci(tmp_path):
    variants = small_variants()
    loci = ResultTable(
        {
            "trait": np.array(["t", "t"]),
            "locus": np.array([1, 2]),
            "chromosome": np.array(["1", "1"]),
            "start": np.array([90, 800]),
            "stop": np.array([110, 901]),
            "top_variant_id": np.array(["1:100:A:G", "unknown"]),
            "n_lead": np.array([1, 1]),
            "n_independent": np.array([2, 1]),
        }
    )
    with StoreWriter(tmp_path / "s") as writer:
        writer.write_variants(variants)
        writer.add_phenotype(PhenotypeInfo("t"), small_scan(variants))
        writer.add_table("loci", loci)
        writer.seal()
    opened = LocalStore(tmp_path / "s")
    (row,) = opened.loci().rows
    assert (row["start"], row["stop"], row["method"], row["beta"]) == (90, 110, "clumping", 4.0)
    assert opened.meta["counts"]["loci_not_in_store"] == 1
    assert opened.phenotypes[0]["n_loci"] == 1
    assert opened.loci(region=("chr1", 110, 120)).total == 1
    assert opened.loci(region=("1", 111, 120)).total == 0


def test_maps_and_regions(study, store):
    image = nibabel.load(study.path / "maps/sc-12.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), study.labels)
    np.testing.assert_allclose(image.affine, study.affine)
    row = store.region("C12_4")
    here = np.argwhere(study.labels == 4) @ study.affine[:3, :3].T + study.affine[:3, 3]
    np.testing.assert_allclose([row["x_mm"], row["y_mm"], row["z_mm"]], here.mean(0))
    assert row["n_voxels"] == len(here)
    assert row["hemisphere"] == "right"
    assert store.phenotype("C12_4")["map_id"] == "sc-12"


def test_fine_maps_are_brought_to_display_resolution_in_place(tmp_path):
    """A parcel keeps its place and volume; an image stored with x to the left is turned to RAS+."""
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (30, -20, -10)
    labels = np.zeros((60, 50, 40), dtype=np.int64)
    labels[5:25, 10:30, 8:28] = 300
    with StoreWriter(tmp_path / "s") as writer:
        writer.add_parcellation(Parcellation(labels, affine), atlas="fine", scale=1)
        writer.seal()
    image = nibabel.load(tmp_path / "s/maps/fine-1.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_allclose(image.header.get_zooms(), 2.0)
    assert image.get_data_dtype() == np.int16
    inside = np.argwhere(np.asarray(image.dataobj) == 300)
    assert len(inside) * 8 == 8_000
    centre = (inside @ image.affine[:3, :3].T + image.affine[:3, 3]).mean(0)
    expected = (np.argwhere(labels == 300) @ affine[:3, :3].T + affine[:3, 3]).mean(0)
    # Each face of the parcel moves to the nearest coarse voxel: by half of 2 mm at most.
    np.testing.assert_allclose(centre, expected, atol=1.0)


def test_two_builds_differ_only_in_time(study, tmp_path):
    again = write_study(tmp_path / "again")
    ours, theirs = (json.loads((p / "store.json").read_text()) for p in (study.path, again.path))
    assert {n for n in ours["files"] if ours["files"][n] != theirs["files"].get(n)} == set()


def test_damage_is_found(tmp_path):
    study = write_study(tmp_path / "s", brain=False)
    target = study.path / by_phenotype(0)
    data = bytearray(target.read_bytes())
    data[100] ^= 255
    target.write_bytes(bytes(data))
    assert verify(study.path).problems == (f"{by_phenotype(0)} differs from its recorded SHA-256.",)
    target.unlink()
    assert verify(study.path).problems == (f"{by_phenotype(0)} is recorded but missing.",)
    (study.path / "extra.txt").write_text("x")
    assert "extra.txt is in the folder but not recorded." in verify(study.path).problems


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"store\.json"):
        LocalStore(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        LocalStore(tmp_path)
    (tmp_path / "store.json").write_text('{"format_version": "2.0"}')
    with pytest.raises(FormatError, match=r"format 2\.0.*reads 1\.x"):
        LocalStore(tmp_path)
    with pytest.raises(FormatError, match="Expected a store"):
        verify(tmp_path / "none")


def test_database_sees_only_the_store(store):
    import duckdb

    with pytest.raises(duckdb.PermissionException):
        store.query("SELECT * FROM read_text('/etc/hostname')")
    with pytest.raises(duckdb.Error):
        store.query("SET enable_external_access=true")


def test_chromosomes_of_gwas_ssf():
    names = ["1", "22", "X", "XY", "Y", "MT", "0", "23", "GL000"]
    assert [chromosome_code(n) for n in names] == [1, 22, 23, 23, 24, 25, 0, 0, 0]


def test_peak_grows_with_the_study():
    small, large = peak_bytes(n_variants=10**5, n_phenotypes=10), peak_bytes(n_variants=10**6, n_phenotypes=1_000)
    assert small < large < 2 * 2**30


def test_small_minor_allele_rule_can_be_switched_off(tmp_path):
    settings = StoreSettings(rules=PrivacyRules(min_minor_allele_count=0.0, maf_floor=0.0))
    with StoreWriter(tmp_path / "s", settings) as writer:
        writer.write_variants(small_variants(), np.array([0.5, 0.001, 0.5, 0.5]), n=100)
        writer.seal()
    assert min(pq.read_table(tmp_path / "s/variants.parquet")["af"].to_pylist()) == pytest.approx(0.001)
