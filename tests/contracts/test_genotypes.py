"""The formats under the contract, and what is special to each."""

import numpy as np
import pytest

from brainlocus.core import FormatError, SampleIndex, VariantTable, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, PgenWriter, open_bed, open_genotypes, open_pgen
from tests.contracts.genotype_contract import GenotypeWriterContract, example


class TestBed(GenotypeWriterContract):
    writer = BedWriter
    suffix = ".bed"

    def test_sample_major_and_wrong_sizes_are_named(self, tmp_path):
        path, _ = self.write(tmp_path)
        content = path.read_bytes()
        path.write_bytes(content[:2] + b"\x00" + content[3:])
        with pytest.raises(FormatError, match=r"byte 3 to be 01 .variant-major., found 00 .sample-major."):
            self.open(path)
        path.write_bytes(content[:-1])
        with pytest.raises(FormatError, match=r"expected 72 bytes for 23 variants x 11 people, found 71. .* truncated"):
            self.open(path)
        path.write_bytes(content + b"\x00")
        with pytest.raises(FormatError, match=r"expected 72 bytes .* found 73. The file is too long"):
            self.open(path)

    def test_companion_lines_are_named(self, tmp_path):
        path, _ = self.write(tmp_path)
        bim, fam = path.with_suffix(".bim"), path.with_suffix(".fam")
        good_bim, good_fam = bim.read_text().splitlines(), fam.read_text().splitlines()

        def check(file, lines, message):
            file.write_text("\n".join(lines) + "\n")
            with pytest.raises(FormatError, match=message):
                self.open(path)

        check(
            bim,
            [*good_bim[:4], "1\trs4\t0\tx17\tA\tG", *good_bim[5:]],
            "bim, line 5: expected a position .* found 'x17'",
        )
        check(bim, [*good_bim[:4], "1\trs4\t0\t17\tA", *good_bim[5:]], "bim, line 5: expected 6 fields .* found 5")
        bim.write_text("\n".join(good_bim) + "\n")
        check(fam, [*good_fam[:2], good_fam[0], *good_fam[3:]], "fam, line 3: participant '000' was already on line 1")
        check(fam, [*good_fam[:2], "a b 0 0", *good_fam[3:]], "fam, line 3: expected 6 fields .* found 4")
        check(fam, [*good_fam[:2], "a b 0 0 1 tall", *good_fam[3:]], "fam, line 3: expected a number or NA .* 'tall'")

    def test_space_separated_companions_and_many_phenotypes(self, tmp_path):
        path, calls = self.write(tmp_path)
        bim, fam = path.with_suffix(".bim"), path.with_suffix(".fam")
        bim.write_text(bim.read_text().replace("\t", "  "))
        lines = [line.split() for line in fam.read_text().splitlines()]
        lines[1][2:4] = ["000", "stranger"]
        fam.write_text("\n".join(" ".join([*f[:5], "1.5", "-9" if k else "NA", "7"]) for k, f in enumerate(lines)))
        source = open_bed(path)
        np.testing.assert_array_equal(source.read(0, 23).dosage, calls)
        table = source.pedigree.phenotypes
        assert table.names == ("phenotype_1", "phenotype_2", "phenotype_3")
        assert np.isnan(table.column("phenotype_2").values).all()
        assert source.pedigree.founders.tolist() == [True, False, *[True] * 9]

    def test_unknown_positions_are_zero(self, tmp_path):
        path, _ = self.write(tmp_path)
        bim = path.with_suffix(".bim")
        bim.write_text(bim.read_text().replace("\t100\t", "\t-9\t"))
        assert open_bed(path).variants.position[0] == 0


class TestPgen(GenotypeWriterContract):
    writer = PgenWriter
    suffix = ".pgen"

    @pytest.mark.parametrize("n", [1, 4, 11, 130])
    def test_packed_calls_are_those_of_bed(self, tmp_path, n):
        from brainlocus.numerics.packed import decode_packed, read_packed

        path, calls = self.write(tmp_path, n=n)
        source = self.open(path)
        assert not source.has_dosage.any()
        packed = source.read_packed(3, 40)
        assert packed.start == 3
        np.testing.assert_array_equal(decode_packed(packed.codes, n), calls[3:])
        TestBed().write(tmp_path, n=n)
        np.testing.assert_array_equal(packed.codes, open_bed(tmp_path / "g.bed").read_packed(3, 40).codes)
        chosen = select_genotypes(source, variants=np.array([1, 7, 8]))
        np.testing.assert_array_equal(decode_packed(read_packed(chosen, 0, 3).codes, n), calls[[1, 7, 8]])

    def test_variants_with_dosages_are_not_packed(self, tmp_path):
        samples, variants, _, calls = example()
        dosage = calls.copy()
        dosage[4, 2], dosage[9, 0] = 1.25, 0.5
        with PgenWriter(tmp_path / "d", samples, variants, dosages=True) as out:
            out.append(dosage)
        source = open_pgen(tmp_path / "d.pgen")
        assert np.flatnonzero(source.has_dosage).tolist() == [4, 9]
        assert source.read_packed(3, 6) is None
        assert source.read_packed(5, 9) is not None
        np.testing.assert_array_equal(source.read(0, 23).dosage, dosage)

    def test_more_variants_than_a_block_of_the_index(self, tmp_path):
        m = 66_000
        dosage = np.tile(np.array([[0, 1, np.nan]], dtype=np.float32), (m, 1))
        odd = np.array([3, 65_535, 65_536, 65_999])
        dosage[odd, 1] = 0.5
        variants = VariantTable(
            np.array(["1"] * m),
            np.arange(m),
            text_array(["A"] * m),
            text_array(["C"] * m),
            text_array(range(m)),
            "GRCh37",
        )
        with PgenWriter(tmp_path / "d", SampleIndex.of("abc"), variants, dosages=True) as out:
            out.append(dosage)
        source = open_pgen(tmp_path / "d.pgen")
        assert np.flatnonzero(source.has_dosage).tolist() == odd.tolist()
        np.testing.assert_array_equal(source.read(65_000, m).dosage, dosage[65_000:])

    def test_a_file_that_changed_is_opened_again(self, tmp_path):
        path, calls = self.write(tmp_path)
        source = self.open(path)
        np.testing.assert_array_equal(source.read(0, 23).dosage, calls)
        samples, variants, sex, _ = example()
        with PgenWriter(tmp_path / "g", samples, variants, sex) as out:
            out.append(np.nan_to_num(2 - calls))
        np.testing.assert_array_equal(source.read(0, 23).dosage, np.nan_to_num(2 - calls))

    def test_dosages_keep_four_digits(self, tmp_path):
        samples, variants, _, calls = example()
        rng = np.random.default_rng(1)
        dosage = np.where(np.isnan(calls), calls, np.clip(calls + rng.normal(0, 0.2, calls.shape), 0, 2)).astype(
            np.float32
        )
        with PgenWriter(tmp_path / "d", samples, variants, dosages=True) as out:
            out.append(dosage)
        np.testing.assert_allclose(open_pgen(tmp_path / "d.pgen").read(0, 23).dosage, dosage, atol=1 / 16384)

    def test_compressed_variants_and_several_alleles(self, tmp_path):
        import zstandard

        path, calls = self.write(tmp_path)
        pvar = path.with_suffix(".pvar")
        text = pvar.read_text()
        pvar.unlink()
        path.with_suffix(".pvar.zst").write_bytes(
            zstandard.ZstdCompressor().compress(("##fileformat=x\n" + text).encode())
        )
        np.testing.assert_array_equal(open_pgen(path).read(0, 23).dosage, calls)
        several = text.replace("\tG\tA\n", "\tG\tA,T\n", 1)
        pvar.write_text(several)
        with pytest.raises(FormatError, match=r"line 2: variant 'rs0' has several ALT alleles .A,T.*multiallelics=-"):
            open_pgen(path)
        pvar.write_text(text.replace("ALT", "OTHER"))
        with pytest.raises(FormatError, match=r"header lacks .'ALT'."):
            open_pgen(path)
        pvar.write_text("\n".join(text.splitlines()[:-1]) + "\n")
        with pytest.raises(FormatError, match=r"11 people .* and 22 variants .* Pgenlib cannot open"):
            open_pgen(path)


def test_unknown_extensions_are_named(tmp_path):
    with pytest.raises(
        FormatError,
        match=r"ending in .bed, .pgen, .bgen, .vcf.gz, .vcf or .bcf, found the extension .bd. Did you mean '.bed'",
    ):
        open_genotypes(tmp_path / "g.bd")
