"""Packed calls against the same calls as floats."""

import numpy as np
import pytest
from tests.contracts.genotype_contract import example

from brainlocus.core import ArrayGenotypes, select_genotypes
from brainlocus.io import BedWriter, open_bed
from brainlocus.numerics.packed import count_packed, decode_packed, read_packed, select_people


def written(folder, n):
    samples, variants, sex, calls = example(n)
    with BedWriter(folder / "g", samples, variants, sex) as out:
        out.append(calls)
    return open_bed(folder / "g.bed"), calls


@pytest.mark.parametrize("n", [1, 4, 11, 33, 70])
def test_counts_and_decoding_agree_with_floats(tmp_path, n):
    source, calls = written(tmp_path, n)
    block = read_packed(source, 2, 20)
    assert (block.start, block.n_samples) == (2, n)
    np.testing.assert_array_equal(decode_packed(block.codes, n), calls[2:20])
    expected = [[(row == 2).sum(), (row == 1).sum(), (row == 0).sum(), np.isnan(row).sum()] for row in calls[2:20]]
    np.testing.assert_array_equal(count_packed(block.codes, n), expected)


def test_selection_of_people_and_variants(tmp_path):
    source, calls = written(tmp_path, 70)
    rng = np.random.default_rng(3)
    people, rows = rng.permutation(70)[:41], np.array([22, 3, 4, 5, 0])
    chosen = select_genotypes(source, samples=source.samples.take(people), variants=rows)
    block = read_packed(chosen, 1, 5)
    np.testing.assert_array_equal(decode_packed(block.codes, 41), calls[rows[1:]][:, people])
    np.testing.assert_array_equal(
        decode_packed(select_people(source.read_packed(0, 23).codes, people), 41), calls[:, people]
    )
    assert read_packed(chosen, 2, 2).codes.shape == (0, 11)


def test_padding_is_cleared(tmp_path):
    source, _ = written(tmp_path, 11)
    path = source.path
    content = bytearray(path.read_bytes())
    content[3 + 2] |= 0b11000000  # past the eleventh person of the first variant
    path.write_bytes(bytes(content))
    np.testing.assert_array_equal(count_packed(open_bed(path).read_packed(0, 1).codes, 11).sum(axis=1), [11])
    assert open_bed(path).read_packed(0, 1).codes[0, -1] >> 6 == 0


def test_other_sources_have_no_packed_calls():
    samples, variants, _, calls = example()
    source = ArrayGenotypes(samples, variants, calls)
    assert read_packed(source, 0, 3) is None
    assert read_packed(select_genotypes(source), 0, 3) is None
