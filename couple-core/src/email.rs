//! E-mail addresses: the address as typed, and the normalised key that identifies it.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

use crate::{Invalid, text::is_invisible};

/// Normalised key of an e-mail address: ASCII, at most 254 bytes, compared byte by byte.
///
/// The domain is in A-labels and lower case, the local part in ASCII lower case. Dots and plus-tags stay,
/// because only the mail host knows their meaning.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EmailKey(String);

impl EmailKey {
    /// Wraps a stored key without checking it.
    pub fn from_stored(key: impl Into<String>) -> Self {
        Self(key.into())
    }
    /// Key as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EmailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailKey(…)")
    }
}

/// E-mail address as its owner typed it, with its key. `Debug` hides the address; `Display` shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailAddress {
    address: String,
    key: EmailKey,
}

impl EmailAddress {
    /// Checks an address and computes its key.
    ///
    /// Accepts the addresses that public mail hosts accept: an unquoted ASCII local part of at most 64 bytes
    /// (RFC 5321, 4.5.3.1.1) and a domain name of at least two labels that is valid in IDNA (UTS 46, STD3
    /// rules).
    ///
    /// # Errors
    /// [`Invalid`] with `required`, `too_long`, `control_character` or `invalid`.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let invalid = Invalid::new(field, "invalid");
        if text.len() > 1024 {
            return Err(Invalid::new(field, "too_long"));
        }
        // Remove characters that are often copied with an address: line ends, no-break spaces, byte order and
        // direction marks.
        let text = text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
        if text.is_empty() {
            return Err(Invalid::new(field, "required"));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid::new(field, "control_character"));
        }
        let (local, domain) = text.rsplit_once('@').ok_or(invalid)?;
        if !is_dot_atom(local) || local.len() > 64 {
            return Err(invalid);
        }
        // Refuse characters that IDNA would silently map to ASCII (full-width letters, Kelvin sign): two
        // different inputs would become one address.
        if domain.chars().any(|c| !c.is_ascii() && folds_to_ascii(c)) {
            return Err(invalid);
        }
        let nfc: String = domain.nfc().collect();
        let ascii = idna::domain_to_ascii_strict(&nfc).map_err(|_| invalid)?;
        // Do not store characters that IDNA ignores, such as a soft hyphen.
        let domain = if nfc.is_ascii() { nfc } else { idna::domain_to_unicode(&ascii).0 };
        let numeric = ascii.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
        if !ascii.contains('.') || numeric {
            return Err(invalid);
        }
        let key = format!("{}@{ascii}", local.to_ascii_lowercase());
        if key.len() > 254 {
            return Err(Invalid::new(field, "too_long"));
        }
        Ok(Self { address: format!("{local}@{domain}"), key: EmailKey(key) })
    }

    /// Combines a stored address and its key without checking them.
    pub fn from_stored(address: impl Into<String>, key: EmailKey) -> Self {
        Self { address: address.into(), key }
    }
    /// Address as typed, trimmed. A domain with non-ASCII characters is in its canonical form (UTS 46).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.address
    }
    /// Key that identifies the address.
    #[must_use]
    pub const fn key(&self) -> &EmailKey {
        &self.key
    }
    /// Address for SMTP: the local part as typed, the domain in A-labels, as RFC 5321 requires.
    #[must_use]
    pub fn mailbox(&self) -> String {
        let local = self.address.rsplit_once('@').map_or("", |(local, _)| local);
        let domain = self.key.0.rsplit_once('@').map_or("", |(_, domain)| domain);
        format!("{local}@{domain}")
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(…)")
    }
}

/// Whether a local part is a dot-atom (RFC 5322, 3.2.3).
fn is_dot_atom(local: &str) -> bool {
    !local.is_empty()
        && local.split('.').all(|atom| {
            !atom.is_empty()
                && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
        })
}

fn folds_to_ascii(c: char) -> bool {
    std::iter::once(c).nfkc().flat_map(char::to_lowercase).all(|folded| folded.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<String, &'static str> {
        EmailAddress::parse("email", text).map(|e| e.key.0).map_err(|e| e.code)
    }

    #[test]
    fn equal_addresses_have_one_key() {
        for (text, expected) in [
            (" Ana.Lu+app@Example.COM ", "ana.lu+app@example.com"),
            ("zoe@münchen.de", "zoe@xn--mnchen-3ya.de"),
            ("zoe@MÜNCHEN.de", "zoe@xn--mnchen-3ya.de"),
            ("zoe@xn--mnchen-3ya.de", "zoe@xn--mnchen-3ya.de"),
            ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah"),
        ] {
            assert_eq!(key(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["\u{A0}a@b.de\u{A0}", "\na@b.de\r\n", "\u{FEFF}a@b.de\u{200E}", "\u{2068}a@b.de\u{2069}"]
        {
            let email = EmailAddress::parse("email", text).unwrap();
            assert_eq!((email.as_str(), email.key().as_str()), ("a@b.de", "a@b.de"), "{text:?}");
        }
        let zoe = EmailAddress::parse("email", "Zoe@münchen.de").unwrap();
        assert_eq!(zoe.as_str(), "Zoe@münchen.de");
        assert_eq!(zoe.mailbox(), "Zoe@xn--mnchen-3ya.de");
    }

    #[test]
    fn invalid_address_is_refused() {
        for text in [
            "a",
            "a@",
            "@b.c",
            "a@b",
            "a b@c.de",
            "\"a b\"@c.de",
            "ä@c.de",
            "a@-c.de",
            "a@c-.de",
            "a@c..de",
            ".a@c.de",
            "a.@c.de",
            "a..b@c.de",
            "a@c_d.de",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@c.de.",
            "a@\u{FF45}xample.com",
            "a@\u{212A}.de",
            "\u{212A}@c.de",
            "a\u{131}@c.de",
            "a<b@c.de",
            "a,b@c.de",
            "a@c.de,b@c.de",
        ] {
            assert_eq!(key(text), Err("invalid"), "{text}");
        }
        assert_eq!(key(""), Err("required"));
        assert_eq!(key("a\u{0}@c.de"), Err("control_character"));
        assert_eq!(key("a@c.de\r\nBcc: x@y.de"), Err("control_character"));
        assert_eq!(key(&format!("{}@c.de", "a".repeat(65))), Err("invalid"));
        assert_eq!(key(&format!("a@{}de", "abcdefgh.".repeat(30))), Err("invalid"));
        assert_eq!(key(&format!("{}@{}de", "a".repeat(64), "abcdefgh.".repeat(27))), Err("too_long"));
    }

    #[test]
    fn invisible_characters_of_a_domain_are_not_stored() {
        for text in [
            "a@mün\u{AD}chen.de",
            "a@mün\u{200B}chen.de",
            "a@exa\u{AD}mple.org",
            "a@exa\u{FE0F}mple.org",
            "a@exa\u{2060}mple.org",
        ] {
            if let Ok(email) = EmailAddress::parse("email", text) {
                assert!(!email.as_str().chars().any(is_invisible), "{text:?}");
                assert_eq!(EmailAddress::parse("email", email.as_str()).as_ref(), Ok(&email), "{text:?}");
            }
        }
        assert_eq!(key("a@mün\u{AD}chen.de").as_deref(), Ok("a@xn--mnchen-3ya.de"));
    }
}
