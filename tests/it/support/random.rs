//! Repeatable random numbers: a xorshift64 generator, the same for the same seed.

use std::time::{Duration, SystemTime};

/// A pseudo-random number generator; not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        // Multiplying by an odd constant spreads small seeds; the state must not be 0.
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 to below `bound`. Leaves out the low bits, which are less random.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// A duration from zero to `max`, inclusive.
    pub(crate) fn duration_up_to(&mut self, max: Duration) -> Duration {
        Duration::from_nanos(self.below(max.as_nanos() as u64 + 1))
    }

    /// This many random bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        // A loop over indices: without optimization an iterator takes 13 times as long, and the
        // tests of transfers need hundreds of megabytes.
        let mut bytes = vec![0; count.next_multiple_of(8)];
        let mut at = 0;
        while at < count {
            bytes[at..at + 8].copy_from_slice(&self.next().to_le_bytes());
            at += 8;
        }
        bytes.truncate(count);
        bytes
    }
}

/// The seed in the environment variable `SEED`, or else a new one for each run. Prints
/// it on stdout, which the test runner shows for a failed test.
pub(crate) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let given = std::env::var("SEED").ok();
    let given = given.and_then(|text| text.parse().ok());
    let seed = given.unwrap_or(now.unwrap().as_micros() as u64 % 1_000_000);
    println!("SEED={seed} repeats this");
    seed
}
