// Package grammar masks the tokens that a model may write next, so that its
// output is JSON, satisfies a JSON Schema, or matches a regular expression or
// one of several texts.
//
// A Grammar is a pushdown automaton over bytes. Its states are made lazily, as
// those of a deterministic automaton, and remember their transitions and
// masks; the tokens inside strings, which are most of a vocabulary, are masked
// once per Vocabulary for all grammars. It is our own since no library fits:
// llguidance's C interface is published only inside a Python extension that
// does not load without an interpreter, or as Rust source.
//
// # JSON Schema
//
// The subset of draft 2020-12 is: boolean schemas, type (also a list), enum,
// const, properties, required, additionalProperties, patternProperties (at
// most four), minProperties, maxProperties, prefixItems, items, minItems,
// maxItems, minLength, maxLength, pattern, format (the table formats),
// minimum, maximum and their exclusive forms, allOf, anyOf, oneOf, $ref within
// the document, $defs, definitions and recursion; of older drafts an array of
// items with additionalItems. Annotations are accepted; any other keyword is
// refused with an UnsupportedError, never ignored: among them not, if,
// contains, uniqueItems, multipleOf, dependentRequired, unevaluatedProperties,
// $dynamicRef, and propertyNames unless it says no more than that names are
// strings.
//
// oneOf is accepted when its branches can be seen to exclude each other: by
// type, by enum, by ranges, or by a required property with different values.
//
// As in the specification, a schema without type allows every type, and one
// without additionalProperties allows more properties.
//
// # What is written
//
// All output is a valid instance, but not every instance can be written:
//   - Listed properties come in the order of the schema (those of allOf and
//     $ref in the order of reading; required ones that are not listed last),
//     then additional ones. Additional names may repeat.
//   - Between the parts of an object or array there is nothing, one space, or
//     a line break and up to 24 spaces or 6 tabs; after a colon nothing or one
//     space; before a comma or colon and around the value nothing.
//   - Strings hold any character, escaped or not. The names of listed
//     properties and the values of enum and const are spelled without needless
//     escapes and white space.
//   - Integers are plain digits within 64 bits. Other numbers have up to 15
//     digits on each side of the point and two in the exponent; between bounds
//     they have no exponent and about 15 digits in all.
//   - Values that no schema describes nest up to 32 levels.
//   - Patterns are RE2's syntax; \d, \w, \b and \s are ASCII.
//   - Formats allow the common form: an e-mail address without quotes or
//     comments, a URI with http, https or ftp and a host.
//
// For a minimum of properties only one additional property is counted.
//
// # Limits
//
// A schema has up to 256 KiB, 128 levels, 4096 properties in one object, four
// patterns of property names, 64 alternatives of one value that are no enum
// values (512 with them), and 131,072 nodes once its bounded arrays are written
// out. A pattern has up to 8 KiB and 20,000 instructions with its repeats
// written out, and its automaton 32,768 states; so has a pattern together with
// maxLength, while maxLength alone may be anything. The options of a Choice
// have 1 MiB. All this, and the work of compiling, ends in a TooLargeError
// within a fraction of a second; a context that ends stops it sooner.
//
// A grammar keeps up to 4096 states and 8 MiB of masks, a Vocabulary 32 MiB.
package grammar
