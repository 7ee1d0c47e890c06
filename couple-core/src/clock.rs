//! Injected time: only [`SystemClock`] reads the clock of the operating system.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Point in time: microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates a timestamp from microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }
    /// Microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }
    /// Adds a duration; saturates.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(later)))
    }
    /// Subtracts a duration; saturates.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(earlier)))
    }
    /// Duration from `other` to this timestamp; zero if `other` is later.
    #[must_use]
    pub fn since(self, other: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(other.0)).unwrap_or(0))
    }
    /// Reads a time in RFC 3339, with any offset and up to microseconds.
    ///
    /// # Errors
    /// [`Invalid`] when it is no such time, or its year is not in 0 to 9999.
    pub fn from_rfc3339(field: &'static str, text: &str) -> Result<Self, Invalid> {
        const MAX_BYTES: usize = 64;
        let at = Some(text).filter(|text| text.len() <= MAX_BYTES).and_then(|text| text.parse().ok());
        at.map(|at: jiff::Timestamp| Self(at.as_microsecond()))
            .filter(|at| date(at.0.div_euclid(DAY)).is_some())
            .ok_or(Invalid::new(field, "invalid_time"))
    }
    /// Formats as RFC 3339 in UTC with milliseconds, the time format of the HTTP contract.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let (day, of_day) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let Some((year, month, day)) = date(day) else { return "out of range".to_owned() };
        let mut text = String::with_capacity(24);
        let mut put = |number: i64, mut place: i64, then: char| {
            while place > 0 {
                text.push(char::from(b"0123456789"[usize::try_from(number / place % 10).unwrap_or(0)]));
                place /= 10;
            }
            text.push(then);
        };
        put(year, 1_000, '-');
        put(month, 10, '-');
        put(day, 10, 'T');
        put(of_day / 3_600_000_000, 10, ':');
        put(of_day / 60_000_000 % 60, 10, ':');
        put(of_day / 1_000_000 % 60, 10, '.');
        put(of_day / 1_000 % 1_000, 100, 'Z');
        text
    }
}

/// Microseconds per day.
const DAY: i64 = 86_400_000_000;

/// Gregorian date of a day counted from 1970-01-01, for the four-digit years of RFC 3339.
///
/// The calculation uses eras of 400 years that start on 0000-03-01, so that a leap day is the last day of its
/// year (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>). Formatting with a general
/// date library takes ten times as long, and the server formats a time for every entry that it sends.
fn date(day: i64) -> Option<(i64, i64, i64)> {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    let year = year + era * 400;
    (0..=9_999).contains(&year).then_some((year, month, day))
}

fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Source of the current time.
pub trait Clock: Send + Sync + 'static {
    /// Current time. May jump, also backwards: callers may rely on rough order only.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary fixed start, for measuring durations.
    ///
    /// Must not follow corrections of the wall clock. The default is derived from [`now`](Self::now) and does
    /// follow them.
    fn monotonic(&self) -> Duration {
        self.now().since(Timestamp(0))
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }
}

/// Clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(micros_of(since))
    }
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = Instant::now();
        now.saturating_duration_since(*START.get_or_init(|| now))
    }
}

/// Clock for tests that only moves when a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl ManualClock {
    /// Creates a clock that shows `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self { wall: AtomicI64::new(start.0), monotonic: AtomicI64::new(0) }
    }
    /// Moves the wall clock and the monotonic clock forward.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(micros_of(by), Ordering::SeqCst);
        self.monotonic.fetch_add(micros_of(by), Ordering::SeqCst);
    }
    /// Sets the wall clock, also backwards.
    ///
    /// The monotonic clock does not change, as after a clock correction.
    pub fn set(&self, to: Timestamp) {
        self.wall.store(to.0, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// 2026-01-01 00:00 UTC.
    fn default() -> Self {
        Self::new(Timestamp(1_767_225_600_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.monotonic.load(Ordering::SeqCst)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_written_as_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_micros(1_767_225_600_000_000).to_rfc3339(), "2026-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_micros(1_767_225_600_123_999).to_rfc3339(), "2026-01-01T00:00:00.123Z");
    }

    #[test]
    fn timestamp_is_read_from_rfc_3339() {
        let at = |text: &str| Timestamp::from_rfc3339("at", text);
        for text in ["2026-01-01T00:00:00Z", "2026-01-01t01:30:00.000+01:30", "2025-12-31T12:00:00-12:00"] {
            assert_eq!(at(text), Ok(Timestamp::from_micros(1_767_225_600_000_000)), "{text}");
        }
        let micro = Timestamp::from_micros(1_767_225_600_000_001);
        assert_eq!(at("2026-01-01T00:00:00.0000019Z"), Ok(micro));
        for text in ["", "2026-01-01", "2026-01-01T00:00:00", "1767225600", "-000001-01-01T00:00:00Z", "now"]
        {
            assert_eq!(at(text), Err(Invalid::new("at", "invalid_time")), "{text}");
        }
    }

    #[test]
    fn days_are_written_as_calendar_dates() {
        let first = jiff::civil::date(0, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let last = jiff::civil::date(9999, 12, 30).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let mut at = first.as_microsecond();
        while at < last.as_microsecond() {
            let time = jiff::Timestamp::from_microsecond(at).unwrap();
            assert_eq!(Timestamp(at).to_rfc3339(), format!("{time:.3}"));
            // A step of about ten days that also changes the time of day.
            at += 889_234_567_891;
        }
        assert_eq!(Timestamp(i64::MAX).to_rfc3339(), "out of range");
        assert_eq!(Timestamp(first.as_microsecond() - 1).to_rfc3339(), "out of range");
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_micros(i64::MAX);
        assert_eq!(end.plus(Duration::from_secs(1)), end);
        assert_eq!(Timestamp::default().since(end), Duration::ZERO);
    }
}
