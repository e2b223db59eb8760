"""What every genotype source and its writer must do; a new format inherits `GenotypeSourceContract`."""

import pickle

import numpy as np
import pytest

from brainlocus.core import (
    AlignmentError,
    BrainlocusError,
    FormatError,
    GenotypeSource,
    SampleIndex,
    VariantTable,
    iter_blocks,
    select_genotypes,
)
from brainlocus.core.text import text_array
from brainlocus.io import genotype_files, open_genotypes


def example(n=11, m=23, seed=0):
    """Return samples, variants, sex and calls with missing ones; 11 people do not fill their last byte."""
    rng = np.random.default_rng(seed)
    calls = rng.integers(0, 3, (m, n)).astype(np.float32)
    calls[rng.random((m, n)) < 0.1] = np.nan
    variants = VariantTable(
        np.array(["1"] * 10 + ["2"] * 8 + ["X"] * 5),
        np.arange(1, m + 1) * 100,
        text_array(["A", "TTAGGG", "C"] * 7 + ["T", "G"]),
        text_array(["G", "T", "CA"] * 7 + ["C", "A"]),
        text_array([f"rs{k}" for k in range(m)]),
        "GRCh38",
    )
    sex = rng.integers(0, 3, n).astype(np.int8)
    return SampleIndex.of([f"00{k}" for k in range(n)]), variants, sex, calls


class GenotypeSourceContract:
    """Tests of reading a format: subclasses give `suffix`, and `writer` or a `write` of their own."""

    writer = None
    suffix = ""
    holds_dosages = False
    """Whether the writer takes dosages that are no whole numbers without being told."""
    optional = ()
    """Companions that the genotypes can do without."""
    derived = ()
    """Companions that follow from the others: not part of the genotypes."""
    holds_sex = True
    bad_magic = r"expected the magic bytes 6c 1b .* found 50 4b"
    magic_at = 0

    def write(self, folder, *, blocks=4, n=11, **about):
        samples, variants, sex, calls = example(n)
        with self.writer(folder / "g", samples, variants, sex, **about) as out:
            for start in range(0, len(variants), blocks):
                out.append(calls[start : start + blocks])
        return folder / f"g{self.suffix}", calls

    def open(self, path):
        return open_genotypes(path, genome_build="GRCh38")

    @pytest.mark.parametrize("n", [1, 4, 11])
    def test_round_trip(self, tmp_path, n):
        samples, variants, sex, _ = example(n)
        path, calls = self.write(tmp_path, n=n)
        source = self.open(path)
        assert isinstance(source, GenotypeSource)
        assert source.samples == samples
        for name in ("chromosome", "position", "effect_allele", "other_allele", "variant_id"):
            assert getattr(source.variants, name).tolist() == getattr(variants, name).tolist(), name
        assert source.variants.genome_build == "GRCh38"
        assert source.pedigree.sex.tolist() == (sex.tolist() if self.holds_sex else [0] * n)
        block = source.read(0, len(variants))
        assert block.start == 0
        assert block.dosage.dtype == np.float32
        np.testing.assert_array_equal(block.dosage, calls)

    @pytest.mark.parametrize("size", [1, 2, 5, 23, 100])
    def test_blocks_of_any_size_hold_the_same(self, tmp_path, size):
        path, calls = self.write(tmp_path, blocks=7)
        blocks = list(iter_blocks(self.open(path), size))
        assert [b.start for b in blocks] == list(range(0, 23, size))
        np.testing.assert_array_equal(np.concatenate([b.dosage for b in blocks]), calls)

    def test_slices_reading_twice_and_past_the_end(self, tmp_path):
        path, calls = self.write(tmp_path)
        source = self.open(path)
        np.testing.assert_array_equal(source.read(5, 9).dosage, calls[5:9])
        np.testing.assert_array_equal(source.read(2, 3).dosage, calls[2:3])
        np.testing.assert_array_equal(source.read(5, 9).dosage, calls[5:9])
        np.testing.assert_array_equal(source.read(20, 30).dosage, calls[20:])
        assert source.read(4, 4).dosage.shape == (0, 11)

    def test_pickles_and_reopens_by_path(self, tmp_path):
        path, calls = self.write(tmp_path)
        source = self.open(path)
        source.read(0, 2)
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again.read(0, 23).dosage, calls)

    def test_selection_follows_the_order_asked_for(self, tmp_path):
        path, calls = self.write(tmp_path)
        source = self.open(path)
        order = np.array([7, 0, 3])
        chosen = select_genotypes(source, samples=source.samples.take(order), variants=np.array([22, 3, 4]))
        np.testing.assert_array_equal(chosen.read(0, 3).dosage, calls[[22, 3, 4]][:, order])

    def test_hashing_sees_every_companion(self, tmp_path):
        path, _ = self.write(tmp_path)
        files = genotype_files(path)
        assert path in files
        derived = {f"g{suffix}" for suffix in self.derived}
        assert sorted(f.name for f in files) == sorted({f.name for f in tmp_path.iterdir()} - derived)

    def test_missing_companions_are_named(self, tmp_path):
        path, _ = self.write(tmp_path)
        for file in genotype_files(path):
            if any(file.name.endswith(suffix) for suffix in self.optional):
                continue
            content = file.read_bytes()
            file.unlink()
            with pytest.raises(FormatError, match=rf"Expected the \w+ at .*{file.name}, found no file"):
                self.open(path)
            file.write_bytes(content)

    def test_wrong_magic_is_named(self, tmp_path):
        path, _ = self.write(tmp_path)
        content = path.read_bytes()
        path.write_bytes(content[: self.magic_at] + b"PK" + content[self.magic_at + 2 :])
        with pytest.raises(FormatError, match=self.bad_magic):
            self.open(path)

    def test_truncated_files_are_refused(self, tmp_path):
        path, _ = self.write(tmp_path)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(FormatError, match=r"truncated|Pgenlib cannot"):
            self.open(path).read(0, 23)


class DamageContract:
    """Whatever happens to a file, reading it gives genotypes or one of our messages: for formats that we parse."""

    def test_damage_is_a_message(self, tmp_path):
        path, _ = self.write(tmp_path)
        for extra in (path.with_suffix(".sample"), path.with_name(path.name + ".bgi")):
            extra.unlink(missing_ok=True)
        content, rng = path.read_bytes(), np.random.default_rng(0)
        refused = 0
        for k in range(60):
            data = bytearray(content)
            if k % 3:
                for at in rng.integers(0, min(len(data), 600) if k % 2 else len(data), 2).tolist():
                    data[at] = int(rng.integers(0, 256))
            else:
                data = data[: int(rng.integers(0, len(data)))]
            path.write_bytes(data)
            try:
                source = self.open(path)
                source.read(0, len(source.variants))
            except BrainlocusError:
                refused += 1
        assert refused >= 20


class GenotypeWriterContract(GenotypeSourceContract):
    """Tests of a format that we write, besides those of reading it."""

    def test_nothing_is_left_of_a_failed_writing(self, tmp_path):
        samples, variants, _, calls = example()
        with (
            pytest.raises(AlignmentError, match="expected 23 variants, 3 were written"),
            self.writer(tmp_path / "g", samples, variants) as out,
        ):
            out.append(calls[:3])
        with pytest.raises(KeyError):
            self.fail_while_writing(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def fail_while_writing(self, folder):
        samples, variants, _, calls = example()
        with self.writer(folder / "g", samples, variants) as out:
            out.append(calls[:3])
            raise KeyError

    def test_blocks_that_do_not_fit_are_refused(self, tmp_path):
        samples, variants, _, calls = example()
        cases = (
            (calls[:, :5], AlignmentError, r"\(23, 5\) .variants, people. does not fit: 11 people and 23 more"),
            (np.vstack([calls, calls]), AlignmentError, "does not fit"),
            (
                np.where(np.isnan(calls), np.float32(2.5), calls),
                FormatError,
                r"'rs\d+': dosages lie in \[0, 2\], found 2.5",
            ),
            (np.where(np.isnan(calls), np.float32(0.5), calls), FormatError, "found a dosage of 0.5"),
        )
        for bad, error, message in cases[:-1] if self.holds_dosages else cases:
            with pytest.raises(error, match=message), self.writer(tmp_path / "g", samples, variants) as out:
                out.append(bad)
        assert list(tmp_path.iterdir()) == []
