//! The hours of the week at which a rule counts.

use std::fmt;

/// Days as rules name them, and in the order in which they are counted.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A minute of the week, by the clock on the wall.
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

    /// The moment at this hour and minute, so many days after Monday; none if
    /// there is no such day, hour or minute.
    pub fn new(days_since_monday: u8, hour: u8, minute: u8) -> Option<WeekTime> {
        (days_since_monday < 7 && hour < 24 && minute < 60).then(|| WeekTime {
            day: days_since_monday,
            minute: u16::from(hour) * 60 + u16::from(minute),
        })
    }

    /// Understands `fri/09:30`.
    pub fn parse(text: &str) -> Option<WeekTime> {
        let (day, time) = text.split_once('/')?;
        let day = day_number(day)?;
        let minute = minute_of_day(time).filter(|&minute| minute < DAY)?;
        Some(WeekTime { day, minute })
    }
}

impl fmt::Display for WeekTime {
    /// Writes `fri/09:30`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.get(usize::from(self.day)).unwrap_or(&"?");
        write!(out, "{day}/{}", Time(self.minute))
    }
}

/// When a rule counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    Always,
    Within(Box<[Span]>),
}

/// The same hours on some days. Those that end before they begin end on the
/// next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    days: Days,
    /// The first minute.
    from: u16,
    /// The minute behind the last.
    to: u16,
}

/// What is wrong with a `time=`, to follow the word itself.
const NO_TIME: &str =
    "is not a time of the week; write mon-fri/08:00-18:00, or several with commas";
const NO_HOURS: &str = "names days without hours; write mon,wed/08:00-18:00, or sat/00:00-24:00";
const NOTHING: &str = "ends when it begins; write 00:00-24:00 for the whole day";

impl Schedule {
    /// Understands what may stand behind `time=`: hours, each with the days it
    /// is about in front. `mon,wed/08:00-18:00` is about two days, and hours that
    /// name none are about the same as those before them, or every day.
    ///
    /// # Errors
    ///
    /// What to tell the operator, as a sentence without its subject.
    pub(super) fn parse(text: &str) -> Result<Schedule, &'static str> {
        let mut spans = Vec::new();
        let mut days = Days::ALL;
        let mut wants_hours = false;
        for item in text.split(',') {
            let (named, hours) = match item.split_once('/') {
                Some((named, hours)) => (Some(named), Some(hours)),
                None if item.contains(':') => (None, Some(item)),
                None => (Some(item), None),
            };
            if let Some(named) = named {
                let named = Days::parse(named).ok_or(NO_TIME)?;
                days = if wants_hours { days.and(named) } else { named };
                wants_hours = true;
            }
            if let Some(hours) = hours {
                spans.push(Span::parse(days, hours)?);
                wants_hours = false;
            }
        }
        if wants_hours {
            return Err(NO_HOURS);
        }
        Ok(Schedule::Within(spans.into()))
    }

    pub(super) fn has(&self, moment: WeekTime) -> bool {
        match self {
            Schedule::Always => true,
            Schedule::Within(spans) => spans.iter().any(|span| span.has(moment)),
        }
    }
}

impl fmt::Display for Schedule {
    /// Writes ` time=mon-fri/08:00-18:00`, or nothing.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schedule::Within(spans) = self else {
            return Ok(());
        };
        let mut before = " time=";
        for span in spans {
            write!(out, "{before}{span}")?;
            before = ",";
        }
        Ok(())
    }
}

impl Span {
    fn parse(days: Days, hours: &str) -> Result<Span, &'static str> {
        let (from, to) = hours.split_once('-').ok_or(NO_TIME)?;
        let from = minute_of_day(from).filter(|&from| from < DAY);
        let from = from.ok_or(NO_TIME)?;
        let to = minute_of_day(to).ok_or(NO_TIME)?;
        if from == to {
            return Err(NOTHING);
        }
        Ok(Span { days, from, to })
    }

    fn has(self, WeekTime { day, minute }: WeekTime) -> bool {
        let Span { days, from, to } = self;
        if from < to {
            return days.has(day) && (from..to).contains(&minute);
        }
        let yesterday = (day + 6) % 7;
        days.has(day) && minute >= from || days.has(yesterday) && minute < to
    }
}

impl fmt::Display for Span {
    /// Writes `mon-fri/08:00-18:00`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { days, from, to } = *self;
        write!(out, "{days}/{}-{}", Time(from), Time(to))
    }
}

/// A set of days, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days(u8);

impl Days {
    const ALL: Days = Days(0b111_1111);

    /// `mon`, or `sat-mon`: onwards from the first, over the end of the week.
    fn parse(text: &str) -> Option<Days> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (mut day, last) = (day_number(first)?, day_number(last)?);
        let mut days = Days(1 << day);
        while day != last {
            day = (day + 1) % 7;
            days = days.and(Days(1 << day));
        }
        Some(days)
    }

    fn and(self, others: Days) -> Days {
        Days(self.0 | others.0)
    }

    fn has(self, day: u8) -> bool {
        self.0 >> day & 1 == 1
    }
}

impl fmt::Display for Days {
    /// Writes them in the week's order: `mon-wed,fri`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (day, name) in (0..).zip(DAYS) {
            let follows = day > 0 && self.has(day - 1);
            let goes_on = self.has(day + 1);
            match (self.has(day), follows, goes_on) {
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

/// A minute of the day as clocks show it; the last one may be 24:00.
struct Time(u16);

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// `mon` is 0.
fn day_number(text: &str) -> Option<u8> {
    let place = DAYS
        .iter()
        .position(|name| text.eq_ignore_ascii_case(name))?;
    u8::try_from(place).ok()
}

/// `8:00`, `08:00`, and `24:00` for the end of the day.
fn minute_of_day(text: &str) -> Option<u16> {
    let number = |text: &str| match text.as_bytes() {
        [b'0'..=b'9'] | [b'0'..=b'9', b'0'..=b'9'] => text.parse::<u16>().ok(),
        _ => None,
    };
    let (hour, minute) = text.split_once(':')?;
    let is_whole = minute.len() == 2;
    let (hour, minute) = (number(hour)?, number(minute)?);
    let time = hour * 60 + minute;
    (is_whole && minute < 60 && time <= DAY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Schedule {
        Schedule::parse(text).unwrap_or_else(|why| panic!("{text} {why}"))
    }

    fn shown(text: &str) -> String {
        let shown = hours(text).to_string();
        shown.strip_prefix(" time=").expect("hours").to_owned()
    }

    /// Is it within these hours at all of the first moments, and at none of the
    /// others?
    fn within(text: &str, inside: &[&str], outside: &[&str]) {
        for (moments, expected) in [(inside, true), (outside, false)] {
            for moment in moments {
                let at = WeekTime::parse(moment).expect(moment);
                assert_eq!(hours(text).has(at), expected, "{moment} in {text}");
            }
        }
    }

    #[test]
    fn both_ends_of_an_interval() {
        within(
            "mon-fri/08:00-18:00",
            &["mon/08:00", "wed/12:34", "fri/17:59"],
            &["mon/07:59", "fri/18:00", "sat/12:00", "sun/08:00"],
        );
        within("0:00-24:00", &["mon/00:00", "sun/23:59"], &[]);
        within("12:00-12:01", &["tue/12:00"], &["tue/11:59", "tue/12:01"]);
    }

    #[test]
    fn over_midnight() {
        within(
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
        within(
            "sun/23:00-01:00",
            &["sun/23:00", "mon/00:59"],
            &["mon/01:00", "mon/23:00", "sun/00:30"],
        );
        within("sat/22:00-00:00", &["sat/23:59"], &["sun/00:00"]);
    }

    #[test]
    fn lists_of_days_and_of_hours() {
        within(
            "mon,wed/08:00-09:00",
            &["mon/08:00", "wed/08:59"],
            &["tue/08:00", "mon/12:00"],
        );
        within(
            "mon-tue/08:00-12:00,13:00-17:00,sat-sun/10:00-11:00",
            &["mon/11:59", "tue/13:00", "sun/10:30"],
            &["mon/12:00", "sat/08:00", "wed/13:00"],
        );
        within(
            "sat-mon/08:00-09:00",
            &["sat/08:00", "mon/08:00"],
            &["fri/08:00"],
        );
    }

    #[test]
    fn hours_are_shown_as_they_are_understood() {
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
    fn what_is_no_time_is_told() {
        for (text, told) in [
            ("", NO_TIME),
            ("mon", NO_HOURS),
            ("mon/08:00-09:00,tue", NO_HOURS),
            ("mon-fri", NO_HOURS),
            ("day/08:00-09:00", NO_TIME),
            ("monday/08:00-09:00", NO_TIME),
            ("/08:00-09:00", NO_TIME),
            ("mon/", NO_TIME),
            ("mon-/08:00-09:00", NO_TIME),
            ("mon/08:00", NO_TIME),
            ("mon/8-18", NO_TIME),
            ("mon/08:00-", NO_TIME),
            ("mon/24:00-25:00", NO_TIME),
            ("mon/08:00-24:01", NO_TIME),
            ("mon/08:60-09:00", NO_TIME),
            ("mon/08:0-09:00", NO_TIME),
            ("mon/008:00-09:00", NO_TIME),
            ("mon/+8:00-09:00", NO_TIME),
            ("mon/08:00-09:00,", NO_TIME),
            ("08:00-08:00", NOTHING),
        ] {
            assert_eq!(Schedule::parse(text), Err(told), "{text}");
        }
        for text in ["", "fri", "fri/", "fri/24:00", "fri/08:00-09:00", "8/08:00"] {
            assert_eq!(WeekTime::parse(text), None, "{text}");
        }
        for (day, hour, minute) in [(7, 0, 0), (0, 24, 0), (0, 0, 60)] {
            assert_eq!(WeekTime::new(day, hour, minute), None);
        }
    }
}
