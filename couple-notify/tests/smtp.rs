//! `SmtpMailer` against a scripted server.

#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

use couple_core::{
    DisplayName, EmailAddress, ErrorKind, Label, Secret, Timestamp,
    mail::{Mail, Mailer as _, Message},
};
use couple_notify::mail::{Letterhead, SmtpMailer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

/// Server that answers the end of each mail with `verdict`.
async fn server(verdict: &'static str) -> (SmtpMailer, Arc<Mutex<String>>) {
    scripted("", &[(".", verdict)]).await
}

/// Serves one connection after another and records the commands.
///
/// `answers` replaces the reply to a command, including `GREETING` and `.` (the end of a mail); `credentials` is the part of the URL before
/// the host.
async fn scripted(
    credentials: &str,
    answers: &[(&'static str, &'static str)],
) -> (SmtpMailer, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{credentials}{}?tls=none", listener.local_addr().unwrap());
    let answers = answers.to_vec();
    let answer_to = move |command: &str, otherwise: &'static str| {
        answers.iter().find(|(known, _)| *known == command).map_or(otherwise, |&(_, answer)| answer)
    };
    let told = Arc::new(Mutex::new(String::new()));
    let kept = told.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let greeting = answer_to("GREETING", "220 test");
            write.write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
            let mut in_mail = false;
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                let command = line.split(' ').next().unwrap_or("");
                let answer = match command {
                    "." if in_mail => {
                        in_mail = false;
                        answer_to(".", "250 taken")
                    }
                    _ if in_mail => continue,
                    "EHLO" => answer_to("EHLO", "250-test\r\n250 AUTH PLAIN"),
                    "AUTH" => answer_to("AUTH", "235 welcome"),
                    "DATA" => {
                        let answer = answer_to("DATA", "354 go ahead");
                        in_mail = answer.starts_with('3');
                        answer
                    }
                    "QUIT" => "221 bye",
                    other => answer_to(other, "250 fine"),
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
async fn accepted_mail_is_sent_once_with_its_id() {
    let (mailer, told) = server("250 taken").await;
    mailer.send(&mail()).await.unwrap();
    let told = told.lock().unwrap().clone();
    assert!(told.contains("RCPT TO:<Zoe+x@xn--mnchen-3ya.example>"), "{told}");
    assert!(told.contains("Message-ID: <17@example.net>"), "{told}");
    assert_eq!(told.matches("RCPT TO").count(), 1);
}

#[tokio::test]
async fn replies_of_4xx_are_retried_and_of_5xx_are_final() {
    let (mailer, _) = server("451 later").await;
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let (mailer, _) = server("550 never").await;
    assert_eq!(mailer.send(&mail()).await.unwrap_err().kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn only_a_refusal_of_recipient_or_content_is_final() {
    let final_answers: &[&[(&str, &str)]] = &[
        &[("RCPT", "550 5.1.1 no such user")],
        &[("RCPT", "553 5.1.3 invalid mailbox")],
        &[("DATA", "554 no valid recipients")],
        &[(".", "552 5.3.4 too large")],
        &[(".", "554 5.6.0 refused")],
    ];
    for answers in final_answers {
        let (mailer, _) = scripted("", answers).await;
        let error = mailer.send(&mail()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{answers:?}: {error}");
    }
    // Faults of the configuration: the mail waits until an operator corrects them.
    let outages: &[&[(&str, &str)]] = &[
        &[("GREETING", "554 no service for this address")],
        &[("EHLO", "550 who are you")],
        &[("AUTH", "535 5.7.8 wrong password")],
        &[("AUTH", "534 5.7.9 mechanism too weak")],
        &[("MAIL", "553 5.1.8 sender not allowed")],
        &[("MAIL", "550 5.7.1 not yours")],
        &[("RCPT", "530 5.7.0 sign in first")],
        &[("RCPT", "503 bad sequence")],
        &[("RCPT", "553 5.7.1 <app@example.net>: sender address rejected: not owned by user")],
        &[("RCPT", "554 5.7.1 relay access denied")],
        &[("RCPT", "550 5.1.8 sender address rejected")],
        &[("RCPT", "554 denied")],
        &[("RCPT", "451 greylisted")],
        &[("DATA", "451 later")],
        &[(".", "452 no room")],
    ];
    for answers in outages {
        let (mailer, _) = scripted("ana:secret@", answers).await;
        let error = mailer.send(&mail()).await.unwrap_err();
        assert!(error.is_retryable(), "{answers:?}: {error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn mail_with_any_name_is_accepted_by_a_relay_without_8bitmime() {
    let (mailer, told) = server("250 taken").await;
    let invitation = Message::Invitation {
        from: Some(DisplayName::from_stored("Zoë")),
        message: Some(Label::from_stored("À bientôt 👋")),
        code: Secret::new("ABCD-EFGH".to_owned()),
        link: Secret::new("http://x/open/invite#invite_a".to_owned()),
        expires_at: Timestamp::default(),
    };
    mailer.send(&Mail { message: invitation, ..mail() }).await.unwrap();
    let told = told.lock().unwrap().clone();
    assert!(told.is_ascii() && !told.contains("BODY=8BITMIME"), "{told}");
}

#[tokio::test]
async fn connection_is_used_for_the_next_mail_and_replaced_when_the_server_closes_it() {
    let (mailer, told) = server("250 taken").await;
    for _ in 0..3 {
        mailer.send(&mail()).await.unwrap();
    }
    let told = told.lock().unwrap().clone();
    assert_eq!((told.matches("EHLO").count(), told.matches("RCPT TO").count()), (1, 3), "{told}");

    let (mailer, told) = scripted("", &[("NOOP", "421 closing")]).await;
    for _ in 0..2 {
        mailer.send(&mail()).await.unwrap();
    }
    assert_eq!(told.lock().unwrap().matches("EHLO").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let mailer = SmtpMailer::new(&url, Letterhead::default()).unwrap();
    assert_eq!(mailer.send(&mail()).await.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn password_is_not_sent_where_starttls_is_required_and_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mailer = SmtpMailer::new(&format!("smtp://ana:secret@{address}"), Letterhead::default()).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 test\r\n").await.unwrap();
        let mut told = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            told.push_str(&format!("{line}\n"));
            if write.write_all(b"250-test\r\n250 AUTH PLAIN\r\n").await.is_err() {
                break;
            }
        }
        told
    });
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("STARTTLS"), "{error}");
    let told = server.await.unwrap();
    assert!(!told.contains("AUTH"), "{told}");
}

#[tokio::test]
async fn unreachable_server_is_retried_and_wrong_url_is_an_error() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mailer = SmtpMailer::new(&format!("smtp://{closed}"), Letterhead::default()).unwrap();
    assert!(mailer.send(&mail()).await.unwrap_err().is_retryable());
    let wrong = SmtpMailer::new("http://u:hidden@example.net", Letterhead::default()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Misconfigured);
    assert!(!wrong.to_string().contains("hidden"), "{wrong}");
}
