//! Signatures of mails by their sender's domain (DKIM, RFC 6376).

use std::{fmt, sync::Arc};

use couple_core::{Error, ErrorKind};
use data_encoding::BASE64;
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

/// Headers that are signed if a mail has them.
///
/// Those that a relay may change (`Received`, `Return-Path`, `Bcc`) are not among them. `List-Unsubscribe-Post` works only if it is signed (RFC
/// 8058, 3.1).
const SIGNED: [&str; 14] = [
    "from",
    "to",
    "cc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-language",
];
/// Number of the first headers of [`SIGNED`] that are named once more than the mail has them: a further one that is added on the way breaks the
/// signature (RFC 6376, 8.15).
const SEALED: usize = 7;
/// Longest part of a base64 text in one line of a header.
const MAX_BASE64_LINE: usize = 70;
/// Algorithm identifier `rsaEncryption` in DER (RFC 8017, A.1).
const RSA_ENCRYPTION: [u8; 15] =
    [0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00];

enum Key {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Key that signs mails for a domain. Clones share it; `Debug` does not show it.
///
/// Receivers find the public key in the TXT record `SELECTOR._domainkey.DOMAIN`, whose content is [`dns_record`](Self::dns_record). The domain must
/// be that of the sender's address, or a parent domain of it, for DMARC (RFC 7489, 3.1.1).
#[derive(Clone)]
pub struct DkimKey {
    domain: String,
    selector: String,
    key: Arc<Key>,
}

impl fmt::Debug for DkimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DkimKey")
            .field("domain", &self.domain)
            .field("selector", &self.selector)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

impl DkimKey {
    /// Creates a key of `domain` from a private key in PEM format.
    ///
    /// The private key is RSA of 2048 to 4096 bits (`openssl genrsa 2048`) or Ed25519 (`openssl genpkey -algorithm ed25519`). `selector` and
    /// `domain` are domain names in ASCII; an internationalized domain is written in A-labels.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if an argument is not valid. The message does not contain the key.
    pub fn new(domain: &str, selector: &str, private_key: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::new(ErrorKind::Misconfigured, "DKIM key").context(why);
        for (what, name) in [("domain", domain), ("selector", selector)] {
            if !is_domain_name(name) {
                return Err(wrong(format!("the {what} {name:?} is not a domain name in ASCII")));
            }
        }
        let der = PrivateKeyDer::from_pem_slice(private_key.as_bytes()).map_err(|_| {
            wrong(
                "it must be a private key in PEM format, with BEGIN PRIVATE KEY or BEGIN RSA PRIVATE KEY"
                    .into(),
            )
        })?;
        let key = match &der {
            // OpenSSL writes Ed25519 keys without the public key (RFC 8410, 7).
            PrivateKeyDer::Pkcs8(der) => {
                match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()) {
                    Ok(key) => Ok(Key::Ed25519(key)),
                    Err(_) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map(Key::Rsa),
                }
            }
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Key::Rsa),
            _ => return Err(wrong("the key is neither RSA nor Ed25519".into())),
        };
        let key =
            key.map_err(|error| wrong(format!("it must be Ed25519, or RSA of 2048 to 4096 bits: {error}")))?;
        Ok(Self {
            domain: domain.to_ascii_lowercase(),
            selector: selector.to_ascii_lowercase(),
            key: Arc::new(key),
        })
    }

    /// Content of the TXT record `SELECTOR._domainkey.DOMAIN`, with the public key.
    #[must_use]
    pub fn dns_record(&self) -> String {
        let (name, public) = match &*self.key {
            Key::Rsa(key) => ("rsa", subject_public_key_info(key.public_key().as_ref())),
            Key::Ed25519(key) => ("ed25519", key.public_key().as_ref().to_vec()),
        };
        format!("v=DKIM1; k={name}; p={}", BASE64.encode(&public))
    }

    fn algorithm(&self) -> &'static str {
        match &*self.key {
            Key::Rsa(_) => "rsa-sha256",
            Key::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// The header `DKIM-Signature` of a message, with its line end. Headers and body are canonicalized as `relaxed`.
    pub(super) fn signature(&self, message: &str) -> Result<String, Error> {
        let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
        let headers = headers(head);
        let (mut names, mut signed) = (Vec::new(), String::new());
        for (at, name) in SIGNED.into_iter().enumerate() {
            // The last header of a name is signed first (RFC 6376, 5.4.2).
            for (_, value) in headers.iter().rev().filter(|(found, _)| found == name) {
                names.push(name);
                signed.push_str(&canonical_header(name, value));
                signed.push_str("\r\n");
            }
            if at < SEALED {
                names.push(name);
            }
        }
        let mut header = format!(
            "DKIM-Signature: v=1; a={}; c=relaxed/relaxed;\r\n d={}; s={};\r\n h=",
            self.algorithm(),
            self.domain,
            self.selector
        );
        header.push_str(&fold(&names));
        let body_hash = BASE64.encode(digest(&SHA256, canonical_body(body).as_bytes()).as_ref());
        header.push_str(&format!(";\r\n bh={body_hash};\r\n b="));
        let value = header.split_once(':').map_or("", |(_, value)| value);
        signed.push_str(&canonical_header("dkim-signature", value));
        header.push_str(&self.sign(signed.as_bytes())?);
        header.push_str("\r\n");
        Ok(header)
    }

    /// Signature of a text in base64, in several lines.
    fn sign(&self, text: &[u8]) -> Result<String, Error> {
        let signature = match &*self.key {
            // The key signs the hash, not the text (RFC 8463, 3).
            Key::Ed25519(key) => key.sign(digest(&SHA256, text).as_ref()).as_ref().to_vec(),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
                    .map_err(|_| Error::new(ErrorKind::Internal, "sign mail"))?;
                signature
            }
        };
        let text = BASE64.encode(&signature);
        let lines: Vec<_> =
            text.as_bytes().chunks(MAX_BASE64_LINE).map(|line| String::from_utf8_lossy(line)).collect();
        Ok(lines.join("\r\n "))
    }
}

fn is_domain_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Names in lower case and values of headers, with the line breaks inside of values.
fn headers(head: &str) -> Vec<(String, &str)> {
    let mut headers = Vec::new();
    let mut rest = head;
    while let Some((name, _)) = rest.split_once(':') {
        let value = &rest[name.len() + 1..];
        // A line that begins with white space continues the value.
        let end = value
            .match_indices("\r\n")
            .find(|(at, _)| !value[at + 2..].starts_with([' ', '\t']))
            .map_or(value.len(), |(at, _)| at);
        headers.push((name.trim_end().to_ascii_lowercase(), &value[..end]));
        rest = value[end..].strip_prefix("\r\n").unwrap_or("");
    }
    headers
}

/// A header in the form `relaxed` (RFC 6376, 3.4.2), without its line end.
fn canonical_header(name: &str, value: &str) -> String {
    let words: Vec<_> = value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect();
    format!("{name}:{}", words.join(" "))
}

/// A body in the form `relaxed` (RFC 6376, 3.4.4).
fn canonical_body(body: &str) -> String {
    let mut canonical = String::with_capacity(body.len());
    // Characters up to the end of the last line that is not empty.
    let mut end = 0;
    for line in body.split("\r\n") {
        let mut is_space = false;
        for c in line.trim_end_matches([' ', '\t']).chars() {
            match c {
                ' ' | '\t' => is_space = true,
                c => {
                    if std::mem::take(&mut is_space) {
                        canonical.push(' ');
                    }
                    canonical.push(c);
                    end = canonical.len();
                }
            }
        }
        canonical.push_str("\r\n");
    }
    canonical.truncate(end);
    if end > 0 {
        canonical.push_str("\r\n");
    }
    canonical
}

/// Names of signed headers with colons between them, in several lines.
fn fold(names: &[&str]) -> String {
    let (mut text, mut width) = (String::new(), 3);
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            text.push(':');
            width += 1;
        }
        if width + name.len() > MAX_BASE64_LINE {
            text.push_str("\r\n ");
            width = 1;
        }
        text.push_str(name);
        width += name.len();
    }
    text
}

/// An RSA public key (PKCS #1) in the form that TXT records have: `SubjectPublicKeyInfo` (RFC 5280, 4.1).
fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    // A bit string begins with the number of unused bits.
    let bits = der(0x03, &[&[0], key].concat());
    der(0x30, &[&RSA_ENCRYPTION[..], &bits].concat())
}

/// A value of up to 65,535 bytes in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let length = match (high, low) {
        (0, ..0x80) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_those_of_the_rfc() {
        // RFC 6376, 3.4.5.
        let message = "A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n";
        let (head, body) = message.split_once("\r\n\r\n").unwrap();
        let headers: Vec<_> =
            headers(head).iter().map(|(name, value)| canonical_header(name, value)).collect();
        assert_eq!(headers, ["a:X", "b:Y Z"]);
        assert_eq!(canonical_body(body), " C\r\nD E\r\n");
        for (body, canonical) in [
            ("", ""),
            ("\r\n\r\n", ""),
            (" \t\r\n", ""),
            ("a", "a\r\n"),
            ("a\r\n\r\nb \r\n", "a\r\n\r\nb\r\n"),
        ] {
            assert_eq!(canonical_body(body), canonical, "{body:?}");
        }
    }

    #[test]
    fn invalid_key_is_refused_without_showing_it() {
        let ed25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        assert!(DkimKey::new("example.org", "a.b_c-1", ed25519).is_ok());
        for (domain, selector, key) in [
            ("", "s", ed25519),
            ("grüße.example", "s", ed25519),
            ("example.org\r\nX: y", "s", ed25519),
            ("example.org", "", ed25519),
            ("example.org", "a b", ed25519),
            ("example.org", "a;b", ed25519),
            ("example.org", "s", ""),
            ("example.org", "s", "secret"),
            ("example.org", "s", &ed25519.replace("cCAQAw", "secret").replace("MC4", "MC5")),
        ] {
            let error = DkimKey::new(domain, selector, key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn public_key_of_rfc_8463_is_published() {
        // RFC 8463, A.1 and A.2.
        let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let key = DkimKey::new("football.example.com", "brisbane", key).unwrap();
        assert_eq!(key.dns_record(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }
}
