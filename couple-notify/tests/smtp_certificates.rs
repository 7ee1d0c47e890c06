//! `SmtpMailer` against TLS servers with valid and invalid certificates, which are made for each test.

#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../tests/support/smtp_server.rs"]
mod smtp_server;

use std::{sync::Arc, time::Duration};

use couple_core::{
    EmailAddress, ErrorKind, Timestamp,
    mail::{Mail, Mailer as _, Message},
};
use couple_notify::mail::{Letterhead, SmtpMailer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use smtp_server::{Encryption, Script, SmtpServer};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// Certificate authority, which no client trusts unless it is configured.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Server with a certificate of this authority, which is valid in these years.
    fn server(&self, host: &str, years: [i32; 2]) -> TlsAcceptor {
        let (key, params) = (KeyPair::generate().unwrap(), leaf(host, years));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(&certificate, &key)
    }
}

fn leaf(host: &str, [from, until]: [i32; 2]) -> CertificateParams {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    params
}

fn self_signed(host: &str) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    acceptor(&leaf(host, VALID).self_signed(&key).unwrap(), &key)
}

fn acceptor(certificate: &rcgen::Certificate, key: &KeyPair) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

const VALID: [i32; 2] = [2020, 4000];

/// Result of one mail to a server: the error, and all commands that the server could read.
async fn send(
    acceptor: &TlsAcceptor,
    scheme: &str,
    options: &str,
    roots: &[&Authority],
) -> (Result<(), couple_core::Error>, String) {
    let encryption = match scheme {
        "smtps" => Encryption::Implicit(acceptor.clone()),
        _ => Encryption::StartTls(acceptor.clone()),
    };
    let server = SmtpServer::scripted(Script { encryption, ..Script::default() }).await;
    let url = format!("{scheme}://ana:secret@localhost:{}{options}", server.address.port());
    let mut mailer = SmtpMailer::new(&url, Letterhead::default()).unwrap();
    for roots in roots {
        mailer = mailer.with_root_certificates(roots.pem.as_bytes()).unwrap();
    }
    let mail = Mail {
        id: "17".to_owned(),
        to: EmailAddress::parse("email", "zoe@example.org").unwrap(),
        locale: None,
        at: Timestamp::default(),
        message: Message::PasswordChanged,
    };
    let sent = mailer.send(&mail).await;
    (sent, server.lines())
}

/// Every way to encrypt a connection: URL scheme and options.
const WAYS: [(&str, &str); 4] =
    [("smtps", ""), ("smtp", ""), ("smtp", "?tls=required"), ("smtp", "?tls=opportunistic")];

#[tokio::test]
async fn valid_certificate_of_a_configured_authority_is_accepted() {
    let authority = Authority::new();
    let server = authority.server("localhost", VALID);
    for (scheme, options) in WAYS {
        let (sent, commands) = send(&server, scheme, options, &[&authority]).await;
        sent.unwrap_or_else(|error| panic!("{scheme}{options}: {error:?}"));
        assert!(
            commands.contains("AUTH PLAIN") && commands.contains("RCPT TO:<zoe@example.org>"),
            "{commands}"
        );
    }
}

#[tokio::test]
async fn certificates_of_several_calls_are_all_trusted() {
    let authorities = [Authority::new(), Authority::new(), Authority::new()];
    let roots = authorities.each_ref();
    for authority in roots {
        let (sent, _) = send(&authority.server("localhost", VALID), "smtps", "", &roots).await;
        sent.unwrap();
    }
}

#[tokio::test]
async fn invalid_certificate_is_refused_before_the_sign_in_and_the_mail_waits_for_an_operator() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (what, server, roots) in [
        ("self-signed", self_signed("localhost"), &[&authority][..]),
        ("of an unknown authority", authority.server("localhost", VALID), &[]),
        ("of another authority", other.server("localhost", VALID), &[&authority][..]),
        ("of another host", authority.server("mail.example.org", VALID), &[&authority][..]),
        ("of a subdomain", authority.server("sub.localhost", VALID), &[&authority][..]),
        ("expired", authority.server("localhost", [2020, 2021]), &[&authority][..]),
        ("not valid yet", authority.server("localhost", [3999, 4000]), &[&authority][..]),
    ] {
        for (scheme, options) in WAYS {
            let (sent, commands) = send(&server, scheme, options, roots).await;
            let error = sent.expect_err(&format!("a certificate {what} is accepted: {scheme}{options}"));
            assert!(error.is_retryable(), "{what}: {error}");
            // As after a 5xx reply.
            assert!(
                error.deferral().is_some_and(|delay| delay > Duration::from_secs(20)),
                "{what}: {error:?}"
            );
            assert!(!commands.contains("AUTH") && !commands.contains("MAIL"), "{what}: {commands}");
        }
    }
}

#[tokio::test]
async fn root_certificates_must_be_a_pem_text_with_a_certificate() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "certificate", &key, "-----BEGIN CERTIFICATE-----\nAAAA", broken] {
        let mailer = SmtpMailer::new("smtps://relay.example", Letterhead::default()).unwrap();
        let error = mailer.with_root_certificates(pem.as_bytes()).expect_err(pem);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{pem}");
    }
}
