"""The filters that genotype commands share: lists, regions, conditions."""

import numpy as np
import pytest
from pydantic import ValidationError

from brainlocus.core import AlignmentError, FormatError, SampleIndex, SchemaError, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter
from brainlocus.pipeline.filters import GenotypeInput, choose_genotypes
from brainlocus.pipeline.where import evaluate_where, where_names

N, M = 6, 8


@pytest.fixture
def folder(tmp_path):
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    variants = VariantTable(
        np.array(["1"] * 4 + ["X"] * 4), np.arange(1, M + 1) * 10, text_array(["A", "AT"] * 4), text_array(["C"] * M),
        text_array([f"rs{k}" for k in range(M)]), "GRCh37",
    )  # fmt: skip
    calls = np.random.default_rng(0).integers(0, 3, (M, N)).astype(np.float32)
    with BedWriter(tmp_path / "g", people, variants) as out:
        out.append(calls)
    (tmp_path / "table.tsv").write_text(
        "variant_id\teffect_allele\tother_allele\tinfo\teffect_allele_frequency\tkind\n"
        + "".join(
            f"rs{k}\t{'AT' if k % 2 else 'A'}\tC\t{'' if k == 3 else k / 10}\t{1 - k / 10}\tk{k % 2}\n"
            for k in range(7)
        )
    )
    return tmp_path


def chosen(folder, **options):
    found = choose_genotypes(GenotypeInput(genotypes=folder / "g.bed", **options))
    return [int(name[2:]) for name in found.source.variants.variant_id[found.variants].tolist()]


def test_nothing_asked_is_the_file_itself(folder):
    found = choose_genotypes(GenotypeInput(genotypes=folder / "g.bed"))
    assert found.selected() is found.source
    assert found.counts == {"genotyped_people": N, "genotyped_variants": M}


def test_people(folder):
    (folder / "keep.txt").write_text("p4\np1\np2\n")
    (folder / "remove.txt").write_text("p2\nstranger\n")
    (folder / "none.txt").write_text("\n")
    config = GenotypeInput(
        genotypes=folder / "g.bed", keep=(folder / "keep.txt",), remove=(folder / "remove.txt", folder / "none.txt")
    )
    found = choose_genotypes(config)
    assert found.samples.ids.tolist() == ["p1", "p4"]
    assert found.counts["people_not_chosen"] == 4
    block = found.selected().read(0, M).dosage
    np.testing.assert_array_equal(block, found.source.read(0, M).dosage[:, [1, 4]])
    with pytest.raises(AlignmentError, match="--remove takes all 3 people away"):
        choose_genotypes(config.model_copy(update={"remove": (folder / "keep.txt",)}))


def test_variants_by_lists_regions_and_conditions(folder):
    (folder / "some.txt").write_text("rs1\nrs2\nrs6\n")
    (folder / "r.bed").write_text("X\t0\t60\n")
    assert chosen(folder, variants=(folder / "some.txt",)) == [1, 2, 6]
    assert chosen(folder, exclude=(folder / "some.txt",)) == [0, 3, 4, 5, 7]
    assert chosen(folder, regions="1:20-30,X:80") == [1, 2, 7]
    assert chosen(folder, regions=f"1:20,{folder / 'r.bed'}") == [1, 4, 5]
    assert chosen(folder, region_files=(folder / "r.bed",)) == [4, 5]
    assert chosen(folder, regions="1", exclude_regions="1:20-30,X:80") == [0, 3]
    assert chosen(folder, exclude_regions=f"1:20,{folder / 'r.bed'}") == [0, 2, 3, 6, 7]
    assert chosen(
        folder, exclude_region_files=(folder / "r.bed",), exclude_long_range_ld=True, genome_build="GRCh37"
    ) == [0, 1, 2, 3, 6, 7]
    assert chosen(folder, where="position > 30 and chromosome == 1") == [3]
    assert chosen(folder, where="len(effect_allele) == 2 and 20 < position <= 60") == [3, 5]
    table = (folder / "table.tsv",)
    assert chosen(folder, variants=table) == [0, 1, 2, 3, 4, 5, 6]
    assert chosen(folder, variants=table, where="info >= 0.2") == [2, 4, 5, 6]  # rs3 has none
    assert chosen(folder, variants=table, where="not info >= 0.2") == [0, 1, 3]
    assert chosen(folder, variants=table, where="maf > 0.25 and kind == 'k0'") == [4, 6]
    config = GenotypeInput(genotypes=folder / "g.bed", variants=table, regions=("X",), where="info > 0.45")
    found = choose_genotypes(config)
    assert found.counts["variants_not_chosen"] == {"not_listed": 1, "outside_regions": 4, "where": 1}
    assert found.rows.tolist() == [5, 6]


def test_region_files_are_inputs(folder):
    from brainlocus.pipeline.config import input_fields

    config = GenotypeInput(genotypes=folder / "g.bed", regions=f"X,{folder}/r.bed", region_files=f"{folder}/s.bed")
    assert config.regions == ("X",)
    assert config.region_files == (folder / "s.bed", folder / "r.bed")
    assert "region_files" in input_fields(GenotypeInput)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"regions": "1:9-3"}, ValidationError, "end is not before its start"),
        ({"regions": "absent.bed"}, FormatError, "expected a BED file at absent.bed"),
        ({"regions": "2"}, AlignmentError, r"hold none of the 8 variants .chromosomes 1, X.. Nothing"),
        ({"where": "position >"}, ValidationError, "expected an expression"),
        ({"where": "postion > 3"}, SchemaError, "no column 'postion'. Did you mean 'position'"),
        ({"where": "info > 3"}, SchemaError, "It comes from genotypes: give a table that has it as --variants"),
        ({"where": "position > 1000"}, AlignmentError, "is true for none of the 8 variants"),
        ({"where": "position + 1"}, SchemaError, "expected a condition"),
        ({"where": "position == 'a'"}, SchemaError, "compares text with numbers"),
        ({"where": "chromosome > 1"}, SchemaError, "text has no order"),
        ({"where": "position > 1 & position < 3"}, SchemaError, "Put parentheses"),
        ({"where": "__import__('os')"}, SchemaError, "there is no function '__import__'"),
        ({"where": "position.real > 1"}, SchemaError, "'position.real' is not allowed"),
        ({"where": "[p for p in position]"}, SchemaError, "not allowed|no column"),
        ({"where": "(lambda: 1)()"}, SchemaError, "not allowed"),
    ],
)  # fmt: skip
def test_bad_filters(folder, options, error, message):
    with pytest.raises(error, match=message):
        chosen(folder, **options)


def test_frequencies_of_the_other_allele_are_refused(folder):
    path = folder / "swapped.tsv"
    path.write_text(
        "variant_id\teffect_allele\tother_allele\teffect_allele_frequency\nrs0\tC\tA\t0.1\nrs1\tAT\tC\t0.1\n"
    )
    with pytest.raises(AlignmentError, match="effect allele of variant 'rs0' is C, in the genotypes it is A"):
        chosen(folder, variants=(path,), where="effect_allele_frequency > 0.01")


def test_the_same_variant_twice_in_a_table_is_refused(folder):
    path = folder / "twice.tsv"
    path.write_text("variant_id\tinfo\nrs0\t0.1\nrs0\t0.2\n")
    assert chosen(folder, variants=(path,)) == [0]
    with pytest.raises(SchemaError, match="variant 'rs0' stands there twice"):
        chosen(folder, variants=(path,), where="info > 0")


def test_expressions_against_python():
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=50), "b": rng.normal(size=50), "c": np.array(["x", "y"] * 25)}
    columns["a"][3] = np.nan
    for text in (
        "a > b",
        "not a > b or c == 'x'",
        "-a + 2 * b / 3 - 1 < abs(b) and c != 'y'",
        "c in ['x', 'z'] and min(a, b) < 0",
        "c not in ('x',) and max(a, b) % 1 < 0.5",
        "0 < a < 1 < b + 1",
    ):
        names = where_names(text)
        assert names <= {"a", "b", "c"}
        found = evaluate_where(text, columns)
        for k in range(50):
            assert found[k] == bool(eval(text, {}, {n: v[k] for n, v in columns.items()})), (text, k)
