#!/bin/sh
# Make the virtual environment and install brainlocus with everything in it. Usage: setup.sh PYTHON VENV
set -eu
python=$1
venv=$2

"$python" - <<'PY' || exit 2
import sys
if sys.version_info < (3, 11):
    sys.exit(f"brainlocus needs Python >= 3.11, found {sys.version.split()[0]}. Name another: make PYTHON=python3.12 ...")
PY

if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    # Debian and Ubuntu split venv from Python; fetch that half.
    rm -rf "$venv"
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "This Python has no venv module; installing the system package $version"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq "$version"; } >/dev/null; then
        echo "Could not install it. As an administrator: apt-get install $version" >&2
        exit 2
    fi
    "$python" -m venv "$venv"
fi

pip="$venv/bin/python -m pip --disable-pip-version-check"
$pip install --quiet --upgrade pip --constraint constraints.txt
$pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
touch "$venv/.installed"
