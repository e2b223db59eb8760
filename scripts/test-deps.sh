#!/bin/sh
# The Debian packages that some tests use, all of them, in one list:
#   chromium   opens the portal's pages
#   plink2     reference for genotype files, quality control, association
#   plink1.9   reference for clumping
set -eu
packages="chromium plink2 plink1.9"

missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
