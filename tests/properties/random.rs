//! Each oracle on random input, most of which is nearly valid.

use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::oracles;
use crate::strategies;

/// Input bytes; a failure prints them as a Rust byte string.
#[derive(Clone)]
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Runs the oracle on random input. `PROPTEST_CASES` sets the number of cases.
///
/// Proptest writes no file of failures: failing input belongs into the corpus.
fn run_cases(strategy: impl Strategy<Value = Vec<u8>>, oracle: fn(&[u8])) {
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = strategies::mutated(strategy).prop_map(Input);
    let outcome = TestRunner::new(config).run(&strategy, |Input(bytes)| {
        oracle(&bytes);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn random_requests_pass() {
    run_cases(strategies::request(), oracles::request::check);
}

#[test]
fn random_host_names_pass() {
    run_cases(strategies::host_name(), oracles::request::check);
}

#[test]
fn random_replies_pass() {
    run_cases(strategies::replies(), oracles::reply::check);
}

#[test]
fn random_ident_replies_pass() {
    run_cases(strategies::ident_replies(), oracles::ident::check);
}

#[test]
fn x30_x31_random_proxy_headers_pass() {
    run_cases(strategies::proxy_header(), oracles::proxy_header::check);
}

#[test]
fn random_socks5_messages_pass() {
    run_cases(strategies::socks5(), oracles::socks5::check);
}

#[test]
fn random_rules_files_pass() {
    run_cases(strategies::rules(), oracles::rules::check);
}

#[test]
fn random_users_files_pass() {
    run_cases(strategies::users(), oracles::users::check);
}

#[test]
fn random_queries_pass() {
    run_cases(strategies::query(), oracles::query::check);
}

#[test]
fn random_prompts_pass() {
    run_cases(strategies::shell_output(), oracles::prompt::check);
}

#[test]
fn random_terminal_output_passes() {
    run_cases(strategies::shell_output(), oracles::terminal::check);
}

#[test]
fn random_pages_pass() {
    let parts = (strategies::query(), strategies::shell_output());
    let strategy = parts.prop_map(|(typed, output)| [typed, b"\n".to_vec(), output].concat());
    run_cases(strategy, oracles::page::check);
}

#[test]
fn random_bytes_pass_every_oracle() {
    for (_, oracle) in oracles::ALL {
        run_cases(strategies::bytes(), oracle);
    }
}
