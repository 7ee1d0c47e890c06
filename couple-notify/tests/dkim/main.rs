//! Signatures of mails, verified by `dkimpy`, which `tests/clients/install` installs, with its DNS replaced.

#![cfg(all(feature = "dkim", feature = "server-tests"))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{io::Write as _, path::PathBuf, process::Stdio};

use couple_core::{
    EmailAddress, Locale, Secret, Timestamp,
    mail::{Lifetimes, Mail, MailText, Mailer as _, Message},
};
use couple_notify::mail::{DkimKey, FileMailer, Letterhead};
use serde_json::{Value, json};

const ED25519: &str = include_str!("ed25519.pem");
const RSA: &str = include_str!("rsa.pem");

fn text(subject: &str, text: &str, html: Option<&str>) -> Message {
    let text = MailText { subject: subject.to_owned(), text: text.to_owned(), html: html.map(str::to_owned) };
    Message::Custom { name: "test".to_owned(), text }
}

fn mail(id: usize, message: Message) -> Mail {
    Mail {
        id: id.to_string(),
        to: EmailAddress::parse("email", "zoe@example.org").unwrap(),
        locale: Locale::matched("ar"),
        at: Timestamp::from_micros(1_767_225_600_000_000),
        message,
    }
}

fn keys() -> [DkimKey; 2] {
    [DkimKey::new("example.net", "s1", ED25519), DkimKey::new("example.net", "S2.Mail", RSA)]
        .map(Result::unwrap)
}

/// Texts of mails that are signed with both keys.
async fn signed() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut letterhead = Letterhead::new("Zwei Herzen – für uns zwei", "app@mail.example.net").unwrap();
    for key in keys() {
        letterhead = letterhead.with_dkim(key);
    }
    let mailer = FileMailer::new(folder.path(), letterhead).unwrap();
    let lifetimes =
        Lifetimes { code: std::time::Duration::from_mins(10), link: std::time::Duration::from_hours(24) };
    let (code, link) = (Secret::new("123456".to_owned()), Secret::new("https://x/open/verify#a".to_owned()));
    let messages = [
        Message::ConfirmSignUp { code, link, lifetimes },
        text("Hello", "Hello.\n", None),
        text("Spaces", "  a \t b  \n\n c\t\n\n\n", Some("<p>a  b</p>\n\n")),
        text(&"Grüße 👋 ".repeat(20), &format!("{}\n.\n..ä\n", "ü".repeat(300)), Some("<p>日本語</p>")),
        text("Empty", "", None),
    ];
    let mut texts = Vec::new();
    for (id, message) in messages.into_iter().enumerate() {
        mailer.send(&mail(id, message)).await.unwrap();
        texts.push(std::fs::read_to_string(folder.path().join(format!("{id}.eml"))).unwrap());
    }
    texts
}

/// Results of `dkimpy` for each signature of each message.
fn verify(messages: &[String]) -> Vec<Vec<bool>> {
    let installed = std::env::var_os("COUPLE_TEST_CLIENTS").map(PathBuf::from);
    let installed = installed
        .expect("COUPLE_TEST_CLIENTS is not set: ./test runs tests/clients/install FOLDER and sets it");
    let [ed25519, rsa] = keys().map(|key| key.dns_record());
    let records = json!({ "s1._domainkey.example.net.": ed25519, "s2.mail._domainkey.example.net.": rsa });
    let mut process = std::process::Command::new(installed.join("venv/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dkim/verify.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = json!({ "records": records, "messages": messages });
    process.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn signatures_of_both_keys_are_valid_and_cover_each_header_and_the_body() {
    let mails = signed().await;
    for mail in &mails {
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.matches("DKIM-Signature: ").count(), 2, "{head}");
        assert!(head.lines().all(|line| line.len() <= 76) && mail.is_ascii(), "{head}");
    }
    assert_eq!(verify(&mails), vec![vec![true, true]; mails.len()]);

    // One change of each signed part breaks both signatures.
    let mail = &mails[0];
    let changed: Vec<_> = [
        ("From: ", "From: x"),
        ("\r\nTo: zoe@", "\r\nTo: ana@"),
        ("\r\nSubject: ", "\r\nSubject: x"),
        ("\r\nDate: ", "\r\nDate: x"),
        ("\r\nMessage-ID: <0", "\r\nMessage-ID: <1"),
        ("\r\nAuto-Submitted: auto", "\r\nAuto-Submitted: not"),
        ("\r\nContent-Type: multipart/alternative", "\r\nContent-Type: multipart/mixed"),
        ("\r\nMIME-Version: 1.0", "\r\nMIME-Version: 1.1"),
        ("\r\nContent-Language: ar", "\r\nContent-Language: en"),
        ("\r\n\r\n--", "\r\n\r\nx\r\n--"),
        // A second header of the kind, which some programs would show.
        ("\r\nTo: ", "\r\nSubject: other\r\nTo: "),
        ("\r\nTo: ", "\r\nReply-To: eve@example.com\r\nTo: "),
        ("\r\nTo: ", "\r\nFrom: eve@example.com\r\nTo: "),
    ]
    .map(|(from, to)| {
        assert!(mail.contains(from), "{from:?} is missing: {mail}");
        mail.replacen(from, to, 1)
    })
    .into();
    let results = verify(&changed);
    for (mail, result) in changed.iter().zip(results) {
        assert_eq!(result, [false, false], "{mail}");
    }

    // What relays add and change is not signed.
    let relayed = format!(
        "Received: by relay\r\n{}",
        mails[2].replacen("\r\nTo: zoe@example.org", "\r\nto:  zoe@example.org ", 1)
    );
    assert_eq!(verify(&[relayed]), [[true, true]]);
}

#[test]
fn results_of_the_verifier_are_those_of_its_input() {
    let value: Value = json!(verify(&["Subject: unsigned\r\n\r\nHello.\r\n".to_owned()]));
    assert_eq!(value, json!([[]]));
}
