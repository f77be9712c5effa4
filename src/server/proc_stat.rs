//! The fields of a `stat` file of Linux, which a process and each thread have.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// A field by its number in proc_pid_stat(5), from 3 on.
pub(super) fn field(stat: &str, number: usize) -> Option<u64> {
    // The second field is the name in parentheses, and may contain blanks and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let text = fields.split(' ').nth(number.checked_sub(3)?)?;
    text.trim_end().parse().ok()
}

/// A field that counts the ticks of the kernel's clock for programs.
pub(super) fn time_field(stat: &str, number: usize) -> Option<Duration> {
    let ticks = field(stat, number)?;
    let per_second: u64 = sysconf(SysconfVar::CLK_TCK).ok()??.try_into().ok()?;
    Some(Duration::from_millis(ticks * 1000 / per_second))
}

/// The number of the field with the start since the boot.
pub(super) const START_TIME: usize = 22;

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
            assert_eq!(time_field(&stat, START_TIME), Some(expected), "{stat}");
        }
        assert_eq!(time_field("12 (accept", START_TIME), None);
        assert_eq!(field("12 (accept) S 1\n", 4), Some(1));
    }
}
