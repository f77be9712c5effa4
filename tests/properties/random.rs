//! Each oracle with some thousand inputs, of which most look like the real thing.

use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::oracles;
use crate::strategies;

/// Bytes as a failure shows them, ready to be pasted.
#[derive(Clone)]
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "b\"{}\"", self.0.escape_ascii())
    }
}

/// `PROPTEST_CASES` sets the number of cases. No file is written: a find belongs
/// into the corpus.
fn check(strategy: impl Strategy<Value = Vec<u8>>, holds: fn(&[u8])) {
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = strategies::mostly_whole(strategy).prop_map(Input);
    let outcome = TestRunner::new(config).run(&strategy, |Input(bytes)| {
        holds(&bytes);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn requests() {
    check(strategies::request(), oracles::request::holds);
}

#[test]
fn host_names() {
    check(strategies::host(), oracles::request::holds);
}

#[test]
fn replies() {
    check(strategies::replies(), oracles::reply::holds);
}

#[test]
fn answers_of_identd() {
    check(strategies::identd(), oracles::ident::holds);
}

#[test]
fn socks5_messages() {
    check(strategies::socks5(), oracles::socks5::holds);
}

#[test]
fn rules_files() {
    check(strategies::rules(), oracles::rules::holds);
}

#[test]
fn users_files() {
    check(strategies::users(), oracles::users::holds);
}

#[test]
fn queries() {
    check(strategies::query(), oracles::query::holds);
}

#[test]
fn prompts() {
    check(strategies::shell(), oracles::prompt::holds);
}

#[test]
fn terminals() {
    check(strategies::shell(), oracles::terminal::holds);
}

#[test]
fn pages() {
    let typed_and_said = (strategies::query(), strategies::shell());
    let strategy = typed_and_said.prop_map(|(typed, said)| [typed, b"\n".to_vec(), said].concat());
    check(strategy, oracles::page::holds);
}

#[test]
fn plain_bytes_for_all() {
    for (_, holds) in oracles::ALL {
        check(strategies::bytes(), holds);
    }
}
