"""Figures and exports of a scan from the command line, and bad input."""

import json
import re

import numpy as np
import pytest

from brainlocus.core import Column, PhenotypeTable, ResultTable, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import PgenWriter, read_associations, read_results, write_results, write_table
from brainlocus.pipeline.full_store import open_full, read_full, smallest_full
from brainlocus.pipeline.scan_figures import open_associations, qq_of
from tests.e2e.test_genetics_commands import command
from tests.unit.pipeline.test_gwas_points import png_size

N, M = 300, 240


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(1)
    people = SampleIndex.of([f"sub-{k:03d}" for k in range(N)])
    calls = rng.binomial(2, rng.uniform(0.2, 0.8, M)[:, None], (M, N)).astype(np.float32)
    calls[10] = 0.0  # no estimate
    chromosome = np.repeat(["1", "2", "22", "9"], M // 4)  # not in the order of GWAS-SSF
    variants = VariantTable(
        chromosome, np.tile(np.arange(M // 4) * 50_000 + 1, 4), text_array(["A"] * M), text_array(["C"] * M),
        text_array([f"rs{k}" for k in range(M)]), "unknown",
    )  # fmt: skip
    with PgenWriter(folder / "g", people, variants, np.ones(N, dtype=np.int8)) as out:
        out.append(calls)
    few = [Column(name, 0.6 * calls[j] + rng.normal(size=N)) for name, j in (("thickness/left", 30), ("volume", 200))]
    few[1].values[:20] = np.nan
    many = [Column(f"t{k}", rng.normal(size=N)) for k in range(14)]
    write_table(PhenotypeTable(people, tuple(few)), folder / "few.tsv")
    write_table(PhenotypeTable(people, tuple(many)), folder / "many.tsv")
    scan = ("gwas", "run", folder / "g.pgen")
    more = ("--figures", "--full", "--format", "ssf", "--genome-build", "hg19", "--missing", "exact")
    assert command(*scan, folder / "few.tsv", "--out", folder / "few", *more) == 0
    assert command(*scan, folder / "many.tsv", "--out", folder / "many", "--figures", "--hits", "0.01") == 0
    assert command(*scan, folder / "many.tsv", "--out", folder / "none", "--hits", "1e-30", "--figures") == 0
    assert command(*scan, folder / "few.tsv", "--out", folder / "plain", "--full") == 0
    return folder


def test_a_scan_of_few_traits_has_figures_of_each(cohort):
    names = sorted(path.name for path in (cohort / "few/figures").iterdir())
    kinds = ("manhattan", "qq")
    assert names == [f"{kind}-{trait}.png" for kind in kinds for trait in ("thickness_left", "volume")]
    assert all(png_size(cohort / "few/figures" / name)[0] >= 600 for name in names)


@pytest.mark.parametrize("name", ["many", "none"])
def test_a_scan_of_many_traits_has_figures_of_all(cohort, name):
    assert sorted(p.name for p in (cohort / name / "figures").iterdir()) == ["lambda.png", "manhattan.png", "qq.png"]
    assert len(read_results(cohort / "none/hits.parquet")) == 0


def test_gwas_ssf_is_every_test_to_ten_digits(cohort):
    scan = cohort / "few"
    for trait, name in (("thickness/left", "thickness_left"), ("volume", "volume")):
        back = read_associations(scan / f"ssf/{name}.tsv.gz")
        full = read_full(scan / "full", trait)
        full = full.take(np.isfinite(full["beta"]))
        assert len(back) == M - 1
        order = np.lexsort((full["position"], full["chromosome"].astype(int)))
        assert back["chromosome"].tolist() == full["chromosome"][order].tolist()
        for column in ("position", "variant_id", "effect_allele", "other_allele", "n"):
            assert back[column].tolist() == full[column][order].tolist(), column
        for column in ("beta", "standard_error", "neg_log10_p", "effect_allele_frequency"):
            np.testing.assert_allclose(back[column], full[column][order], rtol=5e-10)
        assert 'genome_assembly: "GRCh37"' in (scan / f"ssf/{name}.tsv.gz-meta.yaml").read_text()
    text = (scan / "ssf/volume.tsv.gz-meta.yaml").read_text()
    assert f"sample_size: {N - 20}" in text


def test_an_export_later_is_that_of_the_scan(cohort, tmp_path, capsys):
    for start in (cohort / "few", cohort / "few/full"):
        assert command("gwas", "export", start, "--traits", "vol*", "--out", tmp_path / "ssf") == 0
        assert sorted(p.name for p in (tmp_path / "ssf").iterdir()) == ["volume.tsv.gz", "volume.tsv.gz-meta.yaml"]
        assert (tmp_path / "ssf/volume.tsv.gz").read_bytes() == (cohort / "few/ssf/volume.tsv.gz").read_bytes()
    assert "1 files of GWAS-SSF, 239 rows" in capsys.readouterr().out
    counts = json.loads((tmp_path / "ssf.json").read_text())["counts"]
    assert counts == {"traits": 1, "rows": 239, "variants_left_out": 0, "variants_with_other_alleles": 0}
    assert command("gwas", "export", cohort / "plain", "--genome-build", "GRCh38", "--out", tmp_path / "other") == 0
    assert "GRCh38" in (tmp_path / "other/volume.tsv.gz-meta.yaml").read_text()


def test_the_smallest_p_over_traits_is_that_of_all_read_one_by_one(cohort):
    index = open_full(cohort / "few/full")
    found = smallest_full(index)
    strength = np.column_stack([read_full(index.folder, trait)["neg_log10_p"] for trait in index.traits])
    tested = np.isfinite(strength).any(axis=1)
    np.testing.assert_allclose(found["neg_log10_p"][tested], strength[tested].max(axis=1), rtol=1e-12)
    assert np.isnan(found["neg_log10_p"][~tested]).all()
    assert found["trait"][~tested].tolist() == [""] * int((~tested).sum())
    best = [index.traits[k] for k in strength[tested].argmax(axis=1)]
    assert found["trait"][tested].tolist() == best


def test_curves_end_at_the_strongest_test_whatever_was_kept(cohort):
    strongest = np.nanmax(read_full(cohort / "few/full", "volume")["neg_log10_p"])
    for place in ("few", "few/full", "few/hits.parquet", "few/ssf/volume.tsv.gz"):
        source = open_associations(cohort / place)
        (curve,) = qq_of(source, ["volume"] if "volume" in source.traits else [""])
        assert curve.n_tests == M - 1
        assert curve.observed[-1] == pytest.approx(strongest, rel=1e-6)
        assert curve.expected[-1] == pytest.approx(np.log10(M))
        assert curve.lambda_gc == pytest.approx(read_results(cohort / "few/traits.parquet")["lambda_gc"][1], rel=0.02)


PLOTS = [
    ("{few}",),
    ("{few}/full", "--trait", "volume", "--scale", "log", "--title", "A title"),
    ("{few}/hits.parquet", "--threshold", "1e-6"),
    ("{many}", "--trait", "t1*"),
    ("{many}", "--kind", "qq"),
    ("{few}/ssf/volume.tsv.gz",),
    ("{few}/ssf/volume.tsv.gz", "{few}", "--kind", "qq"),
    ("{few}", "--kind", "miami", "--trait", "volume,thickness/left"),
    ("{few}", "{plain}", "--kind", "miami", "--trait", "volume"),
    ("{few}", "{many}/hits.parquet", "--kind", "miami", "--trait", "volume,t3"),
    ("{few}", "{few}/ssf/volume.tsv.gz", "--kind", "miami"),
]


@pytest.mark.parametrize("arguments", PLOTS)
def test_plots_of_everything_that_can_be_read(cohort, tmp_path, arguments):
    folders = {name: cohort / name for name in ("few", "many", "plain")}
    given = [a.format(**folders) for a in arguments]
    for name in ("one", "two"):
        assert command("sumstats", "plot", *given, "--out", tmp_path / f"{name}.png") == 0
    assert png_size(tmp_path / "one.png")[0] >= 600
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


BAD = [
    ("sumstats plot {few} --trait volumes --out {o}.png", "no trait 'volumes'. Did you mean 'volume'"),
    ("sumstats plot {few} --kind miami --trait volume --out {o}.png", "one scan and 1 traits"),
    ("sumstats plot {few} {few} --out {o}.png", "draws one scan"),
    ("sumstats plot {few} --out {o}.pdf", "figures are PNG files, found the extension '.pdf'"),
    ("sumstats plot {f}/few.tsv --out {o}.png", "expected a column chromosome, found"),
    ("sumstats plot {f} --out {o}.png", "expected the folder of gwas run"),
    ("sumstats plot {f}/nothing --out {o}.png", "expected a file or folder"),
    ("sumstats plot {f}/cut.tsv --kind qq --out {o}.png", "only those with p up to 0.01"),
    ("gwas export {few} --traits volum --out {o}", "no trait 'volum'. Did you mean 'volume'"),
    ("gwas export {few} --genome-build GRCh38 --out {o}", "are of GRCh37, --genome-build says GRCh38"),
    ("gwas export {plain} --out {o}", "--genome-build GRCh37"),
    ("gwas export {many} --out {o}", "kept only with --full"),
    ("gwas run {f}/g.pgen {f}/few.tsv --format ssf --out {o}", "add --full"),
    ("gwas run {f}/g.pgen {f}/few.tsv --format ssf --full --out {o}", "--genome-build GRCh37"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_message_and_nothing_written(cohort, tmp_path, capsys, arguments, message):
    n = 40
    cut = {
        "chromosome": np.array(["1"] * n), "position": np.arange(1, n + 1), "neg_log10_p": np.linspace(2, 5, n),
    }  # fmt: skip
    write_results(ResultTable(cut), cohort / "cut.tsv")
    names = {name: cohort / name for name in ("few", "many", "plain")}
    out = tmp_path / "out"
    assert command(*[a.format(f=cohort, o=out, **names) for a in arguments.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == []
