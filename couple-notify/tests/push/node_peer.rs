//! Third-party libraries verify tokens and decrypt messages: `jose` and `http_ece` over `node:http2`.
//!
//! `tests/clients/install` installs them.

use std::{path::PathBuf, process::Stdio};

use couple_core::{
    Secret,
    push::{Destination, Pusher as _},
};
use couple_notify::push::{Apns, Fcm, Pushers, VapidKey, WebPush};
use data_encoding::BASE64URL_NOPAD;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{alert, fcm, iphone, server::Identity};

/// Private key and public key of the receiver in RFC 8291, appendix A.
const BROWSER: [&str; 2] = [
    "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94",
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
];
/// Authentication secret of the example in RFC 8291, 5.
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

struct Peer {
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    /// Ends the program when it is closed.
    _input: ChildStdin,
    _process: Child,
}

impl Peer {
    async fn start(config: &Value) -> Self {
        let installed = std::env::var_os("COUPLE_TEST_CLIENTS").map(PathBuf::from);
        let installed = installed
            .expect("COUPLE_TEST_CLIENTS is not set: ./test runs tests/clients/install FOLDER and sets it");
        let mut process = Command::new("node")
            .env("NODE_PATH", installed.join("node_modules"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/push/peer.js"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        input.write_all(format!("{config}\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("the program ended");
        Self { lines, url: format!("https://localhost:{port}"), _input: input, _process: process }
    }

    /// Waits for the next request; returns its claims and message as the program has read them.
    async fn next_request(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().expect("the program ended");
        serde_json::from_str(&line).unwrap()
    }
}

#[tokio::test]
async fn third_party_libraries_verify_tokens_and_decrypt_messages() {
    let (identity, key) = (Identity::new(b"h2"), KeyPair::generate().unwrap());
    let [private, public] = BROWSER;
    let mut peer = Peer::start(&json!({
        "certificate": identity.certificate_pem,
        "key": identity.key_pem,
        "apns": key.public_key_pem(),
        "account": fcm::RSA_PUBLIC_KEY,
        "browser": private,
        "auth": AUTH,
    }))
    .await;
    let (url, options) = (peer.url.clone(), identity.options());
    let apns = Apns::new("KEY1234567", "TEAM123456", &key.serialize_pem(), &options).unwrap();
    let service_account = fcm::account(&format!("{url}/token"));
    let vapid = VapidKey::from_pem(&key.serialize_pem(), "mailto:ops@example.org").unwrap();
    let pushers = Pushers::new()
        .with_apns(apns.with_servers(&url, &url).unwrap())
        .with_fcm(Fcm::new(&service_account, &options).unwrap().with_server(&url).unwrap())
        .with_web_push(WebPush::new(vapid, &options).with_private_hosts(["localhost"]));

    pushers.push(&alert(iphone())).await.unwrap();
    let request = peer.next_request().await;
    assert_eq!(request["claims"]["iss"], "TEAM123456");
    assert_eq!(request["message"]["aps"]["alert"]["title"], "Zoë");

    pushers.push(&alert(fcm::android())).await.unwrap();
    let request = peer.next_request().await;
    assert_eq!(request["claims"]["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    assert_eq!(peer.next_request().await["message"]["message"]["notification"]["title"], "Zoë");

    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let browser = Destination::WebPush {
        endpoint: Secret::new(format!("{url}/send/1")),
        key: decode(public).try_into().unwrap(),
        auth: Secret::new(decode(AUTH).try_into().unwrap()),
    };
    pushers.push(&alert(browser)).await.unwrap();
    let request = peer.next_request().await;
    assert_eq!(request["claims"]["sub"], "mailto:ops@example.org");
    assert_eq!(request["message"]["title"], "Zoë");
}
