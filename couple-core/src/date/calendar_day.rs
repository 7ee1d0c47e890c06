//! Day of the calendar, with or without a year.

use std::fmt;

use crate::Invalid;

/// Leap year in which the days without a year are checked, so that they include 29 February.
const LEAP_YEAR: i16 = 2000;
/// First year of a day, as for birthdays of accounts.
const FIRST_YEAR: i16 = 1800;

/// Day of the Gregorian calendar, with or without a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CalendarDay {
    year: Option<i16>,
    month: i8,
    day: i8,
}

impl CalendarDay {
    /// Parses `YYYY-MM-DD`, from the year 1800 on, or `--MM-DD` without a year, as in vCard (RFC 6350, section 4.3.1).
    ///
    /// # Errors
    /// [`Invalid`] if it is no such day.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let day = match text.strip_prefix("--") {
            Some(rest) => Self::of(&format!("{LEAP_YEAR}-{rest}")).map(|day| Self { year: None, ..day }),
            None => Self::of(text).filter(|day| day.year >= Some(FIRST_YEAR)),
        };
        day.filter(|day| day.to_string() == text).ok_or(Invalid::new(field, "invalid_date"))
    }

    fn of(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::from_date)
    }

    pub(super) fn from_date(date: jiff::civil::Date) -> Self {
        Self { year: Some(date.year()), month: date.month(), day: date.day() }
    }

    /// Day as stored; none if it is not the [text](fmt::Display) of a day.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::parse("day", text).ok()
    }

    /// The same day without a year.
    #[must_use]
    pub const fn without_year(self) -> Self {
        Self { year: None, ..self }
    }

    /// Year, if the day has one.
    #[must_use]
    pub const fn year(self) -> Option<i16> {
        self.year
    }

    /// Month, 1 to 12.
    #[must_use]
    pub const fn month(self) -> i8 {
        self.month
    }

    /// Day of the month, 1 to 31.
    #[must_use]
    pub const fn day(self) -> i8 {
        self.day
    }
}

impl fmt::Display for CalendarDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.year {
            Some(year) => write!(f, "{year:04}")?,
            None => f.write_str("-")?,
        }
        write!(f, "-{:02}-{:02}", self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_with_and_without_a_year_are_read_and_written() {
        for (text, year, month, day) in [
            ("2020-02-29", Some(2020), 2, 29),
            ("1800-01-01", Some(1800), 1, 1),
            ("9999-12-31", Some(9999), 12, 31),
            ("--02-29", None, 2, 29),
            ("--12-31", None, 12, 31),
        ] {
            let read = CalendarDay::parse("day", text).unwrap();
            assert_eq!((read.year(), read.month(), read.day()), (year, month, day), "{text}");
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "--",
            "2021-02-29",
            "1799-12-31",
            "--02-30",
            "--13-01",
            "-02-29",
            "---02-29",
            "--2-29",
            "--0229",
            "20200229",
            "2020-2-29",
            "2020-02-29T00:00",
            "+2020-02-29",
            "--02-29 ",
            "2020-02-29[u-ca=hebrew]",
        ] {
            assert_eq!(CalendarDay::parse("day", text), Err(Invalid::new("day", "invalid_date")), "{text}");
        }
    }
}
