//! `SendmailMailer` with programs that are shell scripts.

#![cfg(all(unix, feature = "sendmail"))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use couple_core::{
    EmailAddress, ErrorKind, Timestamp,
    mail::{Mail, MailText, Mailer as _, Message},
};
use couple_notify::mail::{Letterhead, SendmailMailer};

fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("send mail; $(false)");
    std::fs::write(&path, format!("#!/bin/sh\ncd '{}'\n{script}", folder.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn mailer(program: PathBuf) -> SendmailMailer {
    SendmailMailer::new(program, Letterhead::new("App", "app@example.net").unwrap())
}

fn mail(to: &str) -> Mail {
    let text = MailText { subject: "Hello".to_owned(), text: "one\n.\ntwo\n".to_owned(), html: None };
    Mail {
        id: "17".to_owned(),
        to: EmailAddress::parse("email", to).unwrap(),
        locale: None,
        at: Timestamp::default(),
        message: Message::Custom { name: "test".to_owned(), text },
    }
}

#[tokio::test]
async fn program_gets_the_message_and_the_address_without_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let program = program(folder.path(), "printf '%s\\n' \"$@\" > arguments; cat > message");
    // Characters of a shell, and of an option, that an address may have.
    let to = "-f$HOME`id`|&'{}*@example.org";
    mailer(program.clone()).send(&mail(to)).await.unwrap();
    let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("arguments"), format!("-i\n-f\napp@example.net\n--\n{to}\n"));
    let message = read("message");
    assert!(message.contains("\nMessage-ID: <17@example.net>\n") && !message.contains('\r'), "{message}");
    assert!(message.trim_end().ends_with("\n\none\n.\ntwo"), "{message}");

    mailer(program).with_arguments(["-oi", "-X a b"]).send(&mail("zoe@example.org")).await.unwrap();
    assert_eq!(read("arguments"), "-oi\n-X a b\n-f\napp@example.net\n--\nzoe@example.org\n");
}

#[tokio::test]
async fn exit_code_decides_whether_a_failure_is_final() {
    let folder = tempfile::tempdir().unwrap();
    for code in (1..=2).chain(64..=78).chain([127, 255]) {
        let script = format!("echo 'no such user' >&2; exit {code}");
        let error = mailer(program(folder.path(), &script)).send(&mail("zoe@example.org")).await.unwrap_err();
        let is_final = matches!(code, 65 | 67 | 68);
        let is_misconfigured = matches!(code, 64 | 77 | 78);
        let kind = if is_final { ErrorKind::Rejected } else { ErrorKind::Unavailable };
        assert_eq!((error.kind(), error.deferral().is_some()), (kind, is_misconfigured), "{code}: {error}");
        assert!(error.to_string().contains("no such user"), "{error}");
    }
    let error =
        mailer(program(folder.path(), "kill -9 $$")).send(&mail("zoe@example.org")).await.unwrap_err();
    assert_eq!((error.kind(), error.deferral()), (ErrorKind::Unavailable, None));
}

#[tokio::test]
async fn program_that_cannot_be_started_keeps_mails_waiting() {
    let mailer = mailer(PathBuf::from("/nonexistent/sendmail"));
    let error = mailer.send(&mail("zoe@example.org")).await.unwrap_err();
    assert!(error.deferral().is_some_and(|delay| delay > Duration::from_secs(20)), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/sendmail"), "{error}");
}

#[tokio::test]
async fn program_that_does_not_end_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let program = program(folder.path(), "echo $$ > process; exec sleep 1000");
    let mailer = mailer(program).with_timeout(Duration::from_secs(1));
    let error = mailer.send(&mail("zoe@example.org")).await.unwrap_err();
    assert_eq!((error.kind(), error.deferral()), (ErrorKind::TimedOut, None));
    let process = std::fs::read_to_string(folder.path().join("process")).unwrap();
    // Killed, and collected by the runtime at some later moment.
    let stat = PathBuf::from(format!("/proc/{}/stat", process.trim()));
    let ends = async {
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ends).await.unwrap();
}

#[tokio::test]
async fn number_of_processes_is_bounded_and_endless_messages_and_unread_input_block_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Each process counts those that run beside it: folders are created atomically.
    let script = "mkdir running.$$; ls -d running.* | wc -l >> counts; sleep 0.05
        yes 'a long message' | head -c 300000 >&2; rmdir running.$$; exit 75";
    let mailer = mailer(program(folder.path(), script)).with_max_processes(2);
    let sending: Vec<_> = (0..8)
        .map(|_| {
            let mailer = mailer.clone();
            tokio::spawn(async move { mailer.send(&mail("zoe@example.org")).await })
        })
        .collect();
    for sending in sending {
        let error = sending.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().len() < 3_000, "{}", error.to_string().len());
    }
    let counts = std::fs::read_to_string(folder.path().join("counts")).unwrap();
    assert_eq!(counts.lines().count(), 8);
    assert!(counts.lines().all(|count| count.trim().parse::<u32>().unwrap() <= 2), "{counts}");
}
