"""Digests see every change of content, and no time."""

import json

from brainlocus.io import digest_input


def test_the_digits_of_a_time_change_nothing(tmp_path):
    for name, seconds in (("quick", 0.5), ("slow", 123.456)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fit.json").write_text(json.dumps({"loss": 1.0, "run": {"seconds": seconds}}))
        (tmp_path / name / "labels.txt").write_text("1 2 3")
    assert digest_input(tmp_path / "quick").sha256 == digest_input(tmp_path / "slow").sha256


def test_content_and_names_change_the_digest(tmp_path):
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b.json").write_text(json.dumps({"loss": 1.0, "run": {"seconds": 1}}))
    seen = {digest_input(tmp_path).sha256}
    (tmp_path / "a.txt").write_text("2")
    seen.add(digest_input(tmp_path).sha256)
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    seen.add(digest_input(tmp_path).sha256)
    (tmp_path / "b.json").write_text(json.dumps({"loss": 2.0, "run": {"seconds": 1}}))
    seen.add(digest_input(tmp_path).sha256)
    assert len(seen) == 4
