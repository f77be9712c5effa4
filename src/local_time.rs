//! The local weekday and time, with which the rules evaluate `time=`.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::rules::WeekTime;

/// The folder of the files of time zones, unless the variable `TZDIR` names another.
const ZONE_FOLDER: &str = "/usr/share/zoneinfo";

/// The file of the zone that counts if `TZ` is not set.
const LOCAL_ZONE: &str = "/etc/localtime";

/// The names that stand for UTC, also on a machine without the files of time zones.
const NAMES_OF_UTC: [&str; 6] = ["UTC", "UCT", "GMT", "Zulu", "Etc/UTC", "Etc/GMT"];

/// The daylight saving time of a zone that has a name for it and no rule (`CET-1CEST`): that
/// of the USA, which the C library takes then.
const DEFAULT_RULE: &str = ",M3.2.0,M11.1.0";

/// Why the time zone is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZoneError {
    /// The setting: `TZ="..."`, or the name of a file.
    setting: String,
    /// A clause.
    reason: &'static str,
}

impl fmt::Display for TimeZoneError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.setting, self.reason)
    }
}

impl std::error::Error for TimeZoneError {}

/// A clock of local time. Clones are cheap, and share the same source of time.
#[derive(Clone)]
pub struct LocalClock(Arc<dyn Fn() -> WeekTime + Send + Sync>);

impl LocalClock {
    /// The clock of this machine. The time zone is read once, now: from the variable `TZ`,
    /// or else from `/etc/localtime`, as tzset(3) does.
    ///
    /// Call it on a thread with a stack of at least 1 MiB: parsing a time zone needs much
    /// stack. [`now`](LocalClock::now) needs little.
    ///
    /// # Errors
    ///
    /// [`TimeZoneError`] where tzset(3) would silently take UTC, and for a zone that counts
    /// leap seconds.
    pub fn local() -> Result<LocalClock, TimeZoneError> {
        let folder = std::env::var_os("TZDIR").unwrap_or_else(|| ZONE_FOLDER.into());
        let zone = find_zone(std::env::var_os("TZ").as_deref(), Path::new(&folder))?;
        Ok(LocalClock::in_zone(zone))
    }

    /// A clock of UTC, for rules without `time=`.
    pub fn utc() -> LocalClock {
        LocalClock::in_zone(TimeZone::UTC)
    }

    fn in_zone(zone: TimeZone) -> LocalClock {
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

/// The zone for this value of the variable `TZ`, as in tzset(3): a file in the folder, or of
/// an absolute path; otherwise the notation of POSIX. An empty value is UTC. Without a value
/// [`LOCAL_ZONE`] counts.
fn find_zone(tz: Option<&OsStr>, folder: &Path) -> Result<TimeZone, TimeZoneError> {
    let Some(tz) = tz.map(OsStr::as_encoded_bytes) else {
        return local_zone(Path::new(LOCAL_ZONE));
    };
    let failed = |reason| TimeZoneError {
        setting: format!("TZ=\"{}\"", tz.escape_ascii()),
        reason,
    };
    let name = tz.strip_prefix(b":").unwrap_or(tz);
    let name = std::str::from_utf8(name).map_err(|_| failed("is not UTF-8 text"))?;
    match name {
        "" => return Ok(TimeZone::UTC),
        LOCAL_ZONE => return local_zone(Path::new(LOCAL_ZONE)),
        _ => {}
    }
    match read_zone(&folder.join(name)).map_err(failed)? {
        Some(zone) => Ok(zone),
        None if NAMES_OF_UTC.contains(&name) => Ok(TimeZone::UTC),
        None => posix_zone(name).ok_or_else(|| {
            failed(
                "is neither a file of the zoneinfo folder nor a zone as CET-1CEST,M3.5.0,M10.5.0",
            )
        }),
    }
}

/// The zone of [`LOCAL_ZONE`]; UTC if there is nothing of that name. A link without a file is an
/// error: it names a zone that is not installed.
fn local_zone(path: &Path) -> Result<TimeZone, TimeZoneError> {
    if let Err(error) = fs::symlink_metadata(path)
        && error.kind() == io::ErrorKind::NotFound
    {
        return Ok(TimeZone::UTC);
    }
    let zone = read_zone(path).and_then(|zone| zone.ok_or("is not a file, or links to none"));
    zone.map_err(|reason| TimeZoneError {
        setting: path.display().to_string(),
        reason,
    })
}

/// Parses the notation of POSIX.
fn posix_zone(text: &str) -> Option<TimeZone> {
    let zone = TimeZone::posix(text);
    let zone = zone.or_else(|_| TimeZone::posix(&format!("{text}{DEFAULT_RULE}")));
    zone.ok()
}

/// Reads a file of a time zone (TZif, RFC 9636); `None` if there is no regular file.
fn read_zone(path: &Path) -> Result<Option<TimeZone>, &'static str> {
    // Before it is opened: open(2) of a FIFO without a writer would block.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err("cannot be read");
        }
        Err(_) => return Ok(None),
    }
    let data = fs::read(path).map_err(|_| "cannot be read")?;
    if counts_leap_seconds(&data) {
        return Err("counts leap seconds, which the server does not; choose it without right/");
    }
    let zone = TimeZone::tzif("", &data).map_err(|_| "is not the file of a time zone")?;
    Ok(Some(zone))
}

/// Does the file have leap seconds? Its last header tells how many (RFC 9636, section 3.1).
fn counts_leap_seconds(data: &[u8]) -> bool {
    let header = data.windows(4).rposition(|bytes| bytes == b"TZif");
    let count = header.and_then(|at| data.get(at + 28..at + 32));
    count.is_some_and(|count| count != [0; 4])
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

    /// The local time by this value of `TZ` at a time given in UTC; the reason if there is none.
    fn time_by(tz: &str, utc: &str) -> Result<String, String> {
        let time: Timestamp = utc.parse().expect(utc);
        let zone = find_zone(Some(OsStr::new(tz)), Path::new(ZONE_FOLDER));
        let zone = zone.map_err(|error| error.to_string())?;
        Ok(week_time(time.into(), &zone).to_string())
    }

    #[test]
    fn f22_a_zone_without_a_rule_has_the_rule_of_the_c_library() {
        for (tz, utc, expected) in [
            ("CET-1", "2026-07-06T06:00:00Z", "mon/07:00"),
            ("CET-1CEST", "2026-07-06T06:00:00Z", "mon/08:00"),
            // The second Sunday of March, and the first one of November, at two o'clock.
            ("CET-1CEST", "2026-03-08T00:59:59Z", "sun/01:59"),
            ("CET-1CEST", "2026-03-08T01:00:00Z", "sun/03:00"),
            ("CET-1CEST", "2026-10-31T23:59:59Z", "sun/01:59"),
            ("CET-1CEST", "2026-11-01T01:00:00Z", "sun/02:00"),
            ("NZST-12NZDT", "2026-07-06T06:00:00Z", "mon/19:00"),
            ("CET-1CEST-3", "2026-07-06T06:00:00Z", "mon/09:00"),
            ("<+0545>-5:45", "2026-07-06T06:00:00Z", "mon/11:45"),
            ("", "2026-07-06T06:00:00Z", "mon/06:00"),
            (":", "2026-07-06T06:00:00Z", "mon/06:00"),
        ] {
            assert_eq!(time_by(tz, utc).as_deref(), Ok(expected), "{tz} {utc}");
        }
    }

    #[test]
    fn f22_utc_needs_no_file_and_a_local_zone_that_is_not_readable_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in NAMES_OF_UTC {
            let zone = find_zone(Some(OsStr::new(name)), folder.path());
            assert_eq!(zone, Ok(TimeZone::UTC), "{name}");
        }
        let path = folder.path().join("localtime");
        assert_eq!(local_zone(&path), Ok(TimeZone::UTC), "nothing is there");
        let loops = folder.path().join("loop");
        std::os::unix::fs::symlink("loop", &loops).expect("a link");
        std::os::unix::fs::symlink("nowhere", &path).expect("a link");
        for path in [&path, &loops, &folder.path().to_owned()] {
            let error = local_zone(path).expect_err("no file").to_string();
            assert!(
                error.ends_with("is not a file, or links to none"),
                "{error}"
            );
        }
    }

    #[test]
    fn f22_a_value_that_the_c_library_would_take_for_utc_is_an_error() {
        for tz in [
            "Europe/Nowhere",
            "FOO",
            "CET",
            "UTC+",
            "A-1",
            "CET-1CEST,M3",
            "CET-1CEST,,",
            " ",
            "/",
            "/dev/null",
            "..",
            "\u{1b}",
        ] {
            if Path::new(ZONE_FOLDER).join(tz).is_file() {
                continue;
            }
            let error = time_by(tz, "2026-07-06T06:00:00Z").expect_err(tz);
            assert!(error.starts_with("TZ=\""), "{error}");
            assert!(error.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }

    #[test]
    fn f22_files_are_read_and_leap_seconds_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        // Two headers, one type of local time (one hour east), the designation "XXX", and a
        // footer. The second header tells of leap seconds.
        let header = |leap_seconds: u8| {
            let mut header = [0; 44];
            header[..5].copy_from_slice(b"TZif2");
            (header[31], header[39], header[43]) = (leap_seconds, 1, 4);
            header
        };
        let types = *b"\0\0\x0e\x10\0\0XXX\0";
        let leap_second = [0, 0, 0, 0, 4, 0xB2, 0x58, 0, 0, 0, 0, 1];
        let file = |leap_seconds: u8| {
            let seconds = &leap_second[..12 * usize::from(leap_seconds)];
            let first = [&header(0)[..], &types].concat();
            [
                &first,
                &header(leap_seconds)[..],
                &types,
                seconds,
                b"\nXXX-1\n",
            ]
            .concat()
        };
        fs::write(folder.path().join("Plain"), file(0)).expect("written");
        fs::write(folder.path().join("Leap"), file(1)).expect("written");
        fs::write(folder.path().join("Text"), "CET-1").expect("written");
        let zone = |tz: &str| find_zone(Some(OsStr::new(tz)), folder.path());
        let absolute = folder.path().join("Plain");
        for tz in ["Plain", ":Plain", absolute.to_str().expect("UTF-8")] {
            let time = week_time(SystemTime::UNIX_EPOCH, &zone(tz).expect(tz));
            assert_eq!(time.to_string(), "thu/01:00", "{tz}");
        }
        let reason = |tz: &str| zone(tz).expect_err(tz).to_string();
        assert!(reason("Leap").contains("counts leap seconds"));
        assert!(reason("Text").contains("is not the file of a time zone"));
        // The C library distinguishes upper and lower case.
        assert!(reason("plain").contains("neither"));
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
