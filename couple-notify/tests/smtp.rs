//! `SmtpMailer` against the scripted server.

#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../tests/support/smtp_server.rs"]
mod smtp_server;

use std::time::Duration;

use couple_core::{
    DisplayName, EmailAddress, EmailKey, Error, ErrorKind, Label, Secret, Timestamp,
    mail::{Mail, MailText, Mailer as _, Message},
};
use couple_notify::mail::{Letterhead, SmtpMailer};
use smtp_server::{
    Action::{self, Close, Reply, Stall},
    Script, SmtpServer,
};
use tokio::{net::TcpListener, time::Instant};

fn mailer(server: &SmtpServer) -> SmtpMailer {
    mailer_with(server, "?tls=none")
}

fn mailer_with(server: &SmtpServer, options: &str) -> SmtpMailer {
    let url = format!("smtp://ana:secret@{}{options}", server.address);
    SmtpMailer::new(&url, Letterhead::new("App", "app@example.net").unwrap()).unwrap()
}

fn mail() -> Mail {
    Mail {
        id: "17".to_owned(),
        to: EmailAddress::parse("email", "Zoe+x@münchen.example").unwrap(),
        locale: None,
        at: Timestamp::default(),
        message: Message::Custom {
            name: "test".to_owned(),
            text: MailText { subject: "Hello".to_owned(), text: "Hello.\n".to_owned(), html: None },
        },
    }
}

#[tokio::test]
async fn accepted_mail_is_sent_once_with_its_id() {
    let server = SmtpServer::start().await;
    mailer(&server).send(&mail()).await.unwrap();
    let mails = server.mails_to("Zoe+x@xn--mnchen-3ya.example");
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("Message-ID: <17@example.net>"), "{mails:?}");
}

/// Result of a mail for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The job is dead.
    Final,
    /// The job is retried and loses an attempt. The next mail is sent to the server.
    Retried,
    /// The job is retried and loses an attempt. The next mail waits.
    RetriedInOutage,
    /// The job waits without losing an attempt, and so does the next mail.
    Deferred,
}

fn outcome(error: &Error, is_open: bool) -> Outcome {
    match (error.kind(), error.deferral().is_some(), is_open) {
        (ErrorKind::Rejected, false, false) => Outcome::Final,
        (ErrorKind::Unavailable | ErrorKind::TimedOut, false, false) => Outcome::Retried,
        (ErrorKind::Unavailable | ErrorKind::TimedOut, false, true) => Outcome::RetriedInOutage,
        (ErrorKind::Unavailable | ErrorKind::TimedOut, true, true) => Outcome::Deferred,
        _ => panic!("{error:?}, open: {is_open}"),
    }
}

/// Sends a mail to a server that fails, then one to the same server without a fault.
async fn outcome_at(command: &'static str, action: Action) -> Outcome {
    let server = SmtpServer::failing(command, action).await;
    let mailer = mailer(&server);
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    if let Reply(reply) = action {
        let text = reply.split_once([' ', '-']).unwrap().1;
        assert!(error.to_string().contains(text), "the reply is missing: {error}");
    }
    server.set_actions(&[]);
    let before = server.connections();
    // A mail that waits for the end of an outage does not use the server.
    let is_open = tokio::time::timeout(Duration::from_millis(100), mailer.send(&mail())).await.is_err();
    assert_eq!(server.connections() - before, usize::from(!is_open));
    outcome(&error, is_open)
}

#[tokio::test(start_paused = true)]
async fn each_reply_at_each_stage_has_its_outcome() {
    use Outcome::{Deferred, Final, Retried, RetriedInOutage};
    let replies = [
        "421 closing",
        "451 local error",
        "452 no room",
        "535 wrong password",
        "550 refused",
        "552 too large",
        "554 failed",
    ];
    // Outcomes of these replies, in order.
    for (command, outcomes) in [
        ("GREETING", [Deferred; 7]),
        ("EHLO", [Deferred; 7]),
        ("AUTH", [Deferred; 7]),
        ("MAIL", [Deferred; 7]),
        ("RCPT", [RetriedInOutage, Retried, Retried, RetriedInOutage, Final, Final, Retried]),
        ("DATA", [RetriedInOutage, Retried, Retried, RetriedInOutage, Final, Final, Final]),
        (".", [RetriedInOutage, Retried, Retried, RetriedInOutage, Final, Final, Final]),
    ] {
        for (reply, expected) in replies.into_iter().zip(outcomes) {
            assert_eq!(outcome_at(command, Reply(reply)).await, expected, "{reply} at {command}");
        }
        let expected = match command {
            "GREETING" | "EHLO" | "AUTH" | "MAIL" => Deferred,
            _ => RetriedInOutage,
        };
        assert_eq!(outcome_at(command, Close).await, expected, "closed at {command}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusal_with_a_status_is_final_only_if_it_is_about_the_mail() {
    use Outcome::{Deferred, Final, Retried, RetriedInOutage};
    for (command, reply, expected) in [
        ("GREETING", "554-no service\r\n554 for this address", Deferred),
        ("AUTH", "534 5.7.9 mechanism too weak", Deferred),
        ("MAIL", "553 5.1.8 sender not allowed", Deferred),
        ("RCPT", "550 5.1.1 no such user", Final),
        ("RCPT", "553 5.1.3 invalid mailbox", Final),
        ("RCPT", "452 4.2.2 mailbox full", Retried),
        ("RCPT", "451 4.7.1 greylisted", Retried),
        ("RCPT", "553 5.7.1 <app@example.net>: sender address rejected: not owned by user", Retried),
        ("RCPT", "554 5.7.1 relay access denied", Retried),
        ("RCPT", "550 5.1.8 sender address rejected", Retried),
        ("RCPT", "530 5.7.0 sign in first", RetriedInOutage),
        ("RCPT", "503 bad sequence", RetriedInOutage),
        (".", "552 5.3.4 too large", Final),
        (".", "554 5.6.0 refused", Final),
    ] {
        let reply: &'static str = reply;
        let server = SmtpServer::failing(command, Reply(reply)).await;
        let mailer = mailer(&server);
        let error = mailer.send(&mail()).await.unwrap_err();
        server.set_actions(&[]);
        let next = tokio::time::timeout(Duration::from_millis(100), mailer.send(&mail())).await;
        assert_eq!(outcome(&error, next.is_err()), expected, "{reply} at {command}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn stall_at_any_stage_is_given_up() {
    for (command, limit, is_deferred) in [
        ("GREETING", 10, true),
        ("EHLO", 10, true),
        ("AUTH", 10, true),
        ("MAIL", 30, true),
        ("RCPT", 30, false),
        ("DATA", 30, false),
        (".", 120, false),
    ] {
        let server = SmtpServer::failing(command, Stall).await;
        let started = Instant::now();
        let error = mailer(&server).send(&mail()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{command}: {error}");
        assert_eq!(error.deferral().is_some(), is_deferred, "{command}");
        assert_eq!(started.elapsed().as_secs(), limit, "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn mails_wait_for_the_end_of_an_outage_and_one_at_a_time_probes_the_server() {
    let server = SmtpServer::failing("MAIL", Reply("451 come back later")).await;
    let mailer = mailer(&server);
    let started = Instant::now();
    let error = mailer.send(&mail()).await.unwrap_err();
    assert_eq!(error.deferral(), Some(Duration::from_secs(1)));
    server.set_actions(&[("MAIL", Stall)]);
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mailer = mailer.clone();
            tokio::spawn(async move { mailer.send(&mail()).await })
        })
        .collect();
    server.until_received("MAIL", 2).await;
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.connections(), 2, "two mails probe the server together");
    // The worker ends, and with it the probe.
    for waiting in waiting {
        waiting.abort();
        assert!(waiting.await.is_err());
    }
    server.set_actions(&[]);
    mailer.send(&mail()).await.unwrap();
    assert_eq!(server.mails_to("Zoe+x@xn--mnchen-3ya.example").len(), 1);
    assert_eq!(started.elapsed(), Duration::from_secs(4), "the next probe waited");
}

#[tokio::test(start_paused = true)]
async fn mail_that_waits_returns_to_its_queue_after_some_seconds() {
    let server = SmtpServer::failing("AUTH", Reply("535 5.7.8 wrong password")).await;
    let mailer = mailer(&server);
    let started = Instant::now();
    assert_eq!(mailer.send(&mail()).await.unwrap_err().deferral(), Some(Duration::from_secs(30)));
    let error = mailer.send(&mail()).await.unwrap_err();
    assert_eq!(error.deferral(), Some(Duration::from_secs(25)));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!((started.elapsed(), server.connections()), (Duration::from_secs(5), 1));
}

#[tokio::test]
async fn mail_with_any_text_and_name_is_ascii_for_a_relay_without_8bitmime_and_smtputf8() {
    let text = MailText {
        subject: "Grüße von Zoë 👋 ".repeat(12),
        text: format!("{}\n.\n..ä\n{}\n", "ünï ".repeat(30), "x".repeat(200)),
        html: Some(format!("<p>{}</p>", "日本語".repeat(40))),
    };
    let invitation = Message::Invitation {
        from: Some(DisplayName::from_stored("Zoë")),
        message: Some(Label::from_stored("À bientôt 👋")),
        code: Secret::new("ABCD-EFGH".to_owned()),
        link: Secret::new("http://x/open/invite#invite_a".to_owned()),
        expires_at: Timestamp::default(),
    };
    for extensions in [&[][..], &["8BITMIME"], &["8BITMIME", "SMTPUTF8"]] {
        let server = SmtpServer::scripted(Script { extensions, ..Script::default() }).await;
        let letterhead = Letterhead::new("Zwei Herzen – für uns zwei", "app@grüße.example").unwrap();
        let url = format!("smtp://{}?tls=none", server.address);
        let mailer = SmtpMailer::new(&url, letterhead).unwrap();
        let custom = Message::Custom { name: "all".to_owned(), text: text.clone() };
        for message in [custom, invitation.clone()] {
            mailer.send(&Mail { message, ..mail() }).await.unwrap();
        }
        let lines = server.lines();
        assert!(lines.is_ascii(), "{lines}");
        // The dot that SMTP puts before a dot at the beginning of a line does not count (RFC 5321, 4.5.2).
        let length = |line: &str| line.strip_prefix('.').unwrap_or(line).len();
        let long: Vec<_> = lines.lines().filter(|line| length(line) > 76).collect();
        assert!(long.is_empty(), "{long:?}");
        assert!(!lines.contains("BODY=8BITMIME") && !lines.contains("SMTPUTF8"), "{lines}");
        let sent = server.mails_to("Zoe+x@xn--mnchen-3ya.example").remove(0);
        let parsed = mail_parser::MessageParser::new().parse(sent.as_bytes()).unwrap();
        assert_eq!(parsed.subject().unwrap().trim_end(), text.subject.trim_end());
        assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n"), text.text);
        assert_eq!(parsed.body_html(0).unwrap(), *text.html.as_ref().unwrap());
        let from = parsed.from().unwrap().first().unwrap();
        assert_eq!(from.name(), Some("Zwei Herzen – für uns zwei"));
        assert_eq!(from.address(), Some("app@xn--gre-6ka8l.example"));
    }
}

#[tokio::test]
async fn address_with_a_local_part_outside_of_ascii_needs_smtputf8() {
    let to = || EmailAddress::from_stored("zoë@example.org", EmailKey::from_stored("zoë@example.org"));
    let server = SmtpServer::scripted(Script { extensions: &["8BITMIME"], ..Script::default() }).await;
    let relay = mailer(&server);
    let error = relay.send(&Mail { to: to(), ..mail() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("does not offer SMTPUTF8"), "{error}");
    assert_eq!(server.count("MAIL"), 0);
    // It is a fault of the mail: others are sent.
    relay.send(&mail()).await.unwrap();

    let extensions = &["8BITMIME", "SMTPUTF8"];
    let server = SmtpServer::scripted(Script { extensions, ..Script::default() }).await;
    mailer(&server).send(&Mail { to: to(), ..mail() }).await.unwrap();
    assert_eq!(server.count("MAIL FROM:<app@example.net> SMTPUTF8 BODY=8BITMIME"), 1, "{}", server.lines());
    assert_eq!(server.mails_to("zoë@example.org").len(), 1);
}

#[tokio::test]
async fn connection_is_used_for_the_next_mail_and_replaced_when_the_server_closes_it() {
    let server = SmtpServer::start().await;
    let mailer = mailer(&server);
    for _ in 0..3 {
        mailer.send(&mail()).await.unwrap();
    }
    assert_eq!((server.count("EHLO"), server.count("RCPT TO")), (1, 3));

    for closing in [Close, Reply("421 idle for too long")] {
        let script = Script { faulty_connections: Some(1), ..Script::default() };
        let server = SmtpServer::scripted(script).await;
        let mailer = self::mailer(&server);
        mailer.send(&mail()).await.unwrap();
        server.set_actions(&[("MAIL", closing)]);
        mailer.send(&mail()).await.unwrap();
        assert_eq!(server.connections(), 2, "{closing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connection_that_does_not_answer_is_replaced_after_ten_seconds() {
    let server = SmtpServer::scripted(Script { faulty_connections: Some(1), ..Script::default() }).await;
    let mailer = mailer(&server);
    mailer.send(&mail()).await.unwrap();
    server.set_actions(&[("MAIL", Stall)]);
    let started = Instant::now();
    mailer.send(&mail()).await.unwrap();
    assert_eq!((started.elapsed(), server.connections()), (Duration::from_secs(10), 2));
}

#[tokio::test]
async fn nothing_is_sent_where_starttls_is_required_and_missing() {
    let server = SmtpServer::start().await;
    for url in [format!("smtp://ana:secret@{}", server.address), format!("smtp://{}", server.address)] {
        let mailer = SmtpMailer::new(&url, Letterhead::default()).unwrap();
        let error = mailer.send(&mail()).await.unwrap_err();
        assert!(error.deferral().is_some_and(|delay| delay > Duration::from_secs(20)), "{error}");
        assert!(error.to_string().contains("STARTTLS") && error.to_string().contains("?tls=none"), "{error}");
    }
    assert_eq!((server.count("AUTH"), server.count("MAIL")), (0, 0), "{}", server.lines());
}

#[tokio::test]
async fn unreachable_server_is_retried_and_wrong_url_is_an_error() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mailer = SmtpMailer::new(&format!("smtp://{closed}"), Letterhead::default()).unwrap();
    assert!(mailer.send(&mail()).await.unwrap_err().deferral().is_some());
    let wrong = SmtpMailer::new("http://u:hidden@example.net", Letterhead::default()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Misconfigured);
    assert!(!wrong.to_string().contains("hidden"), "{wrong}");
}
