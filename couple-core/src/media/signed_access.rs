//! Signed access to one rendition, for URLs that a client loads without its bearer token (`<img src>`).
//!
//! The signature is an HMAC with the key ring over the picture, the rendition, the viewer and the expiry. The
//! viewer contains account, session, couple and epoch, so the server can require that all of them are
//! unchanged.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use uuid::Uuid;

use crate::{AccountId, CoupleId, Digest, Keyring, MediaId, SessionId, Timestamp};

/// Viewer to whom a signed access is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    /// Account of the viewer.
    pub account: AccountId,
    /// Session of the viewer.
    pub session: SessionId,
    /// Active couple of the account at the time of signing, with its epoch; none without a couple.
    pub couple: Option<(CoupleId, i64)>,
}

/// Granularity of expiry times in microseconds: 5 min.
///
/// URLs that are signed within the same 5 minutes are equal, so that clients can cache pictures by URL.
const EXPIRY_STEP_MICROS: i64 = 5 * 60 * 1_000_000;

/// Number of bytes before the signature: three ids, epoch and expiry.
const PAYLOAD_BYTES: usize = 3 * 16 + 2 * 8;

impl Viewer {
    /// Maximum time from the signing of an access to its expiry: 10 min.
    pub const MAX_LIFETIME: Duration = Duration::from_mins(10);

    /// Expiry of an access that is signed at `now`: 5 to 10 minutes later.
    #[must_use]
    pub const fn expiry(now: Timestamp) -> Timestamp {
        let micros = now.micros();
        Timestamp::from_micros(micros - micros.rem_euclid(EXPIRY_STEP_MICROS) + 2 * EXPIRY_STEP_MICROS)
    }

    /// Signs the access to one rendition until `expires_at`. Returns 128 URL-safe characters.
    #[must_use]
    pub fn sign(&self, keys: &Keyring, media: MediaId, rendition: &str, expires_at: Timestamp) -> String {
        let head = self.head(expires_at);
        let signature = signature(keys, &head, media, rendition);
        BASE64URL_NOPAD.encode(&[&head[..], signature.as_bytes()].concat())
    }

    /// Verifies an access; none unless it was signed for this rendition and has not expired.
    #[must_use]
    pub fn verify(
        keys: &Keyring,
        media: MediaId,
        rendition: &str,
        access: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(access.as_bytes()).ok()?;
        let (head, given) = bytes.split_first_chunk::<PAYLOAD_BYTES>()?;
        let given = Digest::from_bytes(given.try_into().ok()?);
        if !signature(keys, head, media, rendition).same_as(&given) {
            return None;
        }
        let id = |at: usize| head.get(at..at + 16).and_then(|id| Uuid::from_slice(id).ok());
        let number = |at: usize| Some(i64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let (couple, epoch) = (id(32)?, number(48)?);
        let viewer = Self {
            account: AccountId::from_uuid(id(0)?),
            session: SessionId::from_uuid(id(16)?),
            couple: (!couple.is_nil()).then(|| (CoupleId::from_uuid(couple), epoch)),
        };
        (now < Timestamp::from_micros(number(56)?)).then_some(viewer)
    }

    fn head(&self, expires_at: Timestamp) -> [u8; PAYLOAD_BYTES] {
        let (couple, epoch) = self.couple.map_or((Uuid::nil(), 0), |(id, epoch)| (id.as_uuid(), epoch));
        let mut head = [0; PAYLOAD_BYTES];
        head[..16].copy_from_slice(self.account.as_uuid().as_bytes());
        head[16..32].copy_from_slice(self.session.as_uuid().as_bytes());
        head[32..48].copy_from_slice(couple.as_bytes());
        head[48..56].copy_from_slice(&epoch.to_be_bytes());
        head[56..].copy_from_slice(&expires_at.micros().to_be_bytes());
        head
    }
}

fn signature(keys: &Keyring, head: &[u8; PAYLOAD_BYTES], media: MediaId, rendition: &str) -> Digest {
    keys.derive("rendition-access", &[head, media.as_uuid().as_bytes(), rendition.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_123_456_789);

    fn viewer(couple: Option<(CoupleId, i64)>) -> Viewer {
        let id = Uuid::from_u128;
        Viewer { account: AccountId::from_uuid(id(1)), session: SessionId::from_uuid(id(2)), couple }
    }

    #[test]
    fn access_is_read_back_for_its_rendition_only() {
        let (keys, media) = (Keyring::new([1; 32]), MediaId::from_uuid(Uuid::from_u128(3)));
        for couple in [None, Some((CoupleId::from_uuid(Uuid::from_u128(4)), 7))] {
            let viewer = viewer(couple);
            let access = viewer.sign(&keys, media, "320", Viewer::expiry(NOW));
            assert_eq!(access.len(), 128);
            let read = |media, name, access: &str, now| Viewer::verify(&keys, media, name, access, now);
            assert_eq!(read(media, "320", &access, NOW), Some(viewer));
            assert_eq!(read(media, "1080", &access, NOW), None, "another rendition");
            let other = MediaId::from_uuid(Uuid::from_u128(5));
            assert_eq!(read(other, "320", &access, NOW), None, "another picture");
            assert_eq!(read(media, "320", &access, Viewer::expiry(NOW)), None, "expired");
            assert_eq!(read(media, "320", &access[..127], NOW), None, "cut");
            let other_keys = Keyring::new([2; 32]);
            assert_eq!(Viewer::verify(&other_keys, media, "320", &access, NOW), None, "other keys");
            for at in 0..access.len() {
                let mut tampered = access.clone().into_bytes();
                tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
                let tampered = String::from_utf8(tampered).unwrap();
                assert_eq!(read(media, "320", &tampered, NOW), None, "character {at}");
            }
        }
    }

    #[test]
    fn expiry_is_5_to_10_minutes_ahead_and_stays_for_5_minutes() {
        for seconds in 0..600 {
            let now = Timestamp::from_micros(NOW.micros() + seconds * 1_000_000);
            let left = Viewer::expiry(now).micros() - now.micros();
            assert!(left > EXPIRY_STEP_MICROS && left <= 2 * EXPIRY_STEP_MICROS, "{left}");
        }
        let begin = Timestamp::from_micros(NOW.micros() - NOW.micros() % EXPIRY_STEP_MICROS);
        let last = Timestamp::from_micros(begin.micros() + EXPIRY_STEP_MICROS - 1);
        assert_eq!(Viewer::expiry(begin), Viewer::expiry(last));
    }
}
