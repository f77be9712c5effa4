//! The times of the week at which a rule applies.

use std::fmt;

/// The names of the days in rules, from Monday (day 0).
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Minutes in a day.
const DAY_MINUTES: u16 = 24 * 60;

/// A minute of the week in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeekTime {
    /// Days since Monday, 0 to 6.
    day: u8,
    /// Minutes since midnight, 0 to 1439.
    minute: u16,
}

impl WeekTime {
    /// Monday, 00:00.
    pub const MONDAY: WeekTime = WeekTime { day: 0, minute: 0 };

    /// The time at this hour (0 to 23) and minute (0 to 59) of a day (0 to 6, from Monday);
    /// `None` if a number is out of its range.
    pub fn new(days_since_monday: u8, hour: u8, minute: u8) -> Option<WeekTime> {
        (days_since_monday < 7 && hour < 24 && minute < 60).then(|| WeekTime {
            day: days_since_monday,
            minute: u16::from(hour) * 60 + u16::from(minute),
        })
    }

    /// Parses `fri/09:30`.
    pub fn parse(text: &str) -> Option<WeekTime> {
        let (day, time) = text.split_once('/')?;
        let day = day_number(day)?;
        let minute = minute_of_day(time).filter(|&minute| minute < DAY_MINUTES)?;
        Some(WeekTime { day, minute })
    }
}

impl fmt::Display for WeekTime {
    /// Writes `fri/09:30`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.get(usize::from(self.day)).unwrap_or(&"?");
        write!(out, "{day}/{}", TimeOfDay(self.minute))
    }
}

/// The times at which a rule applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    Always,
    Within(Box<[Span]>),
}

/// One time range on a set of days. A range that ends before it begins ends on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    days: Days,
    /// The first minute of the range, 0 to 1439.
    from: u16,
    /// The minute after the range, 0 to 1440.
    to: u16,
}

/// What is wrong with a `time=`: clauses that follow the quoted word.
const INVALID_TIME: &str =
    "is not a time of the week; write mon-fri/08:00-18:00, or several with commas";
const HOURS_MISSING: &str =
    "names days without hours; write mon,wed/08:00-18:00, or sat/00:00-24:00";
const EMPTY_RANGE: &str = "ends when it begins; write 00:00-24:00 for the whole day";

impl Schedule {
    /// Parses the value of `time=`: time ranges separated by commas, each after its days, as in
    /// `mon,wed/08:00-18:00`. A range without days applies to the days of the range before
    /// it; the first one, to every day.
    ///
    /// # Errors
    ///
    /// What is wrong and what to write instead: a clause that follows the quoted word.
    pub(super) fn parse(text: &str) -> Result<Schedule, &'static str> {
        let mut spans = Vec::new();
        let mut days = Days::ALL;
        let mut hours_missing = false;
        for item in text.split(',') {
            let (new_days, hours) = match item.split_once('/') {
                Some((days, hours)) => (Some(days), Some(hours)),
                None if item.contains(':') => (None, Some(item)),
                None => (Some(item), None),
            };
            if let Some(text) = new_days {
                let new_days = Days::parse(text).ok_or(INVALID_TIME)?;
                days = match hours_missing {
                    true => days.union(new_days),
                    false => new_days,
                };
                hours_missing = true;
            }
            if let Some(hours) = hours {
                spans.push(Span::parse(days, hours)?);
                hours_missing = false;
            }
        }
        if hours_missing {
            return Err(HOURS_MISSING);
        }
        Ok(Schedule::Within(spans.into()))
    }

    pub(super) fn contains(&self, time: WeekTime) -> bool {
        match self {
            Schedule::Always => true,
            Schedule::Within(spans) => spans.iter().any(|span| span.contains(time)),
        }
    }
}

impl fmt::Display for Schedule {
    /// Writes ` time=mon-fri/08:00-18:00`, or nothing.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schedule::Within(spans) = self else {
            return Ok(());
        };
        let mut separator = " time=";
        for span in spans {
            write!(out, "{separator}{span}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl Span {
    fn parse(days: Days, hours: &str) -> Result<Span, &'static str> {
        let (from, to) = hours.split_once('-').ok_or(INVALID_TIME)?;
        let from = minute_of_day(from).filter(|&from| from < DAY_MINUTES);
        let from = from.ok_or(INVALID_TIME)?;
        let to = minute_of_day(to).ok_or(INVALID_TIME)?;
        if from == to {
            return Err(EMPTY_RANGE);
        }
        Ok(Span { days, from, to })
    }

    fn contains(self, WeekTime { day, minute }: WeekTime) -> bool {
        let Span { days, from, to } = self;
        if from < to {
            return days.contains(day) && (from..to).contains(&minute);
        }
        let yesterday = (day + 6) % 7;
        days.contains(day) && minute >= from || days.contains(yesterday) && minute < to
    }
}

impl fmt::Display for Span {
    /// Writes `mon-fri/08:00-18:00`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { days, from, to } = *self;
        write!(out, "{days}/{}-{}", TimeOfDay(from), TimeOfDay(to))
    }
}

/// A set of days. Bit 0 is Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days(u8);

impl Days {
    const ALL: Days = Days(0b111_1111);

    /// Parses `mon`, or a range such as `mon-fri` or `sat-mon`, which passes the end of the week.
    fn parse(text: &str) -> Option<Days> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (mut day, last) = (day_number(first)?, day_number(last)?);
        let mut days = Days(1 << day);
        while day != last {
            day = (day + 1) % 7;
            days = days.union(Days(1 << day));
        }
        Some(days)
    }

    fn union(self, other: Days) -> Days {
        Days(self.0 | other.0)
    }

    fn contains(self, day: u8) -> bool {
        self.0 >> day & 1 == 1
    }
}

impl fmt::Display for Days {
    /// Writes the days in the order of the week: `mon-wed,fri`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (day, name) in (0..).zip(DAYS) {
            let has_previous = day > 0 && self.contains(day - 1);
            let has_next = self.contains(day + 1);
            match (self.contains(day), has_previous, has_next) {
                (true, false, _) => {
                    write!(out, "{comma}{name}")?;
                    comma = ",";
                }
                (true, true, false) => write!(out, "-{name}")?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Minutes since midnight, 0 to 1440, written as `08:00`; 1440 is `24:00`.
struct TimeOfDay(u16);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// The number of a day; `mon` is 0.
fn day_number(text: &str) -> Option<u8> {
    let index = DAYS
        .iter()
        .position(|name| text.eq_ignore_ascii_case(name))?;
    u8::try_from(index).ok()
}

/// Parses `8:00`, `08:00`, and `24:00` for the end of the day, into minutes since midnight.
fn minute_of_day(text: &str) -> Option<u16> {
    let number = |text: &str| match text.as_bytes() {
        [b'0'..=b'9'] | [b'0'..=b'9', b'0'..=b'9'] => text.parse::<u16>().ok(),
        _ => None,
    };
    let (hour, minute) = text.split_once(':')?;
    let has_two_digits = minute.len() == 2;
    let (hour, minute) = (number(hour)?, number(minute)?);
    let time = hour * 60 + minute;
    (has_two_digits && minute < 60 && time <= DAY_MINUTES).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text).unwrap_or_else(|reason| panic!("{text} {reason}"))
    }

    /// The schedule as rules show it, without ` time=`.
    fn shown(text: &str) -> String {
        let shown = schedule(text).to_string();
        shown.strip_prefix(" time=").expect("times").to_owned()
    }

    /// Checks that the schedule contains all times in `inside` and no time in `outside`.
    fn check_schedule(text: &str, inside: &[&str], outside: &[&str]) {
        for (times, expected) in [(inside, true), (outside, false)] {
            for time in times {
                let week_time = WeekTime::parse(time).expect(time);
                let is_inside = schedule(text).contains(week_time);
                assert_eq!(is_inside, expected, "{time} in {text}");
            }
        }
    }

    #[test]
    fn a_range_includes_its_first_time_and_excludes_its_second() {
        check_schedule(
            "mon-fri/08:00-18:00",
            &["mon/08:00", "wed/12:34", "fri/17:59"],
            &["mon/07:59", "fri/18:00", "sat/12:00", "sun/08:00"],
        );
        check_schedule("0:00-24:00", &["mon/00:00", "sun/23:59"], &[]);
        check_schedule("12:00-12:01", &["tue/12:00"], &["tue/11:59", "tue/12:01"]);
    }

    #[test]
    fn a_range_past_midnight_ends_on_the_next_day() {
        check_schedule(
            "fri/22:00-06:00",
            &["fri/22:00", "fri/23:59", "sat/00:00", "sat/05:59"],
            &[
                "fri/21:59",
                "sat/06:00",
                "fri/00:00",
                "fri/05:59",
                "sat/22:00",
            ],
        );
        // From the last day of the week to the first.
        check_schedule(
            "sun/23:00-01:00",
            &["sun/23:00", "mon/00:59"],
            &["mon/01:00", "mon/23:00", "sun/00:30"],
        );
        check_schedule("sat/22:00-00:00", &["sat/23:59"], &["sun/00:00"]);
    }

    #[test]
    fn lists_of_days_and_ranges_are_parsed() {
        check_schedule(
            "mon,wed/08:00-09:00",
            &["mon/08:00", "wed/08:59"],
            &["tue/08:00", "mon/12:00"],
        );
        check_schedule(
            "mon-tue/08:00-12:00,13:00-17:00,sat-sun/10:00-11:00",
            &["mon/11:59", "tue/13:00", "sun/10:30"],
            &["mon/12:00", "sat/08:00", "wed/13:00"],
        );
        check_schedule(
            "sat-mon/08:00-09:00",
            &["sat/08:00", "mon/08:00"],
            &["fri/08:00"],
        );
    }

    #[test]
    fn a_schedule_is_displayed_in_its_long_form() {
        for (text, expected) in [
            ("mon-fri/08:00-18:00", "mon-fri/08:00-18:00"),
            ("MON/8:00-24:00", "mon/08:00-24:00"),
            ("8:00-9:00", "mon-sun/08:00-09:00"),
            ("mon,WED-fri/08:00-09:00", "mon,wed-fri/08:00-09:00"),
            ("sat-mon/22:00-06:00", "mon,sat-sun/22:00-06:00"),
            (
                "sun/08:00-09:00,10:00-11:00",
                "sun/08:00-09:00,sun/10:00-11:00",
            ),
            (
                "mon/08:00-09:00,tue,thu/10:00-11:00",
                "mon/08:00-09:00,tue,thu/10:00-11:00",
            ),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(shown(expected), expected);
        }
        for text in ["mon/00:00", "thu/09:05", "sun/23:59"] {
            assert_eq!(WeekTime::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn an_invalid_time_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", INVALID_TIME),
            ("mon", HOURS_MISSING),
            ("mon/08:00-09:00,tue", HOURS_MISSING),
            ("mon-fri", HOURS_MISSING),
            ("day/08:00-09:00", INVALID_TIME),
            ("monday/08:00-09:00", INVALID_TIME),
            ("/08:00-09:00", INVALID_TIME),
            ("mon/", INVALID_TIME),
            ("mon-/08:00-09:00", INVALID_TIME),
            ("mon/08:00", INVALID_TIME),
            ("mon/8-18", INVALID_TIME),
            ("mon/08:00-", INVALID_TIME),
            ("mon/24:00-25:00", INVALID_TIME),
            ("mon/08:00-24:01", INVALID_TIME),
            ("mon/08:60-09:00", INVALID_TIME),
            ("mon/08:0-09:00", INVALID_TIME),
            ("mon/008:00-09:00", INVALID_TIME),
            ("mon/+8:00-09:00", INVALID_TIME),
            ("mon/08:00-09:00,", INVALID_TIME),
            ("08:00-08:00", EMPTY_RANGE),
        ] {
            assert_eq!(Schedule::parse(text), Err(reason), "{text}");
        }
        for text in ["", "fri", "fri/", "fri/24:00", "fri/08:00-09:00", "8/08:00"] {
            assert_eq!(WeekTime::parse(text), None, "{text}");
        }
        for (day, hour, minute) in [(7, 0, 0), (0, 24, 0), (0, 0, 60)] {
            assert_eq!(WeekTime::new(day, hour, minute), None);
        }
    }
}
