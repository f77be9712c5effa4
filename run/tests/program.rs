//! The program that runs programs. For this test cargo builds it together with all tests; the
//! tests of `tests/it` would wait for it otherwise.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn without_a_server_it_names_the_variables_and_exits_with_2() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_threadsocks-run"));
    let output = program.env_clear().arg("true").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("SOCKS5_SERVER"), "{message}");
}
