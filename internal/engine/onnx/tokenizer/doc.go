// Package tokenizer turns text into token ids and back for models whose
// tokenizer is a byte-level BPE (GPT-2, SmolLM, Llama 3, Qwen 2 and their
// relatives), read from the tokenizer.json of the Hugging Face ecosystem.
//
// The ids are those of Hugging Face tokenizers: a model was trained on exactly
// that segmentation, and an almost right one degrades answers silently. Golden
// ids of that library, for every Unicode code point and for hand-picked and
// random strings, hold this package to it. A file that asks for something this
// package does not do is refused by name when it is loaded.
//
// Two properties of the original are kept because models depend on them. A
// byte that has no token in the vocabulary (SmolLM2 has none for U+0004, for
// instance) vanishes unless the file names an unknown token. And the character
// classes are those of the Unicode versions that library was built with.
//
// Input that is not valid UTF-8 is read as the library's callers would read
// it: every maximal ill-formed sequence becomes one U+FFFD.
//
// Truncation and padding settings in the file are ignored: they are habits of
// training, and the transformers library resets them on every call too.
package tokenizer
