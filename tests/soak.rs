//! A server under steady load does not grow in memory or open files.
//!
//! 20 seconds, or `COUPLE_SOAK_SECONDS`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Client, Server, code_in, free_address, mails_to};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Resident memory in KiB, and number of open files, of a process (proc(5)).
fn held(pid: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    (kib, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_open_files_do_not_grow() {
    let seconds = std::env::var("COUPLE_SOAK_SECONDS").map_or(20, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "error")];
    let server = Server::spawn(&support::binary(), folder.path(), address, &settings);
    server.until_ready().await;
    let mut tokens = Vec::new();
    for name in ["ana", "ben"] {
        let mut client = Client::new(address);
        let email = format!("{name}@example.org");
        let body = json!({ "email": email, "display_name": name });
        client.call("POST", "/v1/accounts", None, Some(&body), None).await;
        let code = loop {
            if let Some(code) = mails_to(folder.path(), &email).iter().find_map(|mail| code_in(mail)) {
                break code;
            }
            sleep(Duration::from_millis(20)).await;
        };
        let body = json!({ "email": email, "code": code });
        let answer = client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
        tokens.push(answer.body["session"]["token"].as_str().unwrap().to_owned());
    }
    let mut client = Client::new(address);
    let invite = client.call("POST", "/v1/invites", Some(&tokens[0]), Some(&json!({})), None).await;
    let body = json!({ "code": invite.body["code"] });
    assert!(
        client.call("POST", "/v1/invites/accept", Some(&tokens[1]), Some(&body), None).await.status < 300
    );

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut lanes = JoinSet::new();
    for lane in 0..8_usize {
        let token = tokens[lane % 2].clone();
        lanes.spawn(async move {
            let mut n = 0;
            while Instant::now() < end {
                n += 1;
                // A connection for every ten requests, so that leaks per connection are found.
                let mut client = Client::new(address);
                for m in 0..10 {
                    let id = format!("{lane}-{n}-{m}");
                    let entry = json!({ "client_id": id, "kind": "text", "body": { "text": "x" } });
                    let answer = match m {
                        0 => client.call("GET", "/v1/couple/live?wait=0", Some(&token), None, None).await,
                        1 => {
                            client
                                .call(
                                    "POST",
                                    "/v1/sessions",
                                    None,
                                    Some(&json!({ "email": "x@y.z", "password": "wrong password" })),
                                    None,
                                )
                                .await
                        }
                        2 => {
                            client.call("GET", "/v1/couple/entries?limit=50", Some(&token), None, None).await
                        }
                        3 => client.call("GET", "/v1/nowhere", Some("no token"), None, None).await,
                        _ => {
                            client.call("POST", "/v1/couple/entries", Some(&token), Some(&entry), None).await
                        }
                    };
                    assert!(answer.status < 500, "{answer:?}");
                }
            }
            n * 10
        });
    }
    sleep(Duration::from_secs(seconds / 2)).await;
    let (memory, files) = held(server.pid());
    let mut requests = 0;
    while let Some(lane) = lanes.join_next().await {
        requests += lane.unwrap();
    }
    // Waits until the last connections are closed.
    sleep(Duration::from_millis(500)).await;
    let (memory_after, files_after) = held(server.pid());
    println!(
        "{requests} requests in {seconds} s: {memory} KiB and {files} files half way, {memory_after} KiB and {files_after} files at the end"
    );
    assert!(files_after <= files, "files are left open");
    assert!(memory_after < memory + memory / 4 + 8_192, "memory has grown");
}
