//! Occurrences of dates as `dateutil` and `zoneinfo` compute them, in every IANA time zone for 30 years.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use couple::{
    core::{TimeZoneName, Timestamp},
    date::{CalendarDay, rules::next_occurrence},
};

use crate::installed;

const YEARS: std::ops::RangeInclusive<i16> = 2000..=2029;
/// Microseconds of a second.
const SECOND: i64 = 1_000_000;

/// Compares a few days or all days of the year in every zone. Returns the numbers of zones and occurrences.
fn compare(days: &str) -> (usize, usize) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/dates.py");
    let mut oracle = Command::new(installed().join("venv/bin/python"))
        .arg(script)
        .args([YEARS.start().to_string(), YEARS.end().to_string(), days.to_owned()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut zones, mut occurrences, mut last) = (0, 0, String::new());
    for line in BufReader::new(oracle.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut fields = line.split(' ');
        let mut field = || fields.next().unwrap();
        let (name, text, minute) = (field(), format!("--{}", field()), field().parse().unwrap());
        if name != last {
            last = name.to_owned();
            zones += 1;
        }
        let zone = TimeZoneName::parse("zone", name).unwrap_or_else(|_| panic!("{name} is not known"));
        let day = CalendarDay::parse("day", &text).unwrap();
        let mut after: Option<Timestamp> = None;
        for (year, expected) in YEARS.zip(fields) {
            let expected = Timestamp::from_micros(expected.parse::<i64>().unwrap() * SECOND);
            // The first one is found from the moment before it, each other one from the one before.
            let from = after.unwrap_or_else(|| expected.minus(Duration::from_micros(1)));
            let found = next_occurrence(day, true, Some(&zone), minute, from).unwrap();
            let what = format!("{text} at minute {minute} in {name} after {from:?}");
            assert_eq!((found.day.year(), found.at), (Some(year), expected), "{what}");
            after = Some(expected);
            occurrences += 1;
        }
    }
    assert!(oracle.wait().unwrap().success());
    println!("{days} days: {zones} zones, {occurrences} occurrences");
    (zones, occurrences)
}

/// `COUPLE_DATE_DAYS=all` compares every day of a leap year, which takes minutes.
#[test]
fn occurrences_are_those_of_dateutil_and_zoneinfo() {
    let all = std::env::var("COUPLE_DATE_DAYS").is_ok_and(|days| days == "all");
    let (zones, occurrences) = compare(if all { "all" } else { "some" });
    assert!(zones > 500, "{zones}");
    assert_eq!(occurrences, zones * 30 * if all { 366 } else { 3 });
}
