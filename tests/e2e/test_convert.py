"""`genotypes convert` and the shared filters from the command line."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import quantitative_table
from brainlocus.io import BedWriter, BgenWriter, PgenWriter, open_genotypes, read_results, write_table
from tests.contracts.genotype_contract import example
from tests.contracts.test_vcf import vcf_text
from tests.reference.genotypes import naive_info, naive_mach_r2

SUFFIXES = (".bed", ".pgen", ".bgen", ".vcf")


def command(*arguments):
    """Run a command and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def convert(source, out, *more):
    return command("genotypes", "convert", source, "--out", out, "--genome-build", "GRCh38", *more)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Hard calls in every format."""
    folder = tmp_path_factory.mktemp("calls")
    samples, variants, sex, calls = example(40)
    for writer in (BedWriter, PgenWriter, BgenWriter):
        with writer(folder / "g", samples, variants, sex) as out:
            out.append(calls)
    (folder / "g.vcf").write_text(vcf_text(samples, variants, calls))
    return folder, samples, variants, sex, calls


@pytest.fixture(scope="module")
def imputed(tmp_path_factory):
    """Probabilities of 8 bits."""
    folder = tmp_path_factory.mktemp("imputed")
    samples, variants, sex, calls = example(40)
    p = np.random.default_rng(2).dirichlet((0.4, 0.3, 0.2), calls.shape).astype(np.float32)
    p[np.isnan(calls)] = np.nan
    with BgenWriter(folder / "p", samples, variants, sex) as out:
        out.append_probabilities(p[..., 1], p[..., 2])
    return folder / "p.bgen"


@pytest.mark.parametrize("start", SUFFIXES)
@pytest.mark.parametrize("target", [".bed", ".pgen", ".bgen"])
def test_hard_calls_survive_every_way(calls, tmp_path, start, target):
    folder, samples, variants, sex, expected = calls
    assert convert(folder / f"g{start}", tmp_path / f"o{target}", "--threads", "2") == 0
    found = open_genotypes(tmp_path / f"o{target}", genome_build="GRCh38")
    assert found.samples == samples
    assert found.pedigree.sex.tolist() == ([0] * 40 if start == ".vcf" else sex.tolist())
    for name in ("chromosome", "position", "effect_allele", "other_allele", "variant_id"):
        assert getattr(found.variants, name).tolist() == getattr(variants, name).tolist(), name
    np.testing.assert_array_equal(found.read(0, 23).dosage, expected)
    table = read_results(tmp_path / "o.variants.parquet")
    np.testing.assert_allclose(table["effect_allele_frequency"], np.nanmean(expected, axis=1) / 2)
    np.testing.assert_allclose(table["missing_rate"], np.isnan(expected).mean(axis=1))
    assert set(table["info_method"].tolist()) == {"IMPUTE" if start == ".bgen" else ""}
    manifest = json.loads((tmp_path / f"o{target}.json").read_text())
    assert manifest["counts"]["people"] == 40
    beside = {".bed": ["bed", "bim", "fam"], ".pgen": ["pgen", "psam", "pvar"], ".bgen": ["bgen", "bgen.bgi", "sample"]}
    names = [*(f"o.{end}" for end in beside[target]), f"o{target}.json", "o.variants.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_probabilities_dosages_and_info(imputed, tmp_path):
    source = open_genotypes(imputed)
    dosage, known = source.read(0, 23).dosage, source.read_probabilities(0, 23)
    people = source.samples.ids[::2]
    (tmp_path / "keep.txt").write_text("\n".join(people.tolist()) + "\n")
    keep = ("--keep", tmp_path / "keep.txt", "--threads", "2")
    for name in ("a.bgen", "a.pgen"):
        assert convert(imputed, tmp_path / name, *keep) == 0
        table = read_results(tmp_path / "a.variants.parquet")
        for k in range(23):
            assert table["info"][k] == pytest.approx(naive_info(known.one[k, ::2], known.two[k, ::2]), abs=1e-6)
    again = open_genotypes(tmp_path / "a.bgen")
    assert again.samples.ids.tolist() == people.tolist()
    np.testing.assert_array_equal(again.read_probabilities(0, 23).one, known.one[:, ::2])
    np.testing.assert_array_equal(again.read(0, 23).dosage, dosage[:, ::2])
    pgen = open_genotypes(tmp_path / "a.pgen")
    np.testing.assert_allclose(pgen.read(0, 23).dosage, dosage[:, ::2], atol=1 / 16384)
    assert convert(tmp_path / "a.pgen", tmp_path / "b.bgen", "--bits", "16", "--compression", "zstd") == 0
    table = read_results(tmp_path / "b.variants.parquet")
    assert set(table["info_method"].tolist()) == {"MaCH r2"}
    back = pgen.read(0, 23).dosage
    for k in range(23):
        assert table["info"][k] == pytest.approx(naive_mach_r2(back[k].tolist()), abs=1e-6)
    np.testing.assert_allclose(open_genotypes(tmp_path / "b.bgen").read(0, 23).dosage, back, atol=1 / 65535)
    assert "too high" in json.loads((tmp_path / "b.bgen.json").read_text())["summary"][-1]


def test_dosages_become_calls_only_when_asked(imputed, tmp_path, capsys):
    assert convert(imputed, tmp_path / "h.bed") == 2
    assert ".bed holds 0, 1, 2 or missing, found a dosage of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert convert(imputed, tmp_path / "h.bed", "--hard-calls", "0.1") == 0
    dosage = open_genotypes(imputed).read(0, 23).dosage
    nearest = np.rint(dosage)
    expected = np.where(np.abs(dosage - nearest) <= 0.1, nearest, np.nan)
    np.testing.assert_array_equal(open_genotypes(tmp_path / "h.bed").read(0, 23).dosage, expected)


def test_filters_and_what_they_took_are_in_the_manifest(calls, tmp_path):
    folder, _, variants, _, expected = calls
    assert convert(folder / "g.pgen", tmp_path / "all.bed") == 0
    table = tmp_path / "all.variants.parquet"
    (tmp_path / "r.bed").write_text("1\t0\t700\nX\t0\t99999\n")
    more = (
        "--variants",
        table,
        "--regions",
        f"2:1500-,{tmp_path / 'r.bed'}",
        "--where",
        "maf > 0.41 and missing_rate < 0.2",
    )
    (tmp_path / "gone.txt").write_text("000\n")
    assert convert(folder / "g.bgen", tmp_path / "some.pgen", *more, "--remove", tmp_path / "gone.txt") == 0
    place, f = variants.position, np.nanmean(expected, axis=1) / 2
    c = variants.chromosome
    kept = ((c == "2") & (place >= 1500)) | ((c == "1") & (place <= 700)) | (c == "X")
    kept &= (np.minimum(f, 1 - f) > 0.41) & (np.isnan(expected).mean(axis=1) < 0.2)
    assert 0 < kept.sum() < 23
    found = open_genotypes(tmp_path / "some.pgen")
    np.testing.assert_array_equal(found.read(0, 99).dosage, expected[kept][:, 1:])
    manifest = json.loads((tmp_path / "some.pgen.json").read_text())
    assert manifest["counts"]["people_not_chosen"] == 1
    assert set(manifest["counts"]["variants_not_chosen"]) == {"not_listed", "outside_regions", "where"}
    assert str(tmp_path / "r.bed") in [i["path"] for i in manifest["inputs"]]


def test_the_same_bytes_whatever_threads_and_memory(imputed, tmp_path):
    assert convert(imputed, tmp_path / "a.bgen", "--threads", "1") == 0
    assert convert(imputed, tmp_path / "b.bgen", "--threads", "3") == 0
    for end in (".bgen", ".sample", ".variants.parquet"):
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()


def test_effect_alleles_follow_the_reference(calls, tmp_path):
    folder, _, variants, _, expected = calls
    assert convert(folder / "g.bgen", tmp_path / "o.pgen", "--bgen-reference", "last") == 0
    found = open_genotypes(tmp_path / "o.pgen")
    assert found.variants.effect_allele.tolist() == variants.other_allele.tolist()
    np.testing.assert_array_equal(found.read(0, 23).dosage, 2 - expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{g}.bed", "--out", "{t}/o.bgem"), "expected a name ending in .bed, .pgen, .bgen, found .bgem. Did you mean"),
        (("{t}/g.bed", "--out", "{t}/g.bed"), "this would replace the input"),
        (("{t}/g.bed", "--out", "{t}/o.pgen", "--variants", "{t}/o.variants.parquet"), "would replace the input"),
        (("{g}.bed", "--out", "{t}/o.pgen", "--where", "maf > 0.1"), "It comes from genotypes"),
        (("{g}.bed", "--out", "{t}/o.pgen", "--regions", "7"), "hold none of the 23 variants"),
        (("{g}.bed", "--out", "{t}/o.pgen", "--memory", "1MB"), "Raise --memory"),
    ],
)
def test_bad_requests(calls, tmp_path, capsys, arguments, message):
    folder, samples, variants, sex, dosage = calls
    with BedWriter(tmp_path / "g", samples, variants, sex) as out:
        out.append(dosage)
    (tmp_path / "o.variants.parquet").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    filled = [a.format(g=folder / "g", t=tmp_path) for a in arguments]
    assert command("genotypes", "convert", *filled) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_other_commands_take_the_formats_and_filters(calls, tmp_path):
    folder, *_ = calls
    (tmp_path / "gone.txt").write_text("000\n")
    # Without X: a VCF has no sexes, by which Hardy-Weinberg is tested there.
    more = ("--remove", tmp_path / "gone.txt", "--where", "position > 300 and chromosome != 'X'")
    for suffix in SUFFIXES:
        out = tmp_path / f"qc{suffix}"
        options = ("--max-variant-missing", "1", "--max-sample-missing", "1", "--no-check-sex")
        assert command("genotypes", "qc", folder / f"g{suffix}", *more, *options, "--out", out) == 0
        assert len(read_results(out / "variants.parquet")) == 15
    one, *others = ((tmp_path / f"qc{suffix}/variants.parquet").read_bytes() for suffix in SUFFIXES)
    assert all(other == one for other in others)


def test_a_scan_is_the_same_from_every_format(calls, tmp_path):
    folder, samples, *_ = calls
    rng = np.random.default_rng(0)
    write_table(quantitative_table(samples, ["a", "b"], rng.normal(size=(40, 2))), tmp_path / "traits.tsv")
    tables = []
    for suffix in SUFFIXES:
        out = tmp_path / f"gwas{suffix}"
        more = ("--hits", "1", "--min-mac", "5", "--regions", "1,2", "--executor", "processes", "--threads", "2")
        assert command("gwas", "run", folder / f"g{suffix}", tmp_path / "traits.tsv", *more, "--out", out) == 0
        tables.append(read_results(out / "hits.parquet"))
    assert len(tables[0]) > 20
    for table in tables[1:]:
        assert table["variant_id"].tolist() == tables[0]["variant_id"].tolist()
        np.testing.assert_allclose(table["beta"], tables[0]["beta"], rtol=1e-9)


def test_a_scan_has_mach_r2_of_dosages_in_every_format(imputed, tmp_path):
    assert convert(imputed, tmp_path / "p.pgen") == 0
    source = open_genotypes(imputed)
    people = source.samples.take(np.arange(1, 40))
    write_table(quantitative_table(people, ["a"], np.random.default_rng(1).normal(size=(39, 1))), tmp_path / "t.tsv")
    dosage = source.read(0, 23).dosage[:, 1:]
    for path in (imputed, tmp_path / "p.pgen"):
        out = tmp_path / f"o{path.suffix}"
        assert command("gwas", "run", path, tmp_path / "t.tsv", "--regions", "1,2", "--min-mac", "0", "--out", out) == 0
        table = read_results(out / "variants.parquet")
        rows = np.flatnonzero(np.isin(source.variants.chromosome, ["1", "2"]))
        for k, row in enumerate(rows):
            assert table["info"][k] == pytest.approx(min(naive_mach_r2(dosage[row].tolist()), 1), abs=1e-4)
