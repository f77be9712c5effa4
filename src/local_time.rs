//! The local weekday and time, with which the rules evaluate `time=`.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::rules::WeekTime;

/// A clock of local time. Clones are cheap, and share the same source of time.
#[derive(Clone)]
pub struct LocalClock(Arc<dyn Fn() -> WeekTime + Send + Sync>);

impl LocalClock {
    /// The clock of this machine. The time zone is read once, now: from the variable `TZ`,
    /// or else from `/etc/localtime`; UTC if neither is valid.
    ///
    /// Call it on a thread with a stack of at least 1 MiB: parsing a time zone needs much
    /// stack. [`now`](LocalClock::now) needs little.
    pub fn local() -> LocalClock {
        let zone = TimeZone::system();
        LocalClock::from_fn(move || week_time(SystemTime::now(), &zone))
    }

    /// A clock that returns the result of this function, for tests.
    pub fn from_fn(now: impl Fn() -> WeekTime + Send + Sync + 'static) -> LocalClock {
        LocalClock(Arc::new(now))
    }

    /// The weekday and time now.
    pub fn now(&self) -> WeekTime {
        (self.0)()
    }
}

impl fmt::Debug for LocalClock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LocalClock({})", self.now())
    }
}

/// The local weekday and time in this zone at that system time.
fn week_time(time: SystemTime, zone: &TimeZone) -> WeekTime {
    // jiff covers the years -9999 to 9999. A time out of range becomes 1970, which is
    // better than a panic.
    let time = Timestamp::try_from(time).unwrap_or_default();
    let local = zone.to_datetime(time);
    let day = local.weekday().to_monday_zero_offset();
    let [day, hour, minute] = [day, local.hour(), local.minute()].map(i8::unsigned_abs);
    // All three are in range, so the default is never used.
    WeekTime::new(day, hour, minute).unwrap_or(WeekTime::MONDAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The local time in a POSIX time zone at a time given in UTC.
    fn local_time(zone: &str, utc: &str) -> String {
        let time: Timestamp = utc.parse().expect(utc);
        let zone = TimeZone::posix(zone).expect(zone);
        week_time(time.into(), &zone).to_string()
    }

    #[test]
    fn local_time_follows_daylight_saving_time() {
        // Berlin: summer time from the last Sunday of March to the last of October.
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        for (utc, expected) in [
            ("2026-01-05T07:00:00Z", "mon/08:00"),
            ("2026-07-06T06:00:00Z", "mon/08:00"),
            // The clock skips the hour from 02:00 to 03:00.
            ("2026-03-29T00:59:59Z", "sun/01:59"),
            ("2026-03-29T01:00:00Z", "sun/03:00"),
            // The clock shows the hour from 02:00 to 03:00 twice.
            ("2026-10-25T00:30:00Z", "sun/02:30"),
            ("2026-10-25T01:30:00Z", "sun/02:30"),
            ("2026-10-25T02:00:00Z", "sun/03:00"),
            // Midnight at the end of the week.
            ("2026-07-05T21:59:59Z", "sun/23:59"),
            ("2026-07-05T22:00:00Z", "mon/00:00"),
        ] {
            assert_eq!(local_time(berlin, utc), expected, "{utc}");
        }
    }

    #[test]
    fn time_zones_west_and_east_of_utc_are_converted() {
        let utc = "2026-11-21T12:34:56Z";
        for (zone, expected) in [
            ("UTC0", "sat/12:34"),
            ("<+0545>-5:45", "sat/18:19"),
            ("<-12>12", "sat/00:34"),
            ("<+14>-14", "sun/02:34"),
        ] {
            assert_eq!(local_time(zone, utc), expected, "{zone}");
        }
    }

    #[test]
    fn any_system_time_can_be_converted() {
        let zone = TimeZone::UTC;
        let century = std::time::Duration::from_secs(3_155_760_000);
        assert_eq!(
            week_time(SystemTime::UNIX_EPOCH, &zone).to_string(),
            "thu/00:00"
        );
        let far_future = week_time(SystemTime::UNIX_EPOCH + century * 1000, &zone);
        assert_eq!(far_future.to_string(), "thu/00:00");
        let clock = LocalClock::from_fn(move || far_future);
        assert_eq!(clock.clone().now(), far_future);
    }
}
