"""Core types: what they refuse, and how they align."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlocus.core import (
    AlignmentError,
    ArrayGenotypes,
    Column,
    Grid,
    Grm,
    PhenotypeTable,
    ResourceError,
    ResultTable,
    SampleIndex,
    SchemaError,
    VariantTable,
    block_size_for,
    canonical_chromosome,
    check_same_grid,
    chromosome_rank,
    concat_results,
    concat_variants,
    intersect,
    iter_blocks,
    quantitative_table,
    select_genotypes,
    shared_samples,
)
from brainlocus.core.text import text_array


def variants(n, chromosome="1", build="GRCh37"):
    return VariantTable(
        np.full(n, chromosome),
        np.arange(1, n + 1),
        text_array(["A"] * n),
        text_array(["C"] * n),
        text_array([f"{chromosome}:{k}" for k in range(n)]),
        build,
    )


def genotypes(n_variants=7, n_samples=5):
    rng = np.random.default_rng(1)
    dosage = rng.integers(0, 3, (n_variants, n_samples)).astype(np.float32)
    dosage[0, 0] = np.nan
    return ArrayGenotypes(SampleIndex.of([f"p{k}" for k in range(n_samples)]), variants(n_variants), dosage)


class TestSampleIndex:
    def test_duplicates_and_empty_ids_are_refused(self):
        with pytest.raises(SchemaError, match="2 occur more than once: '1', '2'"):
            SampleIndex.of(["1", "2", "1", "2", "3"])
        with pytest.raises(SchemaError, match="empty"):
            SampleIndex.of(["a", ""])

    def test_leading_zeros_matter(self):
        assert len(SampleIndex.of(["7", "007"])) == 2

    @given(st.lists(st.text("abc01", min_size=1, max_size=3), unique=True), st.lists(st.text("abc01", max_size=3)))
    def test_indices_of_against_a_dictionary(self, ids, wanted):
        index = SampleIndex.of(ids)
        position = {name: k for k, name in enumerate(ids)}
        assert index.indices_of(wanted).tolist() == [position.get(w, -1) for w in wanted]

    def test_intersection_keeps_the_first_order(self):
        a, b = SampleIndex.of("dbca"), SampleIndex.of("abd")
        assert intersect(a, b).ids.tolist() == ["d", "b", "a"]

    def test_nothing_shared_names_both(self):
        with pytest.raises(AlignmentError, match=r"genotypes has 2 \('1', '2', .*traits has 1 \('01'"):
            shared_samples(SampleIndex.of("12"), SampleIndex.of(["01"]), names=("genotypes", "traits"))


class TestVariants:
    @pytest.mark.parametrize(
        ("name", "plain"),
        [("chr1", "1"), ("01", "1"), ("22", "22"), ("chrX", "X"), ("23", "X"), ("24", "Y"), ("25", "XY"), ("26", "MT"),
         ("M", "MT"), ("chrMT", "MT"), ("x", "X"), ("0", "0"), ("GL000220.1", "GL000220.1")],
    )  # fmt: skip
    def test_chromosome_names(self, name, plain):
        assert canonical_chromosome(name) == plain

    def test_chromosome_order(self):
        names = np.array(["X", "10", "2", "MT", "Y"])
        assert names[np.argsort(chromosome_rank(names))].tolist() == ["2", "10", "X", "Y", "MT"]

    def test_builds_do_not_mix(self):
        with pytest.raises(AlignmentError, match=r"GRCh37.*GRCh38"):
            concat_variants([variants(2), variants(2, build="GRCh38")])
        assert len(concat_variants([variants(2), variants(3, "2")])) == 5

    def test_bad_columns(self):
        good = variants(2)
        with pytest.raises(SchemaError, match="position -3"):
            VariantTable(
                good.chromosome, np.array([1, -3]), good.effect_allele, good.other_allele, good.variant_id, "x"
            )


class TestGenotypes:
    @pytest.mark.parametrize("block_size", [1, 2, 3, 7, 100])
    def test_block_size_changes_nothing(self, block_size):
        source = genotypes()
        blocks = list(iter_blocks(source, block_size))
        np.testing.assert_array_equal(np.vstack([b.dosage for b in blocks]), source.dosage)
        assert blocks[-1].stop == 7

    def test_selection_is_indexing(self):
        source = genotypes()
        people = source.samples.take(np.array([3, 0, 4]))
        rows = np.array([6, 1, 2, 3, 0])
        chosen = select_genotypes(source, samples=people, variants=rows)
        expected = source.dosage[np.ix_(rows, [3, 0, 4])]
        np.testing.assert_array_equal(chosen.read(0, 5).dosage, expected)
        np.testing.assert_array_equal(chosen.read(2, 4).dosage, expected[2:4])
        assert chosen.variants.variant_id.tolist() == source.variants.variant_id[rows].tolist()
        again = pickle.loads(pickle.dumps(chosen))
        np.testing.assert_array_equal(again.read(0, 5).dosage, expected)

    def test_unknown_people(self):
        with pytest.raises(AlignmentError, match="1 participants have no genotypes: 'nobody'"):
            select_genotypes(genotypes(), samples=SampleIndex.of(["p1", "nobody"]))

    def test_shape_is_checked(self):
        source = genotypes()
        with pytest.raises(AlignmentError, match=r"Dosage is \(7, 5\), expected"):
            ArrayGenotypes(source.samples.take(np.arange(3)), source.variants, source.dosage)

    def test_blocks_fit_the_memory(self):
        assert block_size_for(1000, 12_000_000, copies=3) == 1000
        assert block_size_for(10, 10**12) == 4096
        with pytest.raises(ResourceError, match="Raise --memory"):
            block_size_for(500_000, 10**8)


class TestPhenotypes:
    def table(self):
        people = SampleIndex.of("abc")
        return PhenotypeTable(
            people, (Column("x", np.arange(3.0)), Column("site", np.array(["s", "", "t"]), "categorical"))
        )

    def test_take_by_id_and_select(self):
        table = self.table().take(SampleIndex.of("ca"))
        assert table.column("x").values.tolist() == [2.0, 0.0]
        assert self.table().select(["site"]).names == ("site",)
        with pytest.raises(AlignmentError, match="'z'"):
            self.table().take(SampleIndex.of("z"))

    def test_matrix_refuses_text(self):
        with pytest.raises(SchemaError, match="hold text"):
            self.table().matrix()
        assert self.table().matrix(["x"]).shape == (3, 1)

    def test_unknown_column_suggests(self):
        with pytest.raises(SchemaError, match="Did you mean 'site'"):
            self.table().column("sites")

    def test_replacing_leaves_the_original(self):
        table = self.table()
        new = table.replace_values(["x"], np.array([[9.0], [9.0], [9.0]]))
        assert table.column("x").values.tolist() == [0.0, 1.0, 2.0]
        assert new.column("x").values.tolist() == [9.0] * 3

    def test_shapes_and_names_are_checked(self):
        people = SampleIndex.of("ab")
        with pytest.raises(AlignmentError, match="'x' has shape"):
            PhenotypeTable(people, (Column("x", np.zeros(3)),))
        with pytest.raises(SchemaError, match="occurs twice"):
            PhenotypeTable(people, (Column("x", np.zeros(2)), Column("x", np.zeros(2))))
        assert quantitative_table(people, ["u", "v"], np.zeros((2, 2)), unit="mm3").column("v").unit == "mm3"


def test_results_have_registered_columns():
    with pytest.raises(SchemaError, match="Did you mean 'beta'"):
        ResultTable({"betta": np.zeros(2)})
    with pytest.raises(SchemaError, match="differ in length"):
        ResultTable({"beta": np.zeros(2), "n": np.zeros(3)})
    table = ResultTable({"beta": np.arange(3.0)})
    assert concat_results([table, table.take(np.array([2]))])["beta"].tolist() == [0.0, 1.0, 2.0, 2.0]
    with pytest.raises(SchemaError, match="same columns"):
        concat_results([table, ResultTable({"n": np.zeros(1)})])


def test_grids():
    grid = Grid((2, 3, 4), np.diag([2.0, 2.0, 3.0, 1.0]))
    assert grid.voxel_volume_mm3 == pytest.approx(12.0)
    check_same_grid(grid, Grid((2, 3, 4), grid.affine + 1e-5), what="map")
    with pytest.raises(AlignmentError, match=r"map has shape \(2, 3, 5\)"):
        check_same_grid(Grid((2, 3, 5), grid.affine), grid, what="map")
    with pytest.raises(AlignmentError, match="another affine"):
        check_same_grid(Grid((2, 3, 4), np.eye(4)), grid, what="map")


def test_grm_takes_people_in_order():
    people = SampleIndex.of("abc")
    grm = Grm(people, np.arange(9.0).reshape(3, 3), 10.0)
    assert grm.take(SampleIndex.of("ca")).matrix.tolist() == [[8.0, 6.0], [2.0, 0.0]]
    with pytest.raises(AlignmentError, match="'z'"):
        grm.take(SampleIndex.of("z"))
