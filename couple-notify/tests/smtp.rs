//! SMTP against a server of the test's own, which answers as it is told.

#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::sync::{Arc, Mutex};

use couple_core::{
    EmailAddress, ErrorKind, Timestamp,
    mail::{Mail, Mailer as _, Message},
};
use couple_notify::mail::{Letterhead, SmtpMailer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

/// Serves one connection after another; answers the end of each mail with `verdict`, and keeps what it was told.
async fn server(verdict: &'static str) -> (SmtpMailer, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let told = Arc::new(Mutex::new(String::new()));
    let kept = told.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 test\r\n").await.unwrap();
            let mut in_mail = false;
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                let answer = match line.split(' ').next().unwrap_or("") {
                    "." if in_mail => {
                        in_mail = false;
                        verdict
                    }
                    _ if in_mail => continue,
                    "EHLO" => "250-test\r\n250 8BITMIME",
                    "DATA" => {
                        in_mail = true;
                        "354 go on"
                    }
                    "QUIT" => "221 bye",
                    _ => "250 fine",
                };
                if write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (SmtpMailer::new(&url, Letterhead::new("App", "app@example.net").unwrap()).unwrap(), told)
}

fn mail() -> Mail {
    Mail {
        id: "17".to_owned(),
        to: EmailAddress::parse("email", "Zoe+x@münchen.example").unwrap(),
        locale: None,
        at: Timestamp::default(),
        message: Message::PasswordChanged,
    }
}

#[tokio::test]
async fn what_is_taken_is_sent_once_with_its_id() {
    let (mailer, told) = server("250 taken").await;
    mailer.send(&mail()).await.unwrap();
    let told = told.lock().unwrap().clone();
    assert!(told.contains("RCPT TO:<Zoe+x@xn--mnchen-3ya.example>"), "{told}");
    assert!(told.contains("Message-ID: <17@example.net>"), "{told}");
    assert_eq!(told.matches("RCPT TO").count(), 1);
}

#[tokio::test]
async fn four_hundreds_are_worth_another_try_and_five_hundreds_are_not() {
    let (mailer, _) = server("451 later").await;
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let (mailer, _) = server("550 never").await;
    assert_eq!(mailer.send(&mail()).await.unwrap_err().kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn nobody_there_is_worth_another_try_and_a_wrong_url_is_said() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mailer = SmtpMailer::new(&format!("smtp://{closed}"), Letterhead::default()).unwrap();
    assert!(mailer.send(&mail()).await.unwrap_err().is_retryable());
    let wrong = SmtpMailer::new("http://u:hidden@example.net", Letterhead::default()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Misconfigured);
    assert!(!wrong.to_string().contains("hidden"), "{wrong}");
}
