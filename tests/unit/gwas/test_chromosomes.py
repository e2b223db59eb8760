"""Which variants are analysed how."""

import numpy as np
import pytest

from brainlocus.core import ArrayGenotypes, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas.chromosomes import PAR, HalvedMales, chromosome_classes


def table(chromosome, position, build):
    alleles = text_array(["A"] * len(chromosome))
    names = text_array([f"v{k}" for k in range(len(chromosome))])
    return VariantTable(np.array(chromosome), np.array(position), alleles, alleles, names, build)


@pytest.mark.parametrize("build", ["GRCh37", "GRCh38", "hg19", "hg38", "GRCh38.p13"])
def test_ends_of_x_and_y_are_autosomal(build):
    for name, ends in PAR["GRCh37" if build in ("GRCh37", "hg19") else "GRCh38"].items():
        for first, last in ends:
            variants = table([name] * 4, [first - 1, first, last, last + 1], build)
            assert chromosome_classes(variants).tolist() == [name, "autosomal", "autosomal", name]


def test_without_a_known_build_names_decide():
    chromosome = ["X", "XY", "PAR1", "PAR2", "Y", "MT", "0", "7", "scaffold_3"]
    expected = ["X", *["autosomal"] * 3, "Y", "autosomal", "unplaced", "autosomal", "autosomal"]
    assert chromosome_classes(table(chromosome, [100_000] * 9, "unknown")).tolist() == expected


def test_the_regions_are_those_of_plink():
    """--split-par b37 and b38 of PLINK 2: last base of PAR1, first of PAR2 on X."""
    assert [(p["X"][0][1], p["X"][1][0]) for p in PAR.values()] == [(2_699_520, 154_931_044), (2_781_479, 155_701_383)]


def test_males_are_halved_and_missing_calls_stay_missing():
    people = SampleIndex.of(["a", "b", "c"])
    calls = np.array([[2, 1, np.nan], [0, 2, 2]], dtype=np.float32)
    source = ArrayGenotypes(people, table(["X", "X"], [5_000_000, 6_000_000], "GRCh37"), calls)
    halved = HalvedMales(source, np.array([True, False, True]))
    np.testing.assert_array_equal(halved.read(0, 2).dosage, np.array([[1, 1, np.nan], [0, 2, 1]], dtype=np.float32))
    assert halved.samples == people
    assert len(halved.variants) == 2
