//! SMTP URL: parsing, and connecting to its server.

use std::{fmt, net::IpAddr, time::Duration};

use couple_core::{Error, ErrorKind};
use lettre::transport::smtp::{
    self,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Certificate, TlsParameters},
    extension::ClientId,
};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::smtp_failure::{Cause, Failure, Stage};

/// Maximum time to connect to one address of the server by TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Maximum time until a connection is ready: name resolution, TCP, TLS, greeting, EHLO and sign-in together.
///
/// Longer than the pause of some seconds by which servers before their greeting detect senders of spam.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// First line of a certificate in a PEM text (RFC 7468).
const BEGIN_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Encryption of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    /// No encryption.
    None,
    /// STARTTLS (RFC 3207) if the server offers it.
    Opportunistic,
    /// STARTTLS; without it the connection fails.
    Required,
    /// TLS from the first byte.
    Implicit,
}

/// Address, encryption and credentials of an SMTP server. `Debug` shows no credentials.
#[derive(Clone)]
pub(super) struct SmtpServer {
    host: String,
    port: u16,
    encryption: Encryption,
    /// Roots of [`SmtpServer::trust`], which `tls` trusts besides the built-in ones.
    roots: Vec<Certificate>,
    tls: TlsParameters,
    credentials: Option<Credentials>,
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({:?})", self.host, self.port, self.encryption)
    }
}

impl SmtpServer {
    /// Parses a URL as [`super::SmtpMailer::new`] documents it.
    ///
    /// Errors do not contain the URL, which may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::new(ErrorKind::Misconfigured, "SMTP URL").context(why);
        let url = Url::parse(url).map_err(|source| wrong("not a URL").source(source))?;
        // The URL standard keeps an IPv6 address in brackets.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let decode = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| wrong("user or password is not UTF-8"))
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) => Some(Credentials::new(decode(user)?, decode(password)?)),
            (_, None) => return Err(wrong("the password is missing: write USER:PASSWORD@HOST")),
        };
        let mut encryption = match url.scheme() {
            "smtps" => Encryption::Implicit,
            // Nothing is sent in clear text unless the URL says so.
            "smtp" => Encryption::Required,
            _ => return Err(wrong("write smtp://HOST or smtps://HOST")),
        };
        for (name, value) in url.query_pairs() {
            encryption = match (&*name, &*value, encryption) {
                ("tls", "required", Encryption::Implicit) => Encryption::Implicit,
                ("tls", _, Encryption::Implicit) => {
                    return Err(wrong("smtps:// is always encrypted: leave out ?tls="));
                }
                ("tls", "required", _) => Encryption::Required,
                ("tls", "opportunistic", _) => Encryption::Opportunistic,
                ("tls", "none", _) => Encryption::None,
                _ => return Err(wrong("the only option is ?tls=required, ?tls=opportunistic or ?tls=none")),
            };
        }
        let default_port = match encryption {
            Encryption::Implicit => 465,
            Encryption::Required | Encryption::Opportunistic => 587,
            Encryption::None => 25,
        };
        let tls =
            TlsParameters::new(host.clone()).map_err(|source| wrong("cannot use TLS").source(source))?;
        let (port, roots) = (url.port().unwrap_or(default_port), Vec::new());
        Ok(Self { host, port, encryption, roots, tls, credentials })
    }

    /// Trusts the certificates of a PEM text as roots, in addition to the built-in ones and those of earlier calls.
    pub(super) fn trust(&mut self, pem: &[u8]) -> Result<(), Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "SMTP root certificates");
        // The parser skips other parts, and accepts a text without any certificate.
        if !pem.windows(BEGIN_CERTIFICATE.len()).any(|part| part == BEGIN_CERTIFICATE) {
            return Err(wrong().context("the PEM text contains no certificate"));
        }
        let roots = Certificate::from_pem(pem)
            .map_err(|source| wrong().context("the PEM text is not valid").source(source))?;
        self.roots.push(roots);
        let tls = self.roots.iter().cloned().fold(
            TlsParameters::builder(self.host.clone()),
            smtp::client::TlsParametersBuilder::add_root_certificate,
        );
        self.tls =
            tls.build().map_err(|source| wrong().context("a certificate is not valid").source(source))?;
        Ok(())
    }

    /// Whether credentials may cross a network unencrypted.
    pub(super) fn sends_password_in_clear_text(&self) -> bool {
        let is_loopback = self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        let is_encrypted = matches!(self.encryption, Encryption::Required | Encryption::Implicit);
        self.credentials.is_some() && !is_encrypted && !is_loopback
    }

    /// Opens a connection that is encrypted as configured and signed in.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let (hello, deadline) = (ClientId::default(), Instant::now() + SETUP_TIMEOUT);
        let tls = (self.encryption == Encryption::Implicit).then(|| self.tls.clone());
        let server = (self.host.as_str(), self.port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), &hello, tls, None);
        let mut connection = until(deadline, Stage::Connect, connecting).await?;
        let starttls = match self.encryption {
            Encryption::Required => true,
            Encryption::Opportunistic => connection.can_starttls(),
            Encryption::None | Encryption::Implicit => false,
        };
        if starttls {
            until(deadline, Stage::StartTls, connection.starttls(self.tls.clone(), &hello)).await?;
        }
        if let Some(credentials) = &self.credentials {
            until(deadline, Stage::SignIn, connection.auth(DEFAULT_MECHANISMS, credentials)).await?;
        }
        Ok(connection)
    }
}

/// Result of a step of the conversation, or a failure at `deadline`.
pub(super) async fn until<T>(
    deadline: Instant,
    stage: Stage,
    step: impl Future<Output = Result<T, smtp::Error>>,
) -> Result<T, Failure> {
    match timeout_at(deadline, step).await {
        Ok(done) => done.map_err(|error| Failure { stage, cause: Cause::Smtp(error) }),
        Err(_) => Err(Failure { stage, cause: Cause::TimedOut }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_sets_port_encryption_and_credentials() {
        for (url, host, port, encryption, signs_in) in [
            ("smtp://relay.example", "relay.example", 587, Encryption::Required, false),
            ("smtp://relay.example:2525", "relay.example", 2525, Encryption::Required, false),
            ("smtp://relay.example?tls=none", "relay.example", 25, Encryption::None, false),
            (
                "smtp://relay.example?tls=opportunistic",
                "relay.example",
                587,
                Encryption::Opportunistic,
                false,
            ),
            ("smtp://relay.example/?tls=required", "relay.example", 587, Encryption::Required, false),
            (
                "smtp://ana%40x.example:p%3Ass%2Fword@relay.example",
                "relay.example",
                587,
                Encryption::Required,
                true,
            ),
            ("smtp://ana:secret@relay.example:25?tls=none", "relay.example", 25, Encryption::None, true),
            ("smtps://ana:secret@relay.example", "relay.example", 465, Encryption::Implicit, true),
            ("smtp://[::1]:2525?tls=none", "::1", 2525, Encryption::None, false),
        ] {
            let server = SmtpServer::parse(url).unwrap();
            assert_eq!((&*server.host, server.port, server.encryption), (host, port, encryption), "{url}");
            assert_eq!(server.credentials.is_some(), signs_in, "{url}");
            assert!(!format!("{server:?}").contains("secret"), "{server:?}");
        }
        let expected = Credentials::new("ana@x.example".to_owned(), "p:ss/word".to_owned());
        let server = SmtpServer::parse("smtp://ana%40x.example:p%3Ass%2Fword@relay.example").unwrap();
        assert!(server.credentials == Some(expected));
    }

    #[test]
    fn password_in_clear_text_is_detected_except_to_loopback() {
        let noticed = |url| SmtpServer::parse(url).unwrap().sends_password_in_clear_text();
        assert!(noticed("smtp://ana:secret@relay.example?tls=none"));
        assert!(noticed("smtp://ana:secret@relay.example?tls=opportunistic"));
        assert!(!noticed("smtp://ana:secret@relay.example"));
        assert!(!noticed("smtps://ana:secret@relay.example"));
        assert!(!noticed("smtp://relay.example"));
        assert!(!noticed("smtp://ana:secret@127.0.0.1?tls=none"));
        assert!(!noticed("smtp://ana:secret@[::1]?tls=none"));
    }

    #[test]
    fn invalid_url_is_refused_without_showing_it() {
        for url in [
            "",
            "relay.example",
            "http://ana:secret@relay.example",
            "smtp://",
            "smtp://ana@relay.example",
            "smtp://ana:secret@relay.example?tls=maybe",
            "smtp://ana:secret@relay.example?pool=7",
            "smtps://ana:secret@relay.example?tls=none",
        ] {
            let error = SmtpServer::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
