"""The demonstration finds what was planted, for more seeds than the one people see."""

import pytest

from brainlocus.pipeline import RunOptions
from brainlocus.pipeline.demo import run_demo

pytest.importorskip("msprime", reason="msprime (extra 'simulate') is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_is_found(tmp_path, seed):
    findings = run_demo(tmp_path, "small", RunOptions(quiet=True, seed=seed))
    outside = [f"{f.figure}: planted {f.planted}, found {f.found}, expected {f.band}" for f in findings if not f.ok]
    assert not outside, outside
