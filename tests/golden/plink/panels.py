"""Real panels and the PLINK programs that the tests of this folder compare with; without, they skip."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DATA = Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere"))
EUR = DATA / "genotypes/1kg_eur_chr17_22/EUR_subset"
CHR22 = DATA / "sumstats/real_chr22/1000G_eur_chr22"
HEIGHT = DATA / "sumstats/real_chr22/ukb_height_chr22.fastGWA.gz"
MOUSE = DATA / "genotypes/mouse_hs1940/mouse_hs1940"

needs_eur = pytest.mark.skipif(not EUR.with_suffix(".bed").exists(), reason="needs BRAINLOCUS_DATA: 1kg_eur_chr17_22")
needs_chr22 = pytest.mark.skipif(not HEIGHT.exists(), reason="needs BRAINLOCUS_DATA: sumstats/real_chr22")
needs_mouse = pytest.mark.skipif(not MOUSE.with_suffix(".bed").exists(), reason="needs BRAINLOCUS_DATA: mouse_hs1940")
needs_plink2 = pytest.mark.skipif(shutil.which("plink2") is None, reason="needs the Debian package plink2")
needs_plink1 = pytest.mark.skipif(shutil.which("plink1.9") is None, reason="needs the Debian package plink1.9")


def run(program, folder, *arguments):
    """Run PLINK into `folder`/out and return the folder."""
    command = [program, *map(str, arguments), "--threads", "1", "--out", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
