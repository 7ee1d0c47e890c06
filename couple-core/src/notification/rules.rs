//! Decisions about notifications: pure functions of what was read.

use std::fmt;

use jiff::{ToSpan as _, civil::DateTime, tz::TimeZone};

use data_encoding::BASE64URL_NOPAD;

use super::{NotificationKind, NotificationPolicy, Preferences, PreferencesPatch, QuietHours};
use crate::{AccountId, Digest, Invalid, Keyring, Secret, TimeZoneName, Timestamp, timeline::Body};

/// Maximum length of the text of a preview in characters. The payload of a push service has at most 4,096 bytes.
const MAX_PREVIEW_CHARS: usize = 200;

/// Subject of a notification in its current state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Entry of the log with this `seq`, which reports the event.
    Entry(i64),
    /// The entry was deleted, or the reaction removed.
    Gone,
    /// The partner reacted to an entry of their own.
    OfPartner,
    /// A later event of the same kind is reported by its own notification.
    Superseded,
}

/// State at the moment of sending, from which a notification is decided.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// Current time.
    pub now: Timestamp,
    /// Kind of event.
    pub kind: NotificationKind,
    /// Subject of the notification.
    pub subject: Subject,
    /// Whether the couple of the event has not ended.
    pub is_couple: bool,
    /// Whether the recipient blocks the partner.
    pub is_blocked: bool,
    /// `seq` up to which the recipient has read.
    pub read: i64,
    /// Preferences of the recipient.
    pub preferences: &'a Preferences,
    /// Time zone of the recipient, if the preferences have none; UTC if it is not known.
    pub time_zone: Option<&'a TimeZoneName>,
    /// Whether the recipient has a live stream.
    pub is_present: bool,
    /// Whether a person with a live stream is looked at for the second time.
    pub is_second_look: bool,
    /// Number of devices that show notifications of the recipient.
    pub devices: usize,
}

/// Decision about a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushDecision {
    /// Send it now.
    Push,
    /// Decide again at the given time.
    Later(Timestamp, PushReason),
    /// Send nothing.
    Nothing(PushReason),
}

/// Reason why nothing is sent, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushReason {
    /// The couple has ended.
    CoupleEnded,
    /// The recipient blocks the partner.
    Blocked,
    /// The recipient has switched this kind off.
    SwitchedOff,
    /// The recipient has muted notifications.
    Muted,
    /// The entry was deleted, or the reaction removed.
    Gone,
    /// The partner reacted to an entry of their own.
    OfPartner,
    /// A later event is reported instead.
    Superseded,
    /// The recipient has read the entry.
    Read,
    /// The recipient has no device that shows notifications.
    NoDevice,
    /// The recipient has quiet hours.
    QuietHours,
    /// The recipient has a live stream.
    Present,
    /// Another digest is scheduled instead.
    NotScheduled,
}

impl fmt::Display for PushReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoupleEnded => "the couple has ended",
            Self::Blocked => "the recipient blocks the partner",
            Self::SwitchedOff => "the recipient has switched this kind off",
            Self::Muted => "the recipient has muted notifications",
            Self::Gone => "the entry was deleted or the reaction removed",
            Self::OfPartner => "the partner reacted to an entry of their own",
            Self::Superseded => "a later event is reported instead",
            Self::Read => "the recipient has read it",
            Self::NoDevice => "the recipient has no device that shows notifications",
            Self::QuietHours => "the recipient has quiet hours",
            Self::Present => "the recipient has a live stream",
            Self::NotScheduled => "another digest is scheduled instead",
        })
    }
}

/// Decides about a notification at the moment of sending.
#[must_use]
pub fn decide(situation: &Situation<'_>, policy: &NotificationPolicy) -> PushDecision {
    let Situation { now, preferences, .. } = *situation;
    let nothing = PushDecision::Nothing;
    if !situation.is_couple {
        return nothing(PushReason::CoupleEnded);
    }
    if situation.is_blocked {
        return nothing(PushReason::Blocked);
    }
    if !preferences.kinds[situation.kind.index()] {
        return nothing(PushReason::SwitchedOff);
    }
    if preferences.muted_until.is_some_and(|until| now < until) {
        return nothing(PushReason::Muted);
    }
    match situation.subject {
        Subject::Gone => return nothing(PushReason::Gone),
        Subject::OfPartner => return nothing(PushReason::OfPartner),
        Subject::Superseded => return nothing(PushReason::Superseded),
        Subject::Entry(seq) if seq <= situation.read => return nothing(PushReason::Read),
        Subject::Entry(_) => {}
    }
    if situation.devices == 0 {
        return nothing(PushReason::NoDevice);
    }
    let zone = preferences.time_zone.as_ref().or(situation.time_zone);
    if let Some(end) = preferences.quiet_hours.and_then(|quiet| quiet_until(quiet, zone, now)) {
        return PushDecision::Later(end, PushReason::QuietHours);
    }
    match (situation.is_present, situation.is_second_look) {
        (true, false) => PushDecision::Later(now.plus(policy.second_look), PushReason::Present),
        (true, true) => nothing(PushReason::Present),
        (false, _) => PushDecision::Push,
    }
}

/// Time of the digest that an event schedules; none if it schedules none.
///
/// The event is an entry that the recipient has not read, and no digest is scheduled. Mute and quiet hours count at the
/// time of the digest.
#[must_use]
pub fn digest_to_schedule(situation: &Situation<'_>) -> Option<Timestamp> {
    let Situation { now, preferences, .. } = *situation;
    let delay = preferences.digest?;
    let is_unread = match situation.subject {
        Subject::Entry(seq) => situation.read < seq,
        Subject::Superseded => true,
        Subject::Gone | Subject::OfPartner => false,
    };
    let is_reported = situation.kind == NotificationKind::Entry
        && preferences.kinds[situation.kind.index()]
        && is_unread
        && situation.is_couple
        && !situation.is_blocked;
    let is_scheduled = preferences.digest_due.is_some_and(|due| now < due);
    (is_reported && !is_scheduled).then(|| now.plus(delay.duration()))
}

/// State at the moment of sending, from which a digest is decided.
#[derive(Debug, Clone)]
pub struct DigestSituation<'a> {
    /// Current time.
    pub now: Timestamp,
    /// Whether the digest is the one that the preferences name.
    pub is_scheduled: bool,
    /// Preferences of the recipient.
    pub preferences: &'a Preferences,
    /// Time zone of the recipient, if the preferences have none; UTC if it is not known.
    pub time_zone: Option<&'a TimeZoneName>,
    /// Whether the recipient is in a couple.
    pub is_couple: bool,
    /// Whether the recipient blocks the partner.
    pub is_blocked: bool,
    /// Number of unread entries that count.
    pub unread: u32,
    /// Whether the recipient has a live stream.
    pub is_present: bool,
    /// Whether a person with a live stream is looked at for the second time.
    pub is_second_look: bool,
}

/// Decision about a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestDecision {
    /// Send it now.
    Send,
    /// Decide again at the given time.
    Later(Timestamp, PushReason),
    /// Send nothing.
    Nothing(PushReason),
}

/// Decides about a digest at the moment of sending.
#[must_use]
pub fn decide_digest(situation: &DigestSituation<'_>, policy: &NotificationPolicy) -> DigestDecision {
    let DigestSituation { now, preferences, .. } = *situation;
    let reasons = [
        (!situation.is_scheduled, PushReason::NotScheduled),
        (!situation.is_couple, PushReason::CoupleEnded),
        (situation.is_blocked, PushReason::Blocked),
        (!policy.digests || preferences.digest.is_none(), PushReason::SwitchedOff),
        (!preferences.kinds[NotificationKind::Entry.index()], PushReason::SwitchedOff),
        (preferences.muted_until.is_some_and(|until| now < until), PushReason::Muted),
        (situation.unread == 0, PushReason::Read),
    ];
    if let Some((_, reason)) = reasons.into_iter().find(|(applies, _)| *applies) {
        return DigestDecision::Nothing(reason);
    }
    let zone = preferences.time_zone.as_ref().or(situation.time_zone);
    if let Some(end) = preferences.quiet_hours.and_then(|quiet| quiet_until(quiet, zone, now)) {
        return DigestDecision::Later(end, PushReason::QuietHours);
    }
    match (situation.is_present, situation.is_second_look) {
        (true, false) => DigestDecision::Later(now.plus(policy.second_look), PushReason::Present),
        (true, true) => DigestDecision::Nothing(PushReason::Present),
        (false, _) => DigestDecision::Send,
    }
}

/// Purpose of the tokens that switch digests off.
const UNSUBSCRIBE_PURPOSE: &str = "unsubscribe";
/// Bytes of the id and of the code in a token.
const TOKEN_BYTES: usize = 16 + 24;

/// Token that switches the digests of a person off, and can do nothing else. It does not expire.
///
/// It has the id of the person and 192 bits that only the owner of the key ring can compute.
#[must_use]
pub fn unsubscribe_token(keys: &Keyring, person: AccountId) -> Secret<String> {
    let code = keys.derive(UNSUBSCRIBE_PURPOSE, &[person.as_uuid().as_bytes()]);
    let bytes = [&person.as_uuid().as_bytes()[..], &code.as_bytes()[..24]].concat();
    Secret::new(BASE64URL_NOPAD.encode(&bytes))
}

/// Person of a token that switches digests off; none for any other text.
#[must_use]
pub fn person_of_token(keys: &Keyring, token: &str) -> Option<AccountId> {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
    if bytes.len() != TOKEN_BYTES {
        return None;
    }
    let person = AccountId::from_uuid(uuid::Uuid::from_slice(&bytes[..16]).ok()?);
    // Digests of both compare in constant time.
    let digest = |text: &str| crate::digest(&[text.as_bytes()]);
    let expected: Digest = digest(unsubscribe_token(keys, person).expose());
    expected.same_as(&digest(token)).then_some(person)
}

/// End of the quiet hours that `now` belongs to; none if it belongs to none.
///
/// The end is the first time at which the clock of the zone shows no quiet minute: a change of the clock can end or
/// repeat quiet hours. UTC for a zone that is not known.
#[must_use]
pub fn quiet_until(quiet: QuietHours, zone: Option<&TimeZoneName>, now: Timestamp) -> Option<Timestamp> {
    let zone = zone.and_then(|name| TimeZone::get(name.as_str()).ok()).unwrap_or(TimeZone::UTC);
    let now = jiff::Timestamp::from_microsecond(now.micros()).ok()?;
    let local = zone.to_datetime(now);
    if !is_quiet(quiet, local) {
        return None;
    }
    let (hour, minute) = (quiet.to / 60, quiet.to % 60);
    let mut end = local.date().at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
    if end <= local {
        end = end.checked_add(1.day()).ok()?;
    }
    let ends = zone.to_ambiguous_timestamp(end);
    let first = ends.compatible().ok()?;
    // The earlier of two has passed if the clock was set back after it.
    let end = if first > now { first } else { ends.later().ok()? };
    let after_change = zone
        .following(now)
        .map(|change| change.timestamp())
        .take_while(|change| *change < end)
        .find(|change| !is_quiet(quiet, zone.to_datetime(*change)));
    Some(Timestamp::from_micros(after_change.unwrap_or(end).as_microsecond()))
}

fn is_quiet(quiet: QuietHours, local: DateTime) -> bool {
    let minute = i16::from(local.hour()) * 60 + i16::from(local.minute());
    u16::try_from(minute).is_ok_and(|minute| quiet.contains(minute))
}

/// Preferences after a change.
///
/// # Errors
/// [`Invalid`] for an unknown time zone.
pub fn patched(stored: &Preferences, patch: &PreferencesPatch) -> Result<Preferences, Invalid> {
    let mut changed = stored.clone();
    for (kind, wanted) in changed.kinds.iter_mut().zip(patch.kinds) {
        *kind = wanted.unwrap_or(*kind);
    }
    changed.previews = patch.previews.unwrap_or(stored.previews);
    changed.muted_until = patch.muted_until.unwrap_or(stored.muted_until);
    changed.quiet_hours = patch.quiet_hours.unwrap_or(stored.quiet_hours);
    if let Some(zone) = &patch.time_zone {
        changed.time_zone = zone.as_deref().map(|zone| TimeZoneName::parse("time_zone", zone)).transpose()?;
    }
    changed.digest = patch.digest.unwrap_or(stored.digest);
    if changed.digest != stored.digest {
        // A digest that was scheduled with another delay is not sent.
        changed.digest_due = None;
    }
    Ok(changed)
}

/// Start of the text of an entry; none if its body has no member `text`.
#[must_use]
pub fn preview(body: &Body) -> Option<String> {
    let value = body.value();
    shortened(value.get("text")?.as_str()?)
}

/// Text in one line, at most 200 characters; none if nothing is left.
fn shortened(text: &str) -> Option<String> {
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    let short = match line.char_indices().nth(MAX_PREVIEW_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    };
    Some(short).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::notification::DigestDelay;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(at.as_microsecond())
    }

    fn preferences() -> Preferences {
        Preferences::default_of(AccountId::from_uuid(uuid::Uuid::from_u128(1)))
    }

    fn situation(preferences: &Preferences) -> Situation<'_> {
        Situation {
            now: NOW,
            kind: NotificationKind::Entry,
            subject: Subject::Entry(8),
            is_couple: true,
            is_blocked: false,
            read: 7,
            preferences,
            time_zone: None,
            is_present: false,
            is_second_look: false,
            devices: 1,
        }
    }

    fn decided(situation: &Situation<'_>) -> PushDecision {
        decide(situation, &NotificationPolicy::default())
    }

    #[test]
    fn unread_entry_is_pushed() {
        assert_eq!(decided(&situation(&preferences())), PushDecision::Push);
    }

    #[test]
    fn each_reason_prevents_a_push() {
        let defaults = preferences();
        let reason = |change: fn(&mut Situation<'_>)| {
            let mut situation = situation(&defaults);
            change(&mut situation);
            match decided(&situation) {
                PushDecision::Nothing(reason) => Some(reason),
                _ => None,
            }
        };
        assert_eq!(reason(|s| s.is_couple = false), Some(PushReason::CoupleEnded));
        assert_eq!(reason(|s| s.is_blocked = true), Some(PushReason::Blocked));
        assert_eq!(reason(|s| s.subject = Subject::Gone), Some(PushReason::Gone));
        assert_eq!(reason(|s| s.subject = Subject::OfPartner), Some(PushReason::OfPartner));
        assert_eq!(reason(|s| s.subject = Subject::Superseded), Some(PushReason::Superseded));
        assert_eq!(reason(|s| s.read = 8), Some(PushReason::Read));
        assert_eq!(reason(|s| s.devices = 0), Some(PushReason::NoDevice));
        let twice: fn(&mut Situation<'_>) = |s| (s.is_present, s.is_second_look) = (true, true);
        assert_eq!(reason(twice), Some(PushReason::Present));
        assert_eq!(reason(|s| s.is_second_look = true), None);
    }

    #[test]
    fn each_kind_can_be_switched_off() {
        for off in NotificationKind::ALL {
            let mut preferences = preferences();
            preferences.kinds[off.index()] = false;
            for kind in NotificationKind::ALL {
                let expected = match kind.index() == off.index() {
                    true => PushDecision::Nothing(PushReason::SwitchedOff),
                    false => PushDecision::Push,
                };
                let situation = Situation { kind, ..situation(&preferences) };
                assert_eq!(decided(&situation), expected, "{kind:?} without {off:?}");
            }
        }
    }

    #[test]
    fn unread_entry_schedules_a_digest_unless_one_is_scheduled() {
        let asked = Preferences { digest: DigestDelay::new(60).ok(), ..preferences() };
        let scheduled = |preferences: &Preferences| digest_to_schedule(&situation(preferences));
        let due = NOW.plus(Duration::from_hours(1));
        assert_eq!(scheduled(&asked), Some(due));
        assert_eq!(scheduled(&preferences()), None);
        let micro = Duration::from_micros(1);
        for (digest_due, expected) in
            [(NOW.plus(micro), None), (NOW, Some(due)), (NOW.minus(micro), Some(due))]
        {
            let digest_due = Some(digest_due);
            assert_eq!(scheduled(&Preferences { digest_due, ..asked.clone() }), expected);
        }
        let until = Some(NOW.plus(Duration::from_hours(9)));
        assert_eq!(scheduled(&Preferences { muted_until: until, ..asked.clone() }), Some(due));
        assert_eq!(scheduled(&Preferences { kinds: [false, true, true], ..asked.clone() }), None);
        let changed = |change: fn(&mut Situation<'_>)| {
            let mut situation = situation(&asked);
            change(&mut situation);
            digest_to_schedule(&situation)
        };
        assert_eq!(changed(|s| s.subject = Subject::Superseded), Some(due));
        assert_eq!(changed(|s| s.devices = 0), Some(due));
        assert_eq!(changed(|s| s.is_present = true), Some(due));
        assert_eq!(changed(|s| s.read = 8), None);
        assert_eq!(changed(|s| s.subject = Subject::Gone), None);
        assert_eq!(changed(|s| s.is_couple = false), None);
        assert_eq!(changed(|s| s.is_blocked = true), None);
        assert_eq!(changed(|s| s.kind = NotificationKind::Reaction), None);
    }

    #[test]
    fn each_reason_prevents_a_digest() {
        let asked = Preferences { digest: DigestDelay::new(60).ok(), ..preferences() };
        let policy = NotificationPolicy::default().with_digests(true);
        fn unread(preferences: &Preferences) -> DigestSituation<'_> {
            DigestSituation {
                now: NOW,
                is_scheduled: true,
                preferences,
                time_zone: None,
                is_couple: true,
                is_blocked: false,
                unread: 1,
                is_present: false,
                is_second_look: false,
            }
        }
        assert_eq!(decide_digest(&unread(&asked), &policy), DigestDecision::Send);
        let off = DigestDecision::Nothing(PushReason::SwitchedOff);
        assert_eq!(decide_digest(&unread(&asked), &NotificationPolicy::default()), off);
        assert_eq!(decide_digest(&unread(&preferences()), &policy), off);
        let entries_off = Preferences { kinds: [false, true, true], ..asked.clone() };
        assert_eq!(decide_digest(&unread(&entries_off), &policy), off);
        let muted = Preferences { muted_until: Some(NOW.plus(Duration::from_micros(1))), ..asked.clone() };
        assert_eq!(decide_digest(&unread(&muted), &policy), DigestDecision::Nothing(PushReason::Muted));
        let muted = Preferences { muted_until: Some(NOW), ..asked.clone() };
        assert_eq!(decide_digest(&unread(&muted), &policy), DigestDecision::Send);
        let decided = |change: fn(&mut DigestSituation<'_>)| {
            let mut situation = unread(&asked);
            change(&mut situation);
            decide_digest(&situation, &policy)
        };
        let nothing = DigestDecision::Nothing;
        assert_eq!(decided(|s| s.is_scheduled = false), nothing(PushReason::NotScheduled));
        assert_eq!(decided(|s| s.is_couple = false), nothing(PushReason::CoupleEnded));
        assert_eq!(decided(|s| s.is_blocked = true), nothing(PushReason::Blocked));
        assert_eq!(decided(|s| s.unread = 0), nothing(PushReason::Read));
        let later = DigestDecision::Later(NOW.plus(Duration::from_mins(1)), PushReason::Present);
        assert_eq!(decided(|s| s.is_present = true), later);
        assert_eq!(
            decided(|s| (s.is_present, s.is_second_look) = (true, true)),
            nothing(PushReason::Present)
        );
        // 2027-01-15T08:00:00Z is 09:00 in Rome.
        let quiet_hours = QuietHours::new(8 * 60, 9 * 60).ok();
        let quiet = Preferences { quiet_hours, ..asked.clone() };
        let end = DigestDecision::Later(at("2027-01-15T09:00:00Z"), PushReason::QuietHours);
        assert_eq!(decide_digest(&unread(&quiet), &policy), end);
        let rome = TimeZoneName::from_stored("Europe/Rome");
        let in_rome = DigestSituation { time_zone: Some(&rome), ..unread(&quiet) };
        assert_eq!(decide_digest(&in_rome, &policy), DigestDecision::Send);
    }

    #[test]
    fn delay_of_a_digest_has_bounds() {
        for (minutes, valid) in [(0, false), (4, false), (5, true), (10_080, true), (10_081, false)] {
            assert_eq!(DigestDelay::new(minutes).is_ok(), valid, "{minutes}");
        }
        assert_eq!(DigestDelay::from_stored(-5), None);
        assert_eq!(DigestDelay::new(90).unwrap().duration(), Duration::from_mins(90));
    }

    #[test]
    fn token_names_its_person_and_depends_on_the_key() {
        let person = AccountId::from_uuid(uuid::Uuid::from_u128(7));
        let (keys, others) = (Keyring::new([1; 32]), Keyring::new([2; 32]));
        let token = unsubscribe_token(&keys, person);
        assert!(token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_eq!(person_of_token(&keys, token.expose()), Some(person));
        assert_eq!(person_of_token(&others, token.expose()), None);
    }

    #[test]
    fn muted_person_gets_nothing_until_the_end() {
        let muted = |until| Preferences { muted_until: Some(until), ..preferences() };
        let micro = Duration::from_micros(1);
        let nothing = PushDecision::Nothing(PushReason::Muted);
        assert_eq!(decided(&situation(&muted(NOW.plus(micro)))), nothing);
        assert_eq!(decided(&situation(&muted(NOW))), PushDecision::Push);
    }

    #[test]
    fn person_with_a_live_stream_is_looked_at_again() {
        let later = PushDecision::Later(NOW.plus(Duration::from_mins(1)), PushReason::Present);
        assert_eq!(decided(&Situation { is_present: true, ..situation(&preferences()) }), later);
    }

    #[test]
    fn quiet_hours_delay_in_the_zone_of_the_preferences_or_the_person() {
        // 2027-01-15T08:00:00Z
        let quiet = |zone: Option<&str>| Preferences {
            quiet_hours: Some(QuietHours::new(22 * 60, 10 * 60).unwrap()),
            time_zone: zone.map(TimeZoneName::from_stored),
            ..preferences()
        };
        let later = |text| PushDecision::Later(at(text), PushReason::QuietHours);
        let rome = TimeZoneName::from_stored("Europe/Rome");
        assert_eq!(decided(&situation(&quiet(None))), later("2027-01-15T10:00:00Z"));
        let in_rome = |preferences: &Preferences| {
            decided(&Situation { time_zone: Some(&rome), ..situation(preferences) })
        };
        assert_eq!(in_rome(&quiet(None)), later("2027-01-15T09:00:00Z"));
        assert_eq!(in_rome(&quiet(Some("Asia/Tokyo"))), PushDecision::Push);
        // An unknown zone counts as UTC.
        assert_eq!(in_rome(&quiet(Some("Mars/Olympus"))), later("2027-01-15T10:00:00Z"));
    }

    #[test]
    fn quiet_hours_contain_their_start_and_not_their_end() {
        let night = QuietHours::new(22 * 60, 7 * 60).unwrap();
        let day = QuietHours::new(9 * 60, 17 * 60 + 1).unwrap();
        for (quiet, inside, outside) in [
            (night, [22 * 60, 1439, 0, 7 * 60 - 1], [7 * 60, 12 * 60, 22 * 60 - 1]),
            (day, [9 * 60, 12 * 60, 17 * 60, 17 * 60], [9 * 60 - 1, 17 * 60 + 1, 0]),
        ] {
            assert!(inside.iter().all(|minute| quiet.contains(*minute)), "{quiet:?}");
            assert!(!outside.iter().any(|minute| quiet.contains(*minute)), "{quiet:?}");
        }
        for (from, to) in [(0, 0), (1440, 1), (1, 1440), (60, 60)] {
            assert!(QuietHours::new(from, to).is_err(), "{from} {to}");
        }
    }

    /// First minute after `now` that is not quiet, found minute by minute.
    fn first_loud_minute(quiet: QuietHours, zone: &TimeZone, now: jiff::Timestamp) -> jiff::Timestamp {
        (0_i64..).map(|n| now + n.minutes()).find(|at| !is_quiet(quiet, zone.to_datetime(*at))).unwrap()
    }

    #[test]
    fn end_of_quiet_hours_is_the_first_minute_that_is_not_quiet() {
        // Gap and overlap of one hour, of half an hour, at midnight, and a day that the zone skips.
        let changes = [
            ("Europe/Berlin", "2027-03-28T01:00:00Z"),
            ("Europe/Berlin", "2027-10-31T01:00:00Z"),
            ("Australia/Lord_Howe", "2027-04-03T15:00:00Z"),
            ("Australia/Lord_Howe", "2027-10-02T15:30:00Z"),
            ("Africa/Cairo", "2027-04-29T22:00:00Z"),
            ("Pacific/Apia", "2011-12-30T10:00:00Z"),
            ("Asia/Kathmandu", "2027-01-01T00:00:00Z"),
        ];
        let hours =
            [(0, 150), (150, 0), (90, 130), (120, 150), (150, 180), (1320, 420), (60, 61), (1380, 30)];
        for (name, change) in changes {
            let zone = TimeZone::get(name).unwrap();
            let change: jiff::Timestamp = change.parse().unwrap();
            for (from, to) in hours {
                let quiet = QuietHours::new(from, to).unwrap();
                for step in -50_i64..30 {
                    let now = change + (step * 37).minutes();
                    let found = quiet_until(
                        quiet,
                        Some(&TimeZoneName::from_stored(name)),
                        Timestamp::from_micros(now.as_microsecond()),
                    );
                    let expected = first_loud_minute(quiet, &zone, now);
                    let expected =
                        (expected > now).then(|| Timestamp::from_micros(expected.as_microsecond()));
                    assert_eq!(found, expected, "{quiet:?} in {name} at {now}");
                }
            }
        }
    }

    #[test]
    fn end_of_quiet_hours_is_a_whole_minute() {
        let quiet = QuietHours::new(0, 60).unwrap();
        let found = quiet_until(quiet, None, at("2027-01-15T00:59:59.999999Z"));
        assert_eq!(found, Some(at("2027-01-15T01:00:00Z")));
    }

    #[test]
    fn patch_changes_only_its_fields() {
        let stored = Preferences {
            version: 3,
            kinds: [true, false, true],
            digest: DigestDelay::new(60).ok(),
            digest_due: Some(NOW),
            previews: true,
            muted_until: Some(NOW),
            quiet_hours: QuietHours::new(1, 2).ok(),
            time_zone: Some(TimeZoneName::from_stored("Europe/Rome")),
            ..preferences()
        };
        assert_eq!(patched(&stored, &PreferencesPatch::default()).unwrap(), stored);
        let patch = |patch: PreferencesPatch| patched(&stored, &patch).unwrap();
        let kinds = PreferencesPatch { kinds: [Some(false), None, None], ..Default::default() };
        assert_eq!(patch(kinds), Preferences { kinds: [false, false, true], ..stored.clone() });
        let previews = PreferencesPatch { previews: Some(false), ..Default::default() };
        assert_eq!(patch(previews), Preferences { previews: false, ..stored.clone() });
        let cleared = PreferencesPatch {
            muted_until: Some(None),
            quiet_hours: Some(None),
            time_zone: Some(None),
            ..Default::default()
        };
        let expected =
            Preferences { muted_until: None, quiet_hours: None, time_zone: None, ..stored.clone() };
        assert_eq!(patch(cleared), expected);
        let digest = |digest: Option<DigestDelay>| {
            let changed = patch(PreferencesPatch { digest: Some(digest), ..Default::default() });
            (changed.digest, changed.digest_due)
        };
        assert_eq!(digest(DigestDelay::new(60).ok()), (DigestDelay::new(60).ok(), Some(NOW)));
        assert_eq!(digest(DigestDelay::new(61).ok()), (DigestDelay::new(61).ok(), None));
        assert_eq!(digest(None), (None, None));
        let unknown = PreferencesPatch { time_zone: Some(Some("Mars".to_owned())), ..Default::default() };
        assert_eq!(patched(&stored, &unknown), Err(Invalid::new("time_zone", "unknown_time_zone")));
    }

    #[test]
    fn preview_is_a_short_line() {
        let of = |value: serde_json::Value| preview(&Body::from_stored(value.to_string()));
        assert_eq!(of(serde_json::json!({"text": " Hi\n\tyou\u{1b} "})).as_deref(), Some("Hi you"));
        assert_eq!(of(serde_json::json!({"text": "  "})), None);
        assert_eq!(of(serde_json::json!({"media_id": "7"})), None);
        assert_eq!(of(serde_json::json!({"text": 7})), None);
        let long = of(serde_json::json!({"text": "😀".repeat(5_000)})).unwrap();
        assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
    }
}
