#!/usr/bin/env bash
# Says what is missing to build, and the remedy, instead of a compiler's error.
set -euo pipefail

faults=0
need() {
	echo "need: $*" >&2
	faults=1
}

# Go before 1.21 cannot fetch the toolchain that go.mod asks for.
if ! version=$(go env GOVERSION 2>/dev/null); then
	need "go is not on the PATH; install Go 1.21 or newer"
elif [[ $version =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] < 21)); then
	need "$version is too old; install Go 1.21 or newer"
fi
# The engine calls a C library.
command -v "${CC:-gcc}" >/dev/null ||
	need "no C compiler; on Debian: apt-get install -y gcc libc6-dev"
exit $faults
