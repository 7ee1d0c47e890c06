//! Decisions about dates: pure functions of what was read.

use jiff::{civil::Date, tz::TimeZone};

use super::{CalendarDay, CoupleDate, DateError, DateKind, DatePatch, NewDate};
use crate::{CoupleId, DateId, Invalid, Label, TimeZoneName, Timestamp};

/// Occurrence of a date for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// Day of the calendar, with its year.
    pub day: CalendarDay,
    /// Time at which a clock in the zone of the person shows the given minute of that day.
    pub at: Timestamp,
}

/// Day of a date in a year; none if the date does not occur in it.
///
/// 29 February is 28 February in a year without one: it stays in its month, as in the arithmetic of `dateutil`, `java.time`
/// and PostgreSQL.
fn in_year(day: CalendarDay, is_yearly: bool, year: i16) -> Option<Date> {
    let occurs = match (day.year(), is_yearly) {
        (Some(first), true) => first <= year,
        (Some(only), false) => only == year,
        (None, yearly) => yearly,
    };
    if !occurs {
        return None;
    }
    let date = |of_month| Date::new(year, day.month(), of_month).ok();
    date(day.day()).or_else(|| date(day.day() - 1))
}

/// First day of a date that is not before `from`; none if there is none.
fn next_day(day: CalendarDay, is_yearly: bool, from: Date) -> Option<Date> {
    let first = day.year().unwrap_or(from.year()).max(from.year());
    [first, first.saturating_add(1)]
        .into_iter()
        .filter_map(|year| in_year(day, is_yearly, year))
        .find(|date| *date >= from)
}

/// First occurrence whose time is after `after`; none if there is none.
///
/// `minute` is the minute of the day, below 1,440. A minute that the clock of the zone skips is as much later as the clock
/// is set forward; of a minute that the clock shows twice, the first counts. A day that a zone skips, as Apia did with
/// 30 December 2011, occurs on the day after it. UTC for a zone that is not known.
#[must_use]
pub fn next_occurrence(
    day: CalendarDay,
    is_yearly: bool,
    zone: Option<&TimeZoneName>,
    minute: u16,
    after: Timestamp,
) -> Option<Occurrence> {
    let zone = time_zone(zone);
    let now = jiff::Timestamp::from_microsecond(after.micros()).ok()?;
    let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
    // The day before the current one: its minute can be later than the clock shows, if the zone has skipped it.
    let mut from = zone.to_datetime(now).date().yesterday().ok()?;
    loop {
        let date = next_day(day, is_yearly, from)?;
        let at = zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0)).compatible().ok()?;
        if at > now {
            return Some(Occurrence {
                day: CalendarDay::from_date(date),
                at: Timestamp::from_micros(at.as_microsecond()),
            });
        }
        from = date.tomorrow().ok()?;
    }
}

/// First day of a date that is not before the current day of the zone; none if there is none.
#[must_use]
pub fn next_on(
    day: CalendarDay,
    is_yearly: bool,
    zone: Option<&TimeZoneName>,
    now: Timestamp,
) -> Option<CalendarDay> {
    let now = jiff::Timestamp::from_microsecond(now.micros()).ok()?;
    next_day(day, is_yearly, time_zone(zone).to_datetime(now).date()).map(CalendarDay::from_date)
}

fn time_zone(name: Option<&TimeZoneName>) -> TimeZone {
    name.and_then(|name| TimeZone::get(name.as_str()).ok()).unwrap_or(TimeZone::UTC)
}

/// Checks a date of a client.
///
/// # Errors
/// [`Invalid`] for the first field that is not valid.
pub fn parse(new: &NewDate, couple: CoupleId, id: DateId, now: Timestamp) -> Result<CoupleDate, Invalid> {
    checked(CoupleDate {
        couple,
        id,
        version: 0,
        kind: parse_kind(&new.kind)?,
        title: new.title.as_deref().map(parse_title).transpose()?,
        day: CalendarDay::parse("date", &new.day)?,
        is_yearly: new.is_yearly,
        created_at: now,
    })
}

/// The date after a change.
///
/// # Errors
/// [`DateError::Changed`] if the client has read another version, and [`DateError::Invalid`] for the first field that is
/// not valid.
pub fn patched(stored: &CoupleDate, patch: &DatePatch) -> Result<CoupleDate, DateError> {
    require_version(stored, patch.version)?;
    let mut date = stored.clone();
    if let Some(kind) = &patch.kind {
        date.kind = parse_kind(kind)?;
    }
    if let Some(title) = &patch.title {
        date.title = title.as_deref().map(parse_title).transpose()?;
    }
    if let Some(day) = &patch.day {
        date.day = CalendarDay::parse("date", day)?;
    }
    if let Some(is_yearly) = patch.is_yearly {
        date.is_yearly = is_yearly;
    }
    Ok(checked(date)?)
}

/// Checks that a date has the version that a client has read, if it names one.
///
/// # Errors
/// [`DateError::Changed`].
pub fn require_version(stored: &CoupleDate, read: Option<i64>) -> Result<(), DateError> {
    if read.is_none_or(|version| version == stored.version) { Ok(()) } else { Err(DateError::Changed) }
}

fn parse_kind(name: &str) -> Result<DateKind, Invalid> {
    DateKind::from_name(name).ok_or(Invalid::new("kind", "unknown"))
}

fn parse_title(title: &str) -> Result<Label, Invalid> {
    Label::parse("title", title)
}

fn checked(date: CoupleDate) -> Result<CoupleDate, Invalid> {
    if date.kind == DateKind::Other && date.title.is_none() {
        return Err(Invalid::new("title", "required"));
    }
    if !date.is_yearly && date.day.year().is_none() {
        return Err(Invalid::new("date", "year_required"));
    }
    Ok(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> CalendarDay {
        CalendarDay::parse("day", text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::from_rfc3339("at", text).unwrap()
    }

    fn zone(name: &str) -> TimeZoneName {
        TimeZoneName::parse("zone", name).unwrap()
    }

    /// Occurrences after a time, as `day time`.
    fn occurrences(text: &str, name: &str, minute: u16, after: &str, count: usize) -> Vec<String> {
        let mut from = at(after);
        let mut found = Vec::new();
        while found.len() < count {
            let Some(next) = next_occurrence(day(text), true, Some(&zone(name)), minute, from) else { break };
            found.push(format!("{} {}", next.day, next.at.to_rfc3339().replace(":00.000Z", "Z")));
            from = next.at;
        }
        found
    }

    const NINE: u16 = 9 * 60;

    #[test]
    fn leap_day_is_28_february_in_other_years() {
        assert_eq!(
            occurrences("--02-29", "UTC", NINE, "2023-01-01T00:00:00Z", 3),
            ["2023-02-28 2023-02-28T09:00Z", "2024-02-29 2024-02-29T09:00Z", "2025-02-28 2025-02-28T09:00Z"]
        );
        // 1900 is no leap year, 2000 is one.
        assert_eq!(
            occurrences("1896-02-29", "UTC", NINE, "1899-03-01T00:00:00Z", 1),
            ["1900-02-28 1900-02-28T09:00Z"]
        );
        assert_eq!(
            occurrences("1896-02-29", "UTC", NINE, "1999-03-01T00:00:00Z", 1),
            ["2000-02-29 2000-02-29T09:00Z"]
        );
    }

    #[test]
    fn last_day_of_other_months_stays() {
        for text in ["--01-31", "--04-30", "--12-31"] {
            let found = next_occurrence(day(text), true, None, NINE, at("2025-06-30T09:00:00Z")).unwrap();
            assert_eq!(found.day.to_string()[4..], text[1..], "{text}");
        }
    }

    #[test]
    fn occurrence_is_after_the_given_time() {
        let next = |after: &str| occurrences("2020-05-04", "UTC", NINE, after, 1).pop().unwrap();
        assert_eq!(next("2026-05-04T08:59:59.999999Z"), "2026-05-04 2026-05-04T09:00Z");
        assert_eq!(next("2026-05-04T09:00:00Z"), "2027-05-04 2027-05-04T09:00Z");
        assert_eq!(next("2019-12-31T00:00:00Z"), "2020-05-04 2020-05-04T09:00Z");
    }

    #[test]
    fn date_without_repetition_occurs_once() {
        let once = |after: &str| next_occurrence(day("2026-05-04"), false, None, NINE, at(after));
        assert_eq!(once("1990-01-01T00:00:00Z").unwrap().at, at("2026-05-04T09:00:00Z"));
        assert_eq!(once("2026-05-04T08:59:59Z").unwrap().at, at("2026-05-04T09:00:00Z"));
        assert_eq!(once("2026-05-04T09:00:00Z"), None);
        assert_eq!(next_occurrence(day("--05-04"), false, None, NINE, at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn skipped_minute_is_as_much_later_as_the_clock_is_set_forward() {
        // 02:00 to 03:00 on 28 March 2027; 02:30 is read as 03:30, 01:30 UTC.
        assert_eq!(
            occurrences("--03-28", "Europe/Berlin", 150, "2027-01-01T00:00:00Z", 2),
            ["2027-03-28 2027-03-28T01:30Z", "2028-03-28 2028-03-28T00:30Z"]
        );
        // Half an hour at Lord Howe, 02:00 to 02:30 on 3 October 2027.
        assert_eq!(
            occurrences("--10-03", "Australia/Lord_Howe", 135, "2027-06-01T00:00:00Z", 1),
            ["2027-10-03 2027-10-02T15:45Z"]
        );
        // Cairo skips midnight.
        assert_eq!(
            occurrences("--04-30", "Africa/Cairo", 0, "2027-01-01T00:00:00Z", 1),
            ["2027-04-30 2027-04-29T22:00Z"]
        );
    }

    #[test]
    fn first_of_two_equal_minutes_counts() {
        // 03:00 to 02:00 on 31 October 2027.
        let after = ["2027-01-01T00:00:00Z", "2027-10-31T00:30:00Z"];
        let found = after.map(|after| occurrences("--10-31", "Europe/Berlin", 150, after, 1));
        assert_eq!(found[0], ["2027-10-31 2027-10-31T00:30Z"]);
        assert_eq!(found[1], ["2028-10-31 2028-10-31T01:30Z"], "the second time is no occurrence");
    }

    #[test]
    fn day_that_a_zone_skips_occurs_on_the_next_day() {
        assert_eq!(
            occurrences("--12-30", "Pacific/Apia", NINE, "2010-12-31T00:00:00Z", 2),
            // 09:00 on 31 December, UTC+14.
            ["2011-12-30 2011-12-30T19:00Z", "2012-12-30 2012-12-29T19:00Z"]
        );
        // On the next day, before and after its minute.
        let next = |after| occurrences("--12-30", "Pacific/Apia", NINE, after, 1).pop().unwrap();
        assert_eq!(next("2011-12-30T18:59:59Z"), "2011-12-30 2011-12-30T19:00Z");
        assert_eq!(next("2011-12-30T19:00:00Z"), "2012-12-30 2012-12-29T19:00Z");
    }

    #[test]
    fn unknown_zone_is_utc() {
        let mars = TimeZoneName::from_stored("Mars/Olympus");
        let found = next_occurrence(day("--05-04"), true, Some(&mars), 0, at("2026-01-01T00:00:00Z"));
        assert_eq!(found.unwrap().at, at("2026-05-04T00:00:00Z"));
    }

    #[test]
    fn next_day_includes_the_current_one() {
        let on = |text, is_yearly, name, now| {
            next_on(day(text), is_yearly, Some(&zone(name)), at(now)).map(|day| day.to_string())
        };
        let tokyo = |now| on("1990-05-04", true, "Asia/Tokyo", now).unwrap();
        assert_eq!(tokyo("2026-05-04T14:59:59Z"), "2026-05-04");
        assert_eq!(tokyo("2026-05-04T15:00:00Z"), "2027-05-04");
        assert_eq!(on("2030-05-04", true, "UTC", "2026-05-04T00:00:00Z").unwrap(), "2030-05-04");
        assert_eq!(on("2026-05-04", false, "UTC", "2026-05-05T00:00:00Z"), None);
        assert_eq!(on("--12-31", true, "UTC", "9999-12-30T00:00:00Z").unwrap(), "9999-12-31");
    }

    #[test]
    fn end_of_the_calendar_has_no_occurrence() {
        assert_eq!(occurrences("--01-01", "UTC", NINE, "9999-01-01T09:00:00Z", 1), [""; 0]);
        let last = next_occurrence(day("--01-01"), true, None, NINE, Timestamp::from_micros(i64::MAX));
        assert_eq!(last, None);
    }

    fn new(kind: &str, title: Option<&str>, day: &str, is_yearly: bool) -> NewDate {
        NewDate { kind: kind.to_owned(), title: title.map(str::to_owned), day: day.to_owned(), is_yearly }
    }

    fn parsed(new: &NewDate) -> Result<CoupleDate, Invalid> {
        let id = uuid::Uuid::from_u128(7);
        parse(new, CoupleId::from_uuid(id), DateId::from_uuid(id), Timestamp::default())
    }

    #[test]
    fn date_of_a_client_is_checked() {
        assert!(parsed(&new("first_date", None, "--02-29", true)).is_ok());
        assert!(parsed(&new("other", Some("Trip"), "2027-07-01", false)).is_ok());
        for (date, field, code) in [
            (new("wedding", None, "--01-01", true), "kind", "unknown"),
            (new("other", None, "--01-01", true), "title", "required"),
            (new("birthday", Some(" "), "--01-01", true), "title", "required"),
            (new("birthday", Some("Mia"), "2021-02-29", true), "date", "invalid_date"),
            (new("anniversary", None, "--01-01", false), "date", "year_required"),
        ] {
            assert_eq!(parsed(&date), Err(Invalid::new(field, code)), "{date:?}");
        }
        let long = "x".repeat(201);
        let invalid = Invalid::new("title", "too_long");
        assert_eq!(parsed(&new("birthday", Some(&long), "--01-01", true)), Err(invalid));
        assert!(parsed(&new("birthday", Some(&long[1..]), "--01-01", true)).is_ok());
    }

    #[test]
    fn patch_changes_only_its_fields() {
        let stored =
            CoupleDate { version: 3, ..parsed(&new("other", Some("Trip"), "2027-07-01", false)).unwrap() };
        let patched = |patch: DatePatch| patched(&stored, &patch);
        assert_eq!(patched(DatePatch::default()), Ok(stored.clone()));
        let day_only =
            DatePatch { day: Some("2027-07-02".to_owned()), version: Some(3), ..Default::default() };
        assert_eq!(patched(day_only), Ok(CoupleDate { day: day("2027-07-02"), ..stored.clone() }));
        let all = DatePatch {
            version: None,
            kind: Some("birthday".to_owned()),
            title: Some(None),
            day: Some("--07-02".to_owned()),
            is_yearly: Some(true),
        };
        let expected = CoupleDate {
            kind: DateKind::Birthday,
            title: None,
            day: day("--07-02"),
            is_yearly: true,
            ..stored.clone()
        };
        assert_eq!(patched(all), Ok(expected));
        let old = DatePatch { version: Some(2), ..Default::default() };
        assert_eq!(patched(old), Err(DateError::Changed));
        let untitled = DatePatch { title: Some(None), ..Default::default() };
        assert_eq!(patched(untitled), Err(Invalid::new("title", "required").into()));
        let without_year = DatePatch { day: Some("--07-02".to_owned()), ..Default::default() };
        assert_eq!(patched(without_year), Err(Invalid::new("date", "year_required").into()));
    }
}
