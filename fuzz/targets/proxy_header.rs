//! Runs the oracle `proxy_header` on the input of the fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use threadsocks_fuzz::oracles;

fuzz_target!(|bytes: &[u8]| oracles::proxy_header::check(bytes));
