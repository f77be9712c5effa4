//! Runs the oracle `request` on the input of the fuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use threadsocks_fuzz::oracles;

fuzz_target!(|bytes: &[u8]| oracles::request::check(bytes));
