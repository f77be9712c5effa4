//! The number of arenas of glibc's allocator.
//!
//! Each thread takes an arena of its own until there are as many as the limit; then threads
//! share them. An arena needs address space and memory mappings.

use std::{fs, io};

use nix::unistd::{SysconfVar, sysconf};

/// Arenas per processor in a 64-bit program (`NARENAS_FROM_NCORES`), if no variable of the
/// environment sets their number.
const ARENAS_PER_PROCESSOR: u64 = 8;

/// The most arenas that the allocator makes in this process.
pub(super) fn max_arenas() -> u64 {
    // Processors that are online, as glibc counts them. A share of them in a control group
    // does not matter to it.
    let processors = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    let processors = processors.and_then(|count| u64::try_from(count).ok());
    let counts = environment_counts();
    of_environment(processors, |name| {
        std::env::var(name).ok().filter(|_| counts)
    })
}

/// Does the allocator follow the environment? Not in a program with file capabilities or a
/// set-user-ID bit (secure-execution mode, ld.so(8)).
pub(super) fn environment_counts() -> bool {
    match fs::read("/proc/self/auxv") {
        Ok(vector) => !is_secure(&vector),
        // The file belongs to root in such a program, unless fs.suid_dumpable is 1. Without /proc
        // it is not known; such programs are rare.
        Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
    }
}

/// Does this auxiliary vector, which consists of pairs of a type and a value, have AT_SECURE?
fn is_secure(vector: &[u8]) -> bool {
    const AT_SECURE: usize = 23;
    let (words, _) = vector.as_chunks();
    let words: Vec<usize> = words
        .iter()
        .map(|&word| usize::from_ne_bytes(word))
        .collect();
    let (pairs, _) = words.as_chunks();
    pairs
        .iter()
        .any(|&[kind, value]| kind == AT_SECURE && value != 0)
}

/// Unlimited if the number of processors is not known, or the environment has a setting
/// other than a plain number in `MALLOC_ARENA_MAX`.
fn of_environment(processors: Option<u64>, variable: impl Fn(&str) -> Option<String>) -> u64 {
    let tunables = variable("GLIBC_TUNABLES").unwrap_or_default();
    if tunables.contains("malloc.arena_") || variable("MALLOC_ARENA_TEST").is_some() {
        return u64::MAX;
    }
    match variable("MALLOC_ARENA_MAX").map(|count| count.parse()) {
        Some(Err(_)) => u64::MAX,
        Some(Ok(count)) if count > 0 => count,
        // 0 is the default.
        _ => processors.map_or(u64::MAX, |count| count.saturating_mul(ARENAS_PER_PROCESSOR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s37_a_program_with_capabilities_ignores_the_environment() {
        let vector = |words: &[usize]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        for (words, expected) in [
            (&[16, 7, 23, 1, 0, 0][..], true),
            (&[16, 7, 23, 0, 0, 0], false),
            (&[7, 23, 1, 1], false),
            (&[], false),
        ] {
            let vector: Vec<u8> = vector(words);
            assert_eq!(is_secure(&vector), expected, "{words:?}");
        }
        assert!(environment_counts());
    }

    #[test]
    fn s37_the_environment_sets_the_number_of_arenas() {
        for (processors, name, value, expected) in [
            (Some(128), "OTHER", "1", 1024),
            (Some(2), "MALLOC_ARENA_MAX", "1023", 1023),
            (Some(2), "MALLOC_ARENA_MAX", "1", 1),
            (Some(2), "MALLOC_ARENA_MAX", "0", 16),
            (Some(2), "MALLOC_ARENA_MAX", "0x3ff", u64::MAX),
            (Some(2), "MALLOC_ARENA_TEST", "1000", u64::MAX),
            (Some(2), "GLIBC_TUNABLES", "glibc.malloc.check=1", 16),
            (
                Some(2),
                "GLIBC_TUNABLES",
                "glibc.malloc.arena_max=9",
                u64::MAX,
            ),
            (None, "OTHER", "1", u64::MAX),
        ] {
            let variable = |asked: &str| (asked == name).then(|| value.to_owned());
            let arenas = of_environment(processors, variable);
            assert_eq!(arenas, expected, "{name}={value}");
        }
    }
}
