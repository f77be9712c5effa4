//! The program of the console. For this test cargo builds it together with all tests; the tests of
//! `tests/it` would wait for it otherwise.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn without_a_query_it_prints_the_form() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_threadsocks-console"));
    program
        .env_clear()
        .env("GATEWAY_INTERFACE", "CGI/1.1")
        .env("REQUEST_METHOD", "GET");
    let output = program.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(
        page.to_ascii_lowercase()
            .contains("content-type: text/html"),
        "{page}"
    );
    assert!(page.contains("<form"), "{page}");
}
