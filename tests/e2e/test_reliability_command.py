"""``associate reliability`` through the command line: planted reliability, missing sessions, statuses."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.io import read_results


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def table(tmp_path):
    """Three hundred people, two sessions and for ten of them a third; ICC 0.9, 0.5 and a constant."""
    rng = np.random.default_rng(0)
    lines = ["participant_id\tsession_id\tQSM_left_putamen_median\tT2star_left_putamen_median\tflat\tnote"]
    for k in range(300):
        person = rng.normal(size=2)
        for session in ("ses-1", "ses-2", *(("ses-10",) if k < 10 else ())):
            if session == "ses-2" and k in (3, 4):
                continue
            one = 50 + 3 * person[0] + rng.normal()
            two = f"{40 + person[1] + rng.normal():.6f}" if k != 7 else ""
            lines.append(f"sub-{k}\t{session}\t{one:.6f}\t{two}\t1\tword")
    path = tmp_path / "idps_sessions.tsv"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "idps_sessions.json").write_text('{"QSM_left_putamen_median": {"Units": "ppb"}}')
    return path


def test_planted_reliability(table, tmp_path):
    out = tmp_path / "reliability.tsv"
    options = ("--sessions", "ses-1,ses-2", "--bootstrap", "300", "--report", tmp_path / "report", "--quiet")
    code = code_of("associate", "reliability", table, "--session", "session_id", *options, "--out", out)
    assert code == 3  # a measure is constant
    found = read_results(out)
    assert found["measure"].tolist() == ["QSM_left_putamen_median", "T2star_left_putamen_median", "flat"]
    assert found["unit"].tolist() == ["ppb", "", ""]
    assert found["n"].tolist() == [298, 297, 298]
    assert found["status"].tolist() == ["ok", "ok", "the measure is constant"]
    for row, truth in ((0, 0.9), (1, 0.5)):
        assert found["icc_2_1_lower"][row] < truth < found["icc_2_1_upper"][row]
        assert found["icc_3_1_bootstrap_lower"][row] < truth < found["icc_3_1_bootstrap_upper"][row]
        assert found["r_lower"][row] < found["r"][row] < found["r_upper"][row]
    assert found["within_subject_sd"][0] == pytest.approx(1.0, abs=0.1)
    for name in ("icc.png", "sessions.png", "bland_altman.png"):
        assert (tmp_path / "report" / name).stat().st_size > 5000
    manifest = json.loads((tmp_path / "reliability.tsv.json").read_text())
    assert manifest["counts"]["participants_lacking_a_session"] == 2
    again = tmp_path / "again.tsv"
    code_of("associate", "reliability", table, *options[:4], "--quiet", "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_all_sessions_by_default(table, tmp_path):
    out = tmp_path / "three.parquet"
    assert code_of("associate", "reliability", table, "--traits", "QSM_*", "--quiet", "--out", out) == 0
    found = read_results(out)
    assert (found["n"][0], found["n_sessions"][0]) == (8, 3)
    assert (found["first_session"][0], found["last_session"][0]) == ("ses-1", "ses-10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sessions", "ses-1,ses-9"), "ses-9 not in session_id, which has ['ses-1', 'ses-2', 'ses-10']"),
        (("--sessions", "ses-1"), "expected two sessions or more"),
        (("--session", "visit"), "no column 'visit'"),
    ],
)
def test_bad_input(table, tmp_path, capsys, options, message):
    assert code_of("associate", "reliability", table, *options, "--quiet", "--out", tmp_path / "x.tsv") == 2
    assert message in " ".join(capsys.readouterr().err.split())
