#!/usr/bin/env bash
# node.sh FOLDER NODE_MODULES
#
# Makes NODE_MODULES hold the packages that FOLDER/package-lock.json pins by
# hash. The folder around it appears by a rename, so one that is there is whole;
# when it is there nothing is done.
set -euo pipefail

die() {
	echo "node: $*" >&2
	exit 1
}

[ $# -eq 2 ] || die "usage: node.sh FOLDER NODE_MODULES"
from=$1 modules=$2
folder=${modules%/node_modules}
[ -e "$modules" ] && exit 0

for tool in node npm; do
	command -v "$tool" >/dev/null || die "$tool is needed; install Node.js 20 or newer, with npm, from nodejs.org (Debian 12 has 18)"
done
[ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ] ||
	die "Node.js $(node --version) is too old; install 20 or newer from nodejs.org"

mkdir -p "$(dirname "$folder")" || die "cannot write $(dirname "$folder"); set INFER_CACHE to a writable folder"
temporary=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

echo "node: the packages of $from to $folder" >&2
cp "$from/package.json" "$from/package-lock.json" "$temporary"
# Some packages ask for Node.js 22 and run on 20 as well. No script of a package
# is run. npm's own cache and logs are kept apart and thrown away.
npm ci --prefix "$temporary" --cache "$temporary/npm" --ignore-scripts --omit=optional --no-audit --no-fund \
	--engine-strict=false --update-notifier=false --loglevel=error >&2 ||
	die "the download broke off; run it again"
rm -rf "$temporary/npm" "$folder"
mv -T "$temporary" "$folder"
