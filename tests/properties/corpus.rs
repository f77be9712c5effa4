//! Every file of the fuzzer's corpus, and everything close to it, passes its oracle.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use crate::oracles;

/// Bytes of all variants of one file together; they are spread evenly over it.
const MOST: usize = 8_000;

/// Bytes that mean something to one of the parsers.
const TELLING: &[u8] = b"\0\n\r %&=+-*./,:#<\"\x04\x1b[\xff\xc3";

/// All files of one target, as they are and changed.
fn passes(target: &str) {
    let mut all = oracles::ALL.into_iter();
    let (_, holds) = all.find(|(name, _)| *name == target).expect(target);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = files(&corpus.join(target));
    assert!(!files.is_empty(), "no corpus for {target}");
    for file in files {
        let bytes = fs::read(&file).expect("a file of the corpus");
        for variant in [vec![bytes.clone()], neighbours(&bytes)].concat() {
            if panic::catch_unwind(|| holds(&variant)).is_err() {
                let name = file.file_name().unwrap().display();
                panic!("{target}/{name}, as b\"{}\"", variant.escape_ascii());
            }
        }
    }
}

#[test]
fn kept_for_request() {
    passes("request");
}

#[test]
fn kept_for_reply() {
    passes("reply");
}

#[test]
fn kept_for_ident() {
    passes("ident");
}

#[test]
fn kept_for_socks5() {
    passes("socks5");
}

#[test]
fn kept_for_rules() {
    passes("rules");
}

#[test]
fn kept_for_users() {
    passes("users");
}

#[test]
fn kept_for_query() {
    passes("query");
}

#[test]
fn kept_for_prompt() {
    passes("prompt");
}

#[test]
fn kept_for_terminal() {
    passes("terminal");
}

#[test]
fn kept_for_page() {
    passes("page");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("the corpus")
        .map(Result::unwrap);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Its prefixes, it without one byte, and with one byte changed.
fn neighbours(bytes: &[u8]) -> Vec<Vec<u8>> {
    let step = (4 * bytes.len() * bytes.len()).div_ceil(MOST).max(1);
    let mut all = Vec::new();
    for at in (0..bytes.len()).step_by(step) {
        let (front, back) = bytes.split_at(at);
        let telling = TELLING[(at + bytes.len()) % TELLING.len()];
        all.push(front.to_vec());
        all.push([front, &back[1..]].concat());
        all.push([front, &[telling], &back[1..]].concat());
        all.push([front, &[back[0] ^ 0x20], back].concat());
    }
    all
}
