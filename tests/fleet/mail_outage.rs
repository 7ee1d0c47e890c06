//! An SMTP server that accepts connections and answers nothing: only mail waits for it, and mail recovers by itself.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    ALONE, couples,
    device::{Device, Transport},
    png,
    smtp_server::SmtpServer,
    support::{self, Client, Server, code_in, free_address},
    until,
};

/// Longest response while a dependency does not answer.
const LIMIT: Duration = Duration::from_millis(2_500);
/// Sign-ups during the silence: more than the mails that a process sends at the same time.
const SIGN_UPS: usize = 24;
/// Time until a mail that waits for a lost connection is sent: 10 s for a probe in progress, up to 8 s until the next one after a silence of 40 s,
/// and some more.
const RECOVERY: Duration = Duration::from_secs(30);

/// Sends a request once, and checks its status and time.
async fn quick(
    client: &mut Client,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Value {
    let started = Instant::now();
    let answer = client.once(method, path, token, body, &[]).await.unwrap();
    assert!(answer.status < 300, "{method} {path}: {answer:?}");
    assert!(started.elapsed() < LIMIT, "{method} {path} took {:?}", started.elapsed());
    answer.body
}

async fn sign_up(client: &mut Client, name: &str) {
    let body = json!({ "email": format!("{name}@example.org"), "display_name": name });
    quick(client, "POST", "/v1/accounts", None, Some(&body)).await;
}

async fn start(folder: &Path, smtp: &SmtpServer) -> Server {
    let url = format!("smtp://{}?tls=none", smtp.address);
    let settings = [
        ("COUPLE_MAIL", url.as_str()),
        ("COUPLE_MAIL_FROM", "app@example.org"),
        ("COUPLE_LIMITS", "off"),
        ("RUST_LOG", "error"),
    ];
    let server = Server::spawn(&support::binary(), folder, free_address(), &settings);
    server.until_ready().await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_mail_server_delays_only_mail_which_recovers_by_itself() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let smtp = SmtpServer::start().await;
    let server = start(folder.path(), &smtp).await;
    let (mut client, token) = (Client::new(server.address), Some(&*tokens[0]));
    let device = Device::start(Transport::WebSocket, vec![server.address], tokens[1].clone(), None);
    sign_up(&mut client, "before").await;
    until("a mail", Duration::from_secs(10), || !smtp.mails_to("before@example.org").is_empty()).await;

    smtp.silence(true);
    for n in 0..SIGN_UPS {
        sign_up(&mut client, &format!("during{n}")).await;
    }
    until("connections to the silent server", Duration::from_secs(5), || smtp.unanswered() >= 8).await;
    // All senders of mail wait. Requests, live delivery and other jobs do not.
    for n in 0..10_u8 {
        let entry = json!({ "client_id": n.to_string(), "kind": "text", "body": { "text": n.to_string() } });
        quick(&mut client, "POST", "/v1/couple/entries", token, Some(&entry)).await;
        quick(&mut client, "GET", "/v1/couple/entries", token, None).await;
        quick(
            &mut client,
            "POST",
            "/v1/password/forgot",
            None,
            Some(&json!({ "email": "before@example.org" })),
        )
        .await;
        until("delivery", LIMIT, || device.when(&n.to_string()).is_some()).await;
    }
    let id = client.upload(&tokens[0], "photo", &png(7)).await;
    let (uploaded, path) = (Instant::now(), format!("/v1/media/{id}"));
    while quick(&mut client, "GET", &path, token, None).await["state"] != "ready" {
        assert!(uploaded.elapsed() < LIMIT, "the picture is not decoded");
        sleep(Duration::from_millis(50)).await;
    }
    assert!((0..SIGN_UPS).all(|n| smtp.mails_to(&format!("during{n}@example.org")).is_empty()));

    smtp.silence(false);
    let returned = Instant::now();
    for n in 0..SIGN_UPS {
        let to = format!("during{n}@example.org");
        until(&format!("the delayed mail to {to}"), RECOVERY, || !smtp.mails_to(&to).is_empty()).await;
    }
    println!(
        "{SIGN_UPS} mails {:.1} s after the return of the mail server",
        returned.elapsed().as_secs_f64()
    );
    // Once each, with a code that works.
    for n in 0..SIGN_UPS {
        let email = format!("during{n}@example.org");
        let mails = smtp.mails_to(&email);
        assert_eq!(mails.len(), 1, "mails to {email}");
        let body = json!({ "email": email, "code": code_in(&mails[0]).unwrap() });
        quick(&mut client, "POST", "/v1/accounts/verify", None, Some(&body)).await;
    }
}
