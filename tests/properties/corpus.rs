//! Every file of the fuzzer's corpus, and every variant of it, passes its oracle.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use crate::oracles;

/// Bytes of all variants of one file together: a bound on the time per file. The changes of a
/// long file are spread evenly over it.
const MAX_VARIANT_BYTES: usize = 8_000;

/// Bytes with a meaning in at least one of the formats.
const SPECIAL_BYTES: &[u8] = b"\0\n\r %&=+-*./,:#<\"\x04\x1b[\xff\xc3";

/// Runs the oracle of one target on each file of its corpus and on the file's variants.
fn check_corpus(target: &str) {
    let mut all = oracles::ALL.into_iter();
    let (_, check) = all.find(|(name, _)| *name == target).expect(target);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = files(&corpus.join(target));
    assert!(!files.is_empty(), "no corpus for {target}");
    for file in files {
        let bytes = fs::read(&file).expect("a file of the corpus");
        for variant in [vec![bytes.clone()], variants(&bytes)].concat() {
            if panic::catch_unwind(|| check(&variant)).is_err() {
                let name = file.file_name().unwrap().display();
                panic!("{target}/{name}, as b\"{}\"", variant.escape_ascii());
            }
        }
    }
}

#[test]
fn request_corpus_passes() {
    check_corpus("request");
}

#[test]
fn reply_corpus_passes() {
    check_corpus("reply");
}

#[test]
fn ident_corpus_passes() {
    check_corpus("ident");
}

#[test]
fn proxy_header_corpus_passes() {
    check_corpus("proxy_header");
}

#[test]
fn socks5_corpus_passes() {
    check_corpus("socks5");
}

#[test]
fn rules_corpus_passes() {
    check_corpus("rules");
}

#[test]
fn users_corpus_passes() {
    check_corpus("users");
}

#[test]
fn query_corpus_passes() {
    check_corpus("query");
}

#[test]
fn prompt_corpus_passes() {
    check_corpus("prompt");
}

#[test]
fn terminal_corpus_passes() {
    check_corpus("terminal");
}

#[test]
fn page_corpus_passes() {
    check_corpus("page");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("the corpus")
        .map(Result::unwrap);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Variants of the bytes: prefixes, one byte removed, one byte replaced, one byte inserted.
fn variants(bytes: &[u8]) -> Vec<Vec<u8>> {
    let step = (4 * bytes.len() * bytes.len())
        .div_ceil(MAX_VARIANT_BYTES)
        .max(1);
    let mut all = Vec::new();
    for at in (0..bytes.len()).step_by(step) {
        let (head, tail) = bytes.split_at(at);
        let special = SPECIAL_BYTES[(at + bytes.len()) % SPECIAL_BYTES.len()];
        all.push(head.to_vec());
        all.push([head, &tail[1..]].concat());
        all.push([head, &[special], &tail[1..]].concat());
        all.push([head, &[tail[0] ^ 0x20], tail].concat());
    }
    all
}
