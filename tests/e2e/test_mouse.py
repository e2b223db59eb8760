"""The study of real mice reproduces GEMMA's heritabilities (methods: gwas.md section 6, "Check set")."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from brainlocus.cli.main import cli
from brainlocus.io import read_results

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere")) / "genotypes" / "mouse_hs1940"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs BRAINLOCUS_DATA with genotypes/mouse_hs1940")
def test_heritabilities_are_those_of_gemma(tmp_path):
    arguments = ["run", str(ROOT / "examples" / "mouse_hs1940.toml"), "--out", str(tmp_path / "mouse"), "--quiet"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    table = read_results(tmp_path / "mouse" / "heritability.parquet")
    # GEMMA's values have six digits; REML stops within 1e-5 of the optimum.
    gemma = {"phenotype_1": 0.601486, "phenotype_2": 0.589507, "phenotype_3": 0.661111, "phenotype_6": 0.630}
    found = dict(zip(table["trait"].tolist(), table["pve"].tolist(), strict=True))
    for trait, pve in gemma.items():
        assert found[trait] == pytest.approx(pve, abs=5e-4 if trait == "phenotype_6" else 1e-5), trait
    assert table["n"].tolist() == [1410, 757, 653, 757, 653, 1580]
    assert table["log_likelihood"][0] == pytest.approx(-1587.33, abs=0.01)
    assert (tmp_path / "mouse" / "store" / "store.json").is_file()
    assert len(read_results(tmp_path / "mouse" / "loci" / "loci.parquet")) > 0


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs BRAINLOCUS_DATA with genotypes/mouse_hs1940")
@pytest.mark.parametrize("more", [(), ("--ridge-loo",)])
def test_whole_genome_regression_takes_kinship_out(tmp_path, more):
    """Mice of a few founders: lambda of linear regression is about 10, of an exact mixed model 1.5 to 2.3."""
    bed, fam = DATA / "mouse_hs1940.bed", DATA / "mouse_hs1940.fam"
    for method, options in (("linear", ()), ("ridge", more)):
        arguments = ["gwas", "run", str(bed), str(fam), "--method", method, *options, "--out", str(tmp_path / method)]
        done = CliRunner().invoke(cli, [*arguments, "--quiet"])
        assert done.exit_code == 0, done.output
    linear, ridge = (read_results(tmp_path / m / "traits.parquet")["lambda_gc"] for m in ("linear", "ridge"))
    assert (linear > 5).all()
    assert (ridge < 2.2).all()
    assert (ridge > 0.9).all()
    r2 = read_results(tmp_path / "ridge" / "loco" / "traits.parquet")["cv_r2"]
    assert (r2 > 0.2).all()
