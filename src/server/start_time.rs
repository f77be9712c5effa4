//! When a thread or process has started, from its `stat` file.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// The start since the boot: field 22 of proc_pid_stat(5).
pub(super) fn start_time(stat: &str) -> Option<Duration> {
    // The second field is the name in parentheses, and may contain blanks and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(22 - 3)?.parse().ok()?;
    let per_second: u64 = sysconf(SysconfVar::CLK_TCK).ok()??.try_into().ok()?;
    Some(Duration::from_millis(ticks * 1000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o18_a_start_time_is_read_after_any_name() {
        let fields = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 250 9 9";
        for name in ["accept", "s1 (x) ", ") S 1"] {
            let stat = format!("12 ({name}) {fields}");
            let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as u64;
            let expected = Duration::from_millis(250_000 / per_second);
            assert_eq!(start_time(&stat), Some(expected), "{stat}");
        }
        assert_eq!(start_time("12 (accept"), None);
    }
}
