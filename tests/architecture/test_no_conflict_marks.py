"""No file carries the marks of a merge that was not finished."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^(<{7} |>{7} |={7}$)", re.MULTILINE)
FOLDERS = ("src", "tests", "docs", "benchmarks", "examples", "changes", "web/src", "scripts")
TEXT = {".py", ".md", ".toml", ".ts", ".css", ".sh", ".yml", ".json", ".html"}


def test_no_file_has_conflict_marks():
    paths = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in TEXT]
    paths += [p for p in ROOT.iterdir() if p.suffix in TEXT]
    assert len(paths) > 500
    assert [str(p.relative_to(ROOT)) for p in paths if MARK.search(p.read_text(encoding="utf-8"))] == []
