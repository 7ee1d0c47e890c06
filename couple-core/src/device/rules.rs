//! Checks of registrations: pure functions of what a client sends.

use data_encoding::BASE64URL_NOPAD;

use super::{DevicePolicy, NewDestination, NewDevice, ParsedDevice};
use crate::{
    Invalid, Locale, Secret, TimeZoneName,
    push::{Destination, Surface},
};

/// Number of hexadecimal digits of an APNs token.
///
/// Apple documents no length: tokens of apps have 64 digits, those of Live Activities about 160.
const APNS_TOKEN_DIGITS: std::ops::RangeInclusive<usize> = 32..=512;
/// Maximum length of an FCM token in bytes. Google documents none; current ones have about 160.
const MAX_FCM_TOKEN_BYTES: usize = 4096;
/// Maximum length of the endpoint of a browser in bytes.
const MAX_ENDPOINT_BYTES: usize = 2048;
/// Maximum length of a bundle id or package name in bytes.
const MAX_APP_BYTES: usize = 255;
/// Maximum length of a version of an app in characters.
const MAX_VERSION_CHARS: usize = 64;

/// Checks a registration. An unknown locale or time zone is ignored.
///
/// # Errors
/// [`Invalid`] for the first field that is not valid.
pub fn parse(device: &NewDevice, policy: &DevicePolicy) -> Result<ParsedDevice, Invalid> {
    let destination = parse_destination(&device.destination, policy)?;
    // Only Apple has tokens of surfaces: elsewhere the app updates them when it receives a message.
    if device.surface != Surface::Alert && !matches!(destination, Destination::Apns { .. }) {
        return Err(Invalid::new("kind", "unsupported"));
    }
    let zone = device.time_zone.as_deref().map(|zone| TimeZoneName::parse("time_zone", zone));
    Ok(ParsedDevice {
        destination,
        surface: device.surface,
        locale: device.locale.as_deref().and_then(Locale::matched),
        time_zone: zone.and_then(Result::ok),
        app_version: device.app_version.as_deref().map(version).transpose()?.flatten(),
    })
}

fn parse_destination(destination: &NewDestination, policy: &DevicePolicy) -> Result<Destination, Invalid> {
    Ok(match destination {
        NewDestination::Apns { token, app, sandbox } => {
            Destination::Apns { token: apns_token(token.expose())?, app: app_id(app)?, sandbox: *sandbox }
        }
        NewDestination::Fcm { token, app } => Destination::Fcm {
            token: opaque("token", token.expose(), MAX_FCM_TOKEN_BYTES)?,
            app: app_id(app)?,
        },
        NewDestination::WebPush { endpoint, key, auth } => {
            let endpoint = opaque("subscription.endpoint", endpoint.expose(), MAX_ENDPOINT_BYTES)?;
            if !is_endpoint(endpoint.expose(), policy.local_endpoints) {
                return Err(Invalid::new("subscription.endpoint", "invalid"));
            }
            let key: [u8; 65] = decoded("subscription.keys.p256dh", key.expose())?;
            // The first byte of an uncompressed point (SEC 1, section 2.3.3).
            if key[0] != 4 {
                return Err(Invalid::new("subscription.keys.p256dh", "invalid"));
            }
            Destination::WebPush {
                endpoint,
                key,
                auth: Secret::new(decoded("subscription.keys.auth", auth.expose())?),
            }
        }
    })
}

fn apns_token(token: &str) -> Result<Secret<String>, Invalid> {
    let is_token = APNS_TOKEN_DIGITS.contains(&token.len())
        && token.len().is_multiple_of(2)
        && token.bytes().all(|b| b.is_ascii_hexdigit());
    if is_token { Ok(Secret::new(token.to_ascii_lowercase())) } else { Err(Invalid::new("token", "invalid")) }
}

/// Checks a text of visible ASCII characters, which the push service defines.
fn opaque(field: &'static str, text: &str, most: usize) -> Result<Secret<String>, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "required"));
    }
    if text.len() > most {
        return Err(Invalid::new(field, "too_long"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new(field, "invalid"));
    }
    Ok(Secret::new(text.to_owned()))
}

fn app_id(app: &str) -> Result<String, Invalid> {
    let is_id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    match app.len() {
        0 => Err(Invalid::new("app", "required")),
        length if length > MAX_APP_BYTES => Err(Invalid::new("app", "too_long")),
        _ if app.bytes().all(is_id) => Ok(app.to_owned()),
        _ => Err(Invalid::new("app", "invalid")),
    }
}

/// Version without blanks around it; none if it is empty.
fn version(text: &str) -> Result<Option<String>, Invalid> {
    let text = text.trim();
    if text.chars().nth(MAX_VERSION_CHARS).is_some() {
        return Err(Invalid::new("app_version", "too_long"));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new("app_version", "control_character"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(str::to_owned))
}

/// Decodes base64url, with or without padding, of exactly `N` bytes.
fn decoded<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], Invalid> {
    let invalid = Invalid::new(field, "invalid");
    // A text of another length costs nothing to decode.
    if text.len() > N * 2 {
        return Err(invalid);
    }
    let bytes = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).map_err(|_| invalid)?;
    bytes.try_into().map_err(|_| invalid)
}

/// Whether a URL is one of `https` without credentials and fragment, whose host is a name with a dot.
///
/// Such a name can resolve to a private address: the sender of Web Push checks the address when it connects.
fn is_endpoint(url: &str, allow_local: bool) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if rest.contains(['#', '\\', '"', '<', '>', '^', '`', '{', '|', '}']) || authority.contains('@') {
        return false;
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if !allow_local || address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", rest.strip_prefix(':').or(if rest.is_empty() { Some("443") } else { None }))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("443")),
        },
    };
    let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    is_port && (authority.starts_with('[') || is_host(host, allow_local))
}

fn is_host(host: &str, allow_local: bool) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.len() > 253 || !host.split('.').all(is_label) {
        return false;
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // A last label that is a number makes the whole host an IPv4 address (URL Standard, section 3.5).
    let is_address = last.starts_with(|c: char| c.is_ascii_digit());
    let is_local = is_address || !host.contains('.') || last.eq_ignore_ascii_case("localhost");
    allow_local || !is_local
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 65] = {
        let mut key = [7; 65];
        key[0] = 4;
        key
    };

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn parsed(destination: &NewDestination) -> Result<Destination, Invalid> {
        parse_destination(destination, &DevicePolicy::default())
    }

    fn apns(token: &str) -> Result<Destination, Invalid> {
        parsed(&NewDestination::Apns {
            token: secret(token),
            app: "org.example.app".to_owned(),
            sandbox: false,
        })
    }

    fn web_push(endpoint: &str, key: &str, auth: &str) -> Result<Destination, Invalid> {
        parsed(&NewDestination::WebPush { endpoint: secret(endpoint), key: secret(key), auth: secret(auth) })
    }

    #[test]
    fn apns_token_is_hexadecimal_and_in_lower_case() {
        let Ok(Destination::Apns { token, .. }) = apns(&"0aBC".repeat(16)) else { panic!("a token") };
        assert_eq!(*token.expose(), "0abc".repeat(16));
        for token in ["", "0a", &"0".repeat(65), &"0".repeat(514), &"g0".repeat(32), &" 0".repeat(32)] {
            assert_eq!(apns(token), Err(Invalid::new("token", "invalid")), "{token:?}");
        }
    }

    #[test]
    fn fcm_token_keeps_its_case() {
        let fcm = |token: &str, app: &str| {
            parsed(&NewDestination::Fcm { token: secret(token), app: app.to_owned() })
        };
        let Ok(Destination::Fcm { token, .. }) = fcm("dX:APA91_-b", "org.example") else { panic!("a token") };
        assert_eq!(token.expose(), "dX:APA91_-b");
        assert!(fcm(&"a".repeat(4096), &"a".repeat(255)).is_ok());
        assert_eq!(fcm("", "a"), Err(Invalid::new("token", "required")));
        assert_eq!(fcm(&"a".repeat(4097), "a"), Err(Invalid::new("token", "too_long")));
        assert_eq!(fcm("a b", "a"), Err(Invalid::new("token", "invalid")));
        assert_eq!(fcm("a", ""), Err(Invalid::new("app", "required")));
        assert_eq!(fcm("a", &"a".repeat(256)), Err(Invalid::new("app", "too_long")));
        assert_eq!(fcm("a", "a/b"), Err(Invalid::new("app", "invalid")));
    }

    #[test]
    fn keys_of_a_browser_have_their_lengths() {
        let (key, auth) = (BASE64URL_NOPAD.encode(&KEY), BASE64URL_NOPAD.encode(&[9; 16]));
        let url = "https://push.example.org/a";
        let Ok(Destination::WebPush { key: found, auth: secret, .. }) = web_push(url, &key, &auth) else {
            panic!("a subscription")
        };
        assert_eq!((found, secret.expose()), (KEY, &[9; 16]));
        assert!(web_push(url, &format!("{key}="), &format!("{auth}==")).is_ok(), "with padding");
        for key in
            ["", "a", &"a".repeat(500), &BASE64URL_NOPAD.encode(&[4; 64]), &BASE64URL_NOPAD.encode(&[2; 65])]
        {
            assert_eq!(
                web_push(url, key, &auth),
                Err(Invalid::new("subscription.keys.p256dh", "invalid")),
                "{key:?}"
            );
        }
        for auth in ["", "a b", &BASE64URL_NOPAD.encode(&[9; 15]), &BASE64URL_NOPAD.encode(&[9; 17])] {
            assert_eq!(
                web_push(url, &key, auth),
                Err(Invalid::new("subscription.keys.auth", "invalid")),
                "{auth:?}"
            );
        }
    }

    #[test]
    fn endpoint_is_a_public_https_url() {
        for url in [
            "https://fcm.googleapis.com/fcm/send/a:b-_c",
            "https://updates.push.services.mozilla.com/wpush/v2/gAAA",
            "https://web.push.apple.com",
            "https://wns2-par02p.notify.windows.com/w/?token=a%2fb",
            "https://push.example.org.:8443/a",
        ] {
            assert!(is_endpoint(url, false), "{url}");
        }
        for url in [
            "https://localhost/a",
            "https://push/a",
            "https://a.localhost/a",
            "https://127.0.0.1:8443/a",
            "https://10.1/a",
            "https://2130706433/",
            "https://a.0x7f/",
            "https://[::1]:8443/a",
        ] {
            assert!(!is_endpoint(url, false), "{url}");
            assert!(is_endpoint(url, true), "{url}");
        }
        for url in [
            "http://push.example.org/a",
            "HTTPS://push.example.org/a",
            "https:push.example.org",
            "https://",
            "https:///a",
            "https://user@push.example.org/",
            "https://user:secret@push.example.org/",
            "https://push.example.org\\@a.org/",
            "https://push.example.org/a#b",
            "https://push..org/",
            "https://push.example.org:0/",
            "https://push.example.org:65536/",
            "https://push.example.org:/",
            "https://push%2eexample.org/",
            "https://[::1/",
            "https://[::1]a/",
            "https://[push.example.org]/",
        ] {
            assert!(!is_endpoint(url, true), "{url}");
        }
    }

    #[test]
    fn unknown_locale_and_zone_are_ignored() {
        let device = |locale: &str, zone: &str, version: &str| NewDevice {
            destination: NewDestination::Fcm { token: secret("a"), app: "b".to_owned() },
            surface: Surface::Alert,
            locale: Some(locale.to_owned()),
            time_zone: Some(zone.to_owned()),
            app_version: Some(version.to_owned()),
        };
        let policy = DevicePolicy::default();
        let known = parse(&device("de_AT", "Europe/Vienna", " 1.2 (3) "), &policy).unwrap();
        assert_eq!(known.locale, Locale::matched("de-AT"));
        assert_eq!(known.time_zone, Some(TimeZoneName::from_stored("Europe/Vienna")));
        assert_eq!(known.app_version.as_deref(), Some("1.2 (3)"));
        let unknown = parse(&device("??", "Mars/Olympus", " "), &policy).unwrap();
        assert_eq!((unknown.locale, unknown.time_zone, unknown.app_version), (None, None, None));
        let long = device("de", "UTC", &"x".repeat(65));
        assert_eq!(parse(&long, &policy), Err(Invalid::new("app_version", "too_long")));
        let control = device("de", "UTC", "1\n2");
        assert_eq!(parse(&control, &policy), Err(Invalid::new("app_version", "control_character")));
        let widget = NewDevice { surface: Surface::Widget, ..device("de", "UTC", "1") };
        assert_eq!(parse(&widget, &policy), Err(Invalid::new("kind", "unsupported")));
    }

    #[test]
    fn debug_shows_no_address_and_no_secret() {
        let (key, auth) = (BASE64URL_NOPAD.encode(&KEY), BASE64URL_NOPAD.encode(&[9; 16]));
        let new = NewDestination::WebPush {
            endpoint: secret("https://push.example.org/planted"),
            key: secret(&key),
            auth: secret(&auth),
        };
        let parsed = parsed(&new).unwrap();
        for text in [format!("{new:?}"), format!("{parsed:?}")] {
            for hidden in ["planted", &key, &auth, "9, 9, 9"] {
                assert!(!text.contains(hidden), "{text}");
            }
        }
    }

    #[test]
    fn digest_is_of_service_and_address() {
        let fcm = |app: &str| Destination::Fcm { token: secret("aa"), app: app.to_owned() };
        let apns = Destination::Apns { token: secret("aa"), app: "a".to_owned(), sandbox: true };
        assert_eq!(fcm("a").digest(), fcm("b").digest());
        assert_ne!(fcm("a").digest(), apns.digest());
    }
}
