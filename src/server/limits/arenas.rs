//! The number of arenas of glibc's allocator.
//!
//! Each thread takes an arena of its own until there are as many as the limit; then threads
//! share them. An arena needs address space and memory mappings.

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
    of_environment(processors, |name| std::env::var(name).ok())
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
