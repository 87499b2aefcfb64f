#!/usr/bin/env bash
# daprd.sh FILE
#
# Builds FILE, Dapr's sidecar with the components that the tests use, and its
# placement and scheduler, from the pinned modules of test/daprd: 3 to 8 minutes
# and 2 GB of module cache when it is the first time. FILE appears by a rename;
# when it is there nothing is done.
set -euo pipefail

die() {
	echo "daprd: $*" >&2
	exit 1
}

[ $# -eq 1 ] || die "usage: daprd.sh FILE"
[ -x "$1" ] && exit 0
cd "$(dirname "$0")/../test/daprd"
mkdir -p "$(dirname "$1")"
temporary=$(mktemp "$1.XXXXXX")
trap 'rm -f "$temporary"' EXIT
echo "daprd: building the sidecar for the tests; this takes some minutes, once" >&2
# With cgo everything would be compiled a second time.
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$temporary" . ||
	die "the build failed; it needs the modules of test/daprd/go.mod"
# With the same flags, or all packages are compiled once more.
CGO_ENABLED=0 go vet -trimpath . || die "go vet finds the faults above"
mv -T "$temporary" "$1"
