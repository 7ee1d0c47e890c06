//! Days together and the version of a glance, as pure functions.

use jiff::{civil::Date, tz::TimeZone};

use super::GlanceReader;
use crate::{Digest, TimeZoneName, Timestamp, digest};

/// Number of calendar days from the anniversary of a couple to the present day of a member.
///
/// Without an anniversary, or while it lies in the future, from the day of the pairing. The first day is day 0. Days
/// are those of the calendar in the member's zone, however many hours they have; UTC for a zone that is not known.
#[must_use]
pub fn days_together(
    since: Timestamp,
    anniversary: Option<&str>,
    zone: Option<&TimeZoneName>,
    now: Timestamp,
) -> i64 {
    let zone = zone.and_then(|name| TimeZone::get(name.as_str()).ok()).unwrap_or(TimeZone::UTC);
    let day = |at: Timestamp| {
        jiff::Timestamp::from_microsecond(at.micros()).ok().map(|at| zone.to_datetime(at).date())
    };
    let Some(today) = day(now) else { return 0 };
    let anniversary = anniversary.and_then(|text| text.parse::<Date>().ok()).filter(|first| *first <= today);
    let Some(first) = anniversary.or_else(|| day(since)) else { return 0 };
    // A day of a zone may have 23 or 25 hours; between two dates of the calendar every day has 24.
    first.duration_until(today).as_hours().div_euclid(24).max(0)
}

/// Version of what a member sees: another one for each change of a glance.
///
/// It has the couple with its epoch, the position of its newest entry, the member's read position, the days together,
/// which also change with the day, and the partner's name in the directory of a host.
#[must_use]
pub fn version(reader: &GlanceReader, now: Timestamp) -> Digest {
    let GlanceReader { couple, side, time_zone, host_name } = reader;
    let days = days_together(couple.since, couple.anniversary.as_deref(), time_zone.as_ref(), now);
    digest(&[
        b"glance",
        couple.id.as_uuid().as_bytes(),
        &couple.epoch.to_be_bytes(),
        &[u8::from(side.index() == 1)],
        &couple.head_seq.to_be_bytes(),
        &couple.read[side.index()].to_be_bytes(),
        &days.to_be_bytes(),
        host_name.as_ref().map_or("", |name| name.as_str()).as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        AccountId, CoupleId, DisplayName,
        pairing::{Couple, Side},
    };

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(at.as_microsecond())
    }

    fn days(since: &str, zone: &str, now: &str) -> i64 {
        days_together(at(since), None, Some(&TimeZoneName::from_stored(zone)), at(now))
    }

    fn days_from(anniversary: &str, zone: &str, now: &str) -> i64 {
        let zone = TimeZoneName::from_stored(zone);
        days_together(at("2027-01-01T00:00:00Z"), Some(anniversary), Some(&zone), at(now))
    }

    #[test]
    fn day_changes_at_midnight_of_the_zone() {
        let (zone, since) = ("Asia/Tokyo", "2027-01-15T10:00:00Z");
        assert_eq!(days(since, zone, "2027-01-15T10:00:00Z"), 0);
        assert_eq!(days(since, zone, "2027-01-15T14:59:59.999999Z"), 0);
        assert_eq!(days(since, zone, "2027-01-15T15:00:00Z"), 1);
        assert_eq!(days(since, "Mars/Olympus", "2027-01-15T23:59:59.999999Z"), 0, "an unknown zone is UTC");
        assert_eq!(days(since, "Mars/Olympus", "2027-01-16T00:00:00Z"), 1);
        assert_eq!(days_together(at(since), None, None, at("2027-01-16T00:00:00Z")), 1);
    }

    #[test]
    fn days_of_23_and_25_hours_count_as_days() {
        // 28 March 2027 has 23 hours in Berlin, 31 October 25.
        let berlin = "Europe/Berlin";
        for (first, last, expected) in [
            ("2027-03-27T23:00:00Z", "2027-03-28T21:59:59Z", 0),
            ("2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z", 1),
            ("2027-10-30T22:00:00Z", "2027-10-31T22:59:59Z", 0),
            ("2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z", 1),
            ("2027-03-27T12:00:00Z", "2028-03-27T12:00:00Z", 366),
        ] {
            assert_eq!(days(first, berlin, last), expected, "{first} {last}");
        }
        // Clocks of Cairo skip the hour after midnight of 30 April 2027.
        assert_eq!(days("2027-04-29T21:59:59Z", "Africa/Cairo", "2027-04-29T22:00:00Z"), 1);
        // Apia had no 30 December 2011: the 29th was followed by the 31st, two dates later.
        let apia = "Pacific/Apia";
        assert_eq!(days("2011-12-30T09:59:59Z", apia, "2011-12-30T10:00:00Z"), 2);
    }

    #[test]
    fn leap_days_count() {
        for (anniversary, now, expected) in [
            ("2024-02-29", "2024-02-29T12:00:00Z", 0),
            ("2024-02-29", "2024-03-01T12:00:00Z", 1),
            ("2024-02-29", "2025-02-28T12:00:00Z", 365),
            ("2024-02-29", "2025-03-01T12:00:00Z", 366),
            ("2024-02-29", "2028-02-29T12:00:00Z", 1461),
            ("2023-02-28", "2024-02-28T12:00:00Z", 365),
            ("1999-12-31", "2100-03-01T12:00:00Z", 36_585),
        ] {
            assert_eq!(days_from(anniversary, "UTC", now), expected, "{anniversary} {now}");
        }
    }

    #[test]
    fn anniversary_precedes_the_pairing_unless_it_is_in_the_future() {
        let now = "2027-01-15T12:00:00Z";
        assert_eq!(days_from("2026-01-15", "UTC", now), 365);
        assert_eq!(days_from("2027-01-15", "UTC", now), 0);
        assert_eq!(days_from("2027-01-16", "UTC", now), 14);
        assert_eq!(days_from("no date", "UTC", now), 14);
        // It is the 16th in Auckland already.
        assert_eq!(days_from("2027-01-16", "Pacific/Auckland", now), 0);
        assert_eq!(days("2027-01-16T00:00:00Z", "UTC", now), 0, "the clock was set back");
    }

    #[test]
    fn every_part_of_a_glance_changes_the_version() {
        let id = Uuid::from_u128;
        let reader = GlanceReader {
            couple: Couple {
                id: CoupleId::from_uuid(id(1)),
                members: [AccountId::from_uuid(id(2)), AccountId::from_uuid(id(3))],
                since: at("2027-01-01T00:00:00Z"),
                epoch: 1,
                ended_at: None,
                title: None,
                anniversary: None,
                previous: None,
                restore: [false, false],
                head_seq: 7,
                read: [3, 5],
            },
            side: Side::First,
            time_zone: None,
            host_name: None,
        };
        let now = at("2027-01-15T12:00:00Z");
        let stored = version(&reader, now);
        assert_eq!(version(&reader, at("2027-01-15T23:59:59Z")), stored);
        let changes: [fn(&mut GlanceReader); 8] = [
            |reader| reader.couple.id = CoupleId::from_uuid(Uuid::from_u128(9)),
            |reader| reader.couple.epoch = 2,
            |reader| reader.couple.head_seq = 8,
            |reader| reader.couple.read[0] = 4,
            |reader| reader.couple.anniversary = Some("2020-01-01".to_owned()),
            |reader| reader.side = Side::Second,
            |reader| reader.time_zone = Some(TimeZoneName::from_stored("Pacific/Auckland")),
            |reader| reader.host_name = DisplayName::parse("name", "Ana").ok(),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut changed = reader.clone();
            change(&mut changed);
            assert_ne!(version(&changed, now), stored, "change {n}");
        }
        assert_ne!(version(&reader, at("2027-01-16T00:00:00Z")), stored, "the next day");
        let mut partner_reads = reader;
        partner_reads.couple.read[1] = 6;
        assert_eq!(version(&partner_reads, now), stored, "the partner's read position is not shown");
    }
}
