//! Fuzzes the oracle of the same name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use threadsocks_fuzz::oracles;

fuzz_target!(|bytes: &[u8]| oracles::rules::check(bytes));
