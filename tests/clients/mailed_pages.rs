//! The pages behind mailed links, in Chromium.

use std::process::Stdio;

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::{Duration, sleep, timeout},
};

use crate::{
    program,
    support::{self, Client, Server, code_in, free_address, mails_to},
};

/// Newest mail to an address that contains a link to a page.
async fn mailed(server: &Server, folder: &std::path::Path, to: &str, page: &str) -> (String, String) {
    let start = format!("http://{}/open/{page}#", server.address);
    for _ in 0..500 {
        let mails = mails_to(folder, to);
        let found = mails.iter().rev().find_map(|mail| {
            mail.lines().find(|line| line.starts_with(&start)).map(|link| (mail.clone(), link.to_owned()))
        });
        if let Some(found) = found {
            return found;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("no mail to {to} has a link to {page}");
}

/// Opens a link, presses the page's button, and returns what the page shows then.
async fn confirm(folder: &std::path::Path, link: &str) -> String {
    let mut browser = program("chromium.js");
    browser.args(["http://unused", "unused"]).arg(folder.join("chromium")).args(["mailedPage", link]);
    let mut browser = browser.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let line = timeout(Duration::from_secs(60), lines.next_line()).await.expect("the page is done in time");
    drop(browser.stdin.take());
    browser.wait().await.unwrap();
    line.unwrap().expect("the page logs what it shows")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mailed_pages_report_what_they_did_and_leave_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("RUST_LOG", "warn")];
    let server = Server::spawn(&support::binary(), folder.path(), free_address(), &settings);
    server.until_ready().await;
    let mut client = Client::new(server.address);
    let body = json!({ "email": "ana@example.org", "display_name": "Ana" });
    assert_eq!(client.call("POST", "/v1/accounts", None, Some(&body), None).await.status, 202);
    let (mail, link) = mailed(&server, folder.path(), "ana@example.org", "verify").await;
    let shown = confirm(folder.path(), &link).await;
    assert_eq!(shown, "Address confirmed: Address confirmed | Go back to the app and sign in.");

    // The code of the same mail signs in. The page has left no session beside that one.
    let body = json!({ "email": "ana@example.org", "code": code_in(&mail) });
    let answer = client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
    let token = answer.body["session"]["token"].as_str().unwrap().to_owned();
    let sessions = client.call("GET", "/v1/sessions", Some(&token), None, None).await.body;
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");

    let body = json!({ "new_email": "new@example.org" });
    assert_eq!(client.call("POST", "/v1/me/email", Some(&token), Some(&body), None).await.status, 202);
    let (_, link) = mailed(&server, folder.path(), "ana@example.org", "cancel").await;
    let shown = confirm(folder.path(), &link).await;
    assert!(
        shown.starts_with("Address kept: Address kept | The change is cancelled: your account keeps"),
        "{shown}"
    );
    let (_, link) = mailed(&server, folder.path(), "new@example.org", "email").await;
    let body = json!({ "token": link });
    let late = client.call("POST", "/v1/me/email/verify", None, Some(&body), None).await;
    assert_eq!((late.status, late.body["code"].as_str()), (422, Some("invalid_token")));
}
