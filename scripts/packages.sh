#!/usr/bin/env bash
# packages.sh PACKAGE...
#
# Installs Debian's packages that are not there, as root or with sudo. One whose
# command is on the PATH, from wherever it came, is there.
set -euo pipefail

missing=()
for package in "$@"; do
	command -v "$package" >/dev/null ||
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
command -v apt-get >/dev/null || {
	echo "packages: this is no Debian; install ${missing[*]} with the package manager of this system" >&2
	exit 1
}
root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || {
		echo "packages: ${missing[*]} must be installed by root: apt-get install -y ${missing[*]}" >&2
		exit 1
	}
	root=(sudo)
fi
echo "packages: installing ${missing[*]}" >&2
# A service that the package would start is of no use here, and takes a port.
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update -qq >&2 || true
"${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
