#!/usr/bin/env bash
# onnx-cuda.sh FOLDER
#
# Makes FOLDER the CUDA build of ONNX Runtime that scripts/onnx-cuda.txt pins:
#
#   libonnxruntime.so.1                     the library, which runs on the CPU too
#   libonnxruntime_providers_{shared,cuda}.so   loaded from beside it
#   cuda/                                   NVIDIA's libraries; infer loads them from here
#
# The NVIDIA driver (libcuda.so.1) comes with the machine and is not fetched.
# FOLDER appears by a rename, so a folder that is there is whole; when it is
# there nothing is done. About 870 MB are downloaded and 1.2 GB is kept.
set -euo pipefail

die() {
	echo "onnx-cuda: $*" >&2
	exit 1
}

[ $# -eq 1 ] || die "usage: onnx-cuda.sh FOLDER"
folder=$1
[ -e "$folder" ] && exit 0
requirements=$(dirname "$0")/onnx-cuda.txt

[ "$(uname -sm)" = "Linux x86_64" ] ||
	die "no pinned download for $(uname -sm); put the libraries into $folder yourself"
python3 -m pip --version >/dev/null 2>&1 ||
	die "python3 with pip is needed; on Debian: apt-get install -y python3-pip"

mkdir -p "$(dirname "$folder")" || die "cannot write beside $folder; set XDG_CACHE_HOME to a writable folder"
# Beside the target, because a rename is atomic only inside one file system.
temporary=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

echo "onnx-cuda: ONNX Runtime and CUDA libraries to $folder (870 MB)" >&2
# The wheels are unpacked and never installed. pip does not take a newer
# platform to include the older ones.
platforms=()
for p in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010 manylinux_2_5 manylinux1; do
	platforms+=(--platform "${p}_x86_64")
done
python3 -m pip download --disable-pip-version-check --no-cache-dir --no-deps \
	--only-binary=:all: --python-version 3.11 "${platforms[@]}" \
	--require-hashes --requirement "$requirements" --dest "$temporary/wheels" >&2 ||
	die "the download broke off; run it again, or put the libraries into $folder yourself"

python3 - "$temporary" <<'PYTHON'
import glob, os, re, shutil, sys, zipfile

temporary, = sys.argv[1:]
new = os.path.join(temporary, "new")
os.makedirs(os.path.join(new, "cuda"))
# What is taken of each wheel, and its new name; the licences go with it.
wanted = [
    (r"onnxruntime/capi/libonnxruntime\.so\..*", "libonnxruntime.so.1"),
    (r"onnxruntime/capi/(libonnxruntime_providers_(?:shared|cuda)\.so)", r"\1"),
    (r"onnxruntime/(LICENSE|ThirdPartyNotices\.txt)", r"\1"),
    (r"nvidia/cu13/lib/(lib(?:cublas|cublasLt|curand|cudart|nvrtc|nvrtc-builtins)\.so\.[\d.]+)", r"cuda/\1"),
    (r"(nvidia_\w+)-.*\.dist-info/licenses/License\.txt", r"cuda/LICENSE.\1"),
]
for wheel in glob.glob(os.path.join(temporary, "wheels", "*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            for pattern, to in wanted:
                m = re.fullmatch(pattern, name)
                if m:
                    path = os.path.join(new, m.expand(to))
                    with archive.open(name) as source, open(path, "xb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                        sink.flush()
                        os.fsync(sink.fileno())
    os.remove(wheel)
libraries = [f for _, _, files in os.walk(new) for f in files if ".so" in f]
if len(libraries) != 9:
    sys.exit(f"the wheels held {sorted(libraries)}, want 9 libraries")
PYTHON
mv -T "$temporary/new" "$folder"
