//! A day of a hundred couples, through HTTP alone, while the server is killed repeatedly.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple::{Entropy as _, OsEntropy};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::{Client, Server, code_in, free_address, mails_to};
use tokio::time::sleep;

const MESSAGES: usize = 20;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn random(below: usize) -> usize {
    let mut bytes = [0; 4];
    OsEntropy.fill(&mut bytes);
    u32::from_be_bytes(bytes) as usize % below
}

/// State that all clients of the day share.
struct Day {
    folder: PathBuf,
    address: std::net::SocketAddr,
    /// Number of steps that the server acknowledged.
    progress: AtomicUsize,
}

impl Day {
    fn acknowledged(&self) {
        self.progress.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Person {
    email: String,
    /// Address as mail headers encode it.
    mailbox: String,
    name: String,
}

fn person(n: usize) -> Person {
    const NAMES: [&str; 10] = [
        "Zoë",
        "李小龍",
        "Nguyễn Thị Minh Khai",
        "O'Brien",
        "محمد علي",
        "Søren Ångström",
        "Дарья",
        "Ana Sofía",
        "山田 花子",
        "José-María 👩‍❤️‍👨",
    ];
    const DOMAINS: [(&str, &str); 5] = [
        ("example.org", "example.org"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("例え.example", "xn--r8jz45g.example"),
        ("Mail.Example.COM", "mail.example.com"),
        ("straße.example", "xn--strae-oqa.example"),
    ];
    let (domain, ascii) = DOMAINS[n % DOMAINS.len()];
    let local = match n % 3 {
        0 => format!("p{n}+couple.app"),
        1 => format!("First.Last_{n}"),
        _ => format!("p{n}"),
    };
    Person {
        email: format!("{local}@{domain}"),
        mailbox: format!("{local}@{ascii}"),
        name: format!("{} {n}", NAMES[n % NAMES.len()]),
    }
}

/// Signs up, reads the code in the mail, and confirms. Returns the session's token.
async fn join(day: &Day, client: &mut Client, person: &Person) -> String {
    let body = json!({ "email": person.email, "display_name": person.name });
    let key = format!("up-{}", person.email.replace(|c: char| !c.is_ascii_graphic(), "_"));
    let answer = client.call("POST", "/v1/accounts", None, Some(&body), Some(&key)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    day.acknowledged();
    let started = tokio::time::Instant::now();
    let code = loop {
        assert!(started.elapsed() < Duration::from_secs(90), "no mail came for {}", person.email);
        if let Some(code) = mails_to(&day.folder, &person.mailbox).iter().find_map(|mail| code_in(mail)) {
            break code;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let body = json!({ "email": person.email, "code": code });
    let key = format!("v-{key}");
    let answer = client.call("POST", "/v1/accounts/verify", None, Some(&body), Some(&key)).await;
    assert_eq!(answer.status, 200, "{} {answer:?}", person.email);
    assert_eq!(answer.body["account"]["display_name"], person.name.as_str());
    day.acknowledged();
    answer.body["session"]["token"].as_str().unwrap().to_owned()
}

/// Pairs two accounts in one of the possible ways.
async fn pair(day: &Day, way: usize, n: usize, people: [&Person; 2], tokens: [&str; 2]) {
    let (mut one, mut other) = (Client::new(day.address), Client::new(day.address));
    let (key, accept_key) = (format!("i-{n}"), format!("a-{n}"));
    let [ana, ben] = tokens;
    let reference = match way {
        // By code, and by link.
        0 | 1 => {
            let body = json!({ "message": "Komm 👋" });
            let sent = one.call("POST", "/v1/invites", Some(ana), Some(&body), Some(&key)).await;
            assert_eq!(sent.status, 201, "{sent:?}");
            day.acknowledged();
            if way == 0 {
                json!({ "code": sent.body["code"].as_str().unwrap().to_lowercase() })
            } else {
                let link = sent.body["link"].as_str().unwrap();
                json!({ "token": link.split_once('#').unwrap().1 })
            }
        }
        // By address: the mail arrives, and the invite is listed.
        2 => {
            let body = json!({ "email": people[1].email });
            let sent = one.call("POST", "/v1/invites", Some(ana), Some(&body), Some(&key)).await;
            assert_eq!(sent.status, 201, "{sent:?}");
            day.acknowledged();
            let started = tokio::time::Instant::now();
            while !mails_to(&day.folder, &people[1].mailbox)
                .iter()
                .any(|m| m.contains("Subject: An invitation"))
            {
                assert!(started.elapsed() < Duration::from_secs(90), "no invitation came");
                sleep(Duration::from_millis(50)).await;
            }
            let listed = other.call("GET", "/v1/invites", Some(ben), None, None).await;
            assert_eq!(listed.body["received"][0]["from"]["display_name"], people[0].name.as_str());
            json!({ "id": listed.body["received"][0]["id"] })
        }
        // Both invite each other concurrently.
        _ => {
            let (to_ben, to_ana) = (json!({ "email": people[1].email }), json!({ "email": people[0].email }));
            let other_key = format!("j-{n}");
            let (mine, theirs) = tokio::join!(
                one.call("POST", "/v1/invites", Some(ana), Some(&to_ben), Some(&key)),
                other.call("POST", "/v1/invites", Some(ben), Some(&to_ana), Some(&other_key)),
            );
            assert!(mine.status == 201 && theirs.status == 201, "{mine:?} {theirs:?}");
            day.acknowledged();
            day.acknowledged();
            return;
        }
    };
    let shown = other.call("POST", "/v1/invites/preview", Some(ben), Some(&reference), None).await;
    assert_eq!(shown.body["from"]["display_name"], people[0].name.as_str(), "{shown:?}");
    let answer =
        other.call("POST", "/v1/invites/accept", Some(ben), Some(&reference), Some(&accept_key)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    day.acknowledged();
}

/// Sends this account's half of the messages; returns their acknowledged `seq`s.
async fn append_entries(day: &Day, token: &str, who: usize) -> BTreeMap<i64, String> {
    let mut client = Client::new(day.address);
    let mut acknowledged = BTreeMap::new();
    for n in 0..MESSAGES / 2 {
        let id = format!("{who}-{n}");
        let body = json!({ "client_id": id, "kind": "text", "body": { "text": format!("message {id} 💌") } });
        let answer = client.call("POST", "/v1/couple/entries", Some(token), Some(&body), None).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        acknowledged.insert(answer.body["seq"].as_i64().unwrap(), id);
        day.acknowledged();
        sleep(Duration::from_millis(random(20) as u64)).await;
    }
    acknowledged
}

/// Adds a frame; returns true once every message was received. Each entry must be the next one.
fn add_frame(log: &mut Vec<Value>, frame: &Value) -> bool {
    if frame["type"] == "entry" {
        let seq = frame["entry"]["seq"].as_i64().unwrap();
        assert_eq!(seq, log.len() as i64 + 1, "a gap, or a repeat after a resumed cursor");
        log.push(frame["entry"].clone());
    }
    log.iter().filter(|entry| entry["kind"] == "text").count() == MESSAGES
}

async fn listen_by_poll(day: &Day, token: &str) -> Vec<Value> {
    let mut client = Client::new(day.address);
    let (mut log, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/v1/couple/live?after={cursor}&wait=5");
        let Ok(answer) = client.once("GET", &path, Some(token), None, &[]).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{answer:?}");
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        for frame in answer.body["frames"].as_array().unwrap() {
            if add_frame(&mut log, frame) {
                return log;
            }
        }
        cursor = answer.body["cursor"].as_str().unwrap().to_owned();
    }
}

async fn listen_by_events(day: &Day, token: &str) -> Vec<Value> {
    let mut client = Client::new(day.address);
    let (mut log, mut last_id) = (Vec::new(), "0".to_owned());
    loop {
        sleep(Duration::from_millis(20)).await;
        let headers = [("accept", "text/event-stream"), ("last-event-id", last_id.as_str())];
        let Ok(answer) = client.send("GET", "/v1/couple/live", Some(token), None, &headers).await else {
            continue;
        };
        if answer.status() != 200 {
            continue;
        }
        let (mut body, mut text) = (answer.into_body(), String::new());
        // A chunk that breaks off within an event is dropped with the connection, as a browser does.
        while let Some(Ok(chunk)) = body.frame().await {
            text.push_str(&String::from_utf8_lossy(chunk.data_ref().map_or(&[], |data| data)));
            while let Some((event, rest)) = text.split_once("\n\n") {
                let (mut data, mut id) = (None, None);
                for line in event.lines() {
                    if let Some(value) = line.strip_prefix("data:") {
                        data = Some(value.trim().to_owned());
                    } else if let Some(value) = line.strip_prefix("id:") {
                        id = Some(value.trim().to_owned());
                    }
                }
                if let Some(data) = data {
                    if add_frame(&mut log, &serde_json::from_str(&data).unwrap()) {
                        return log;
                    }
                    last_id = id.unwrap_or(last_id);
                }
                text = rest.to_owned();
            }
        }
    }
}

async fn couple(day: Arc<Day>, n: usize) {
    let people = [person(2 * n), person(2 * n + 1)];
    let (mut one, mut other) = (Client::new(day.address), Client::new(day.address));
    let (ana, ben) = tokio::join!(join(&day, &mut one, &people[0]), join(&day, &mut other, &people[1]));
    pair(&day, n % 4, n, [&people[0], &people[1]], [&ana, &ben]).await;

    let (mine, theirs, by_poll, by_events) = tokio::join!(
        append_entries(&day, &ana, 0),
        append_entries(&day, &ben, 1),
        listen_by_poll(&day, &ana),
        listen_by_events(&day, &ben),
    );

    // Both read the whole log: no gaps, the same for both, every acknowledged message at its `seq`.
    let mut logs = Vec::new();
    for (client, token) in [(&mut one, &ana), (&mut other, &ben)] {
        let answer =
            client.call("GET", "/v1/couple/entries?after=0&limit=200", Some(token), None, None).await;
        logs.push(answer.body["entries"].as_array().unwrap().clone());
    }
    let (log, partners) = (&logs[0], &logs[1]);
    assert_eq!(log[0]["kind"], "paired");
    assert_eq!(log.len(), MESSAGES + 1, "an entry is lost or duplicated: {log:?}");
    for (n, (entry, partners)) in log.iter().zip(partners).enumerate() {
        assert_eq!(entry["seq"], n + 1);
        for field in ["seq", "kind", "body", "created_at"] {
            assert_eq!(entry[field], partners[field]);
        }
    }
    for (seq, id) in mine.into_iter().chain(theirs) {
        let text = log[usize::try_from(seq).unwrap() - 1]["body"]["text"].as_str().unwrap();
        assert_eq!(text, format!("message {id} 💌"), "an acknowledged message is not at its `seq`");
    }
    for received in [by_poll, by_events] {
        for (entry, received) in log.iter().zip(&received) {
            assert_eq!((&entry["seq"], &entry["body"]), (&received["seq"], &received["body"]));
        }
    }
}

/// Kills the server at random times during the work, and restarts it.
async fn kill_and_restart(
    day: Arc<Day>,
    binary: PathBuf,
    settings: Vec<(&str, &str)>,
    kills: usize,
    steps: usize,
) -> Server {
    let mut server = Server::spawn(&binary, &day.folder, day.address, &settings);
    let mut moments: Vec<usize> = (0..kills).map(|_| random(steps)).collect();
    moments.sort_unstable();
    for moment in moments {
        while day.progress.load(Ordering::SeqCst) < moment {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(random(150) as u64)).await;
        server.kill();
        server = Server::spawn(&binary, &day.folder, day.address, &settings);
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_couples_lose_no_message_while_the_server_is_killed() {
    let (couples, kills) = (setting("COUPLE_DAY_COUPLES", 100), setting("COUPLE_DAY_KILLS", 10));
    let folder = tempfile::tempdir().unwrap();
    let day = Arc::new(Day {
        folder: folder.path().to_owned(),
        address: free_address(),
        progress: AtomicUsize::new(0),
    });
    // Acknowledged steps: sign-up, confirmation, invite, answer, messages.
    let steps = couples * (4 + 2 + MESSAGES) - couples;
    let settings = vec![("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn"), ("COUPLE_METRICS", "on")];
    let killer = tokio::spawn(kill_and_restart(day.clone(), support::binary(), settings, kills, steps));
    let all: Vec<_> = (0..couples).map(|n| tokio::spawn(couple(day.clone(), n))).collect();
    for one in all {
        one.await.unwrap();
    }
    let server = killer.await.unwrap();
    server.until_ready().await;
    nothing_waits(&day, &server).await;
    every_mail_was_sent(&day.folder, couples);
    println!("{couples} couples, {kills} kills, {} acknowledged steps", day.progress.load(Ordering::SeqCst));
}

/// Checks that no job is left or dead, except scheduled ones.
async fn nothing_waits(day: &Day, server: &Server) {
    let mut client = Client::new(server.address);
    let mut metrics = String::new();
    // A killed worker's job runs again when its lease of 30 s has ended, and jobs are counted every 15 s.
    for _ in 0..650 {
        if let Ok(answer) = client.send("GET", "/metrics", None, None, &[]).await {
            metrics =
                String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
            let none = |state: &str| {
                metrics.contains(&format!("couple_jobs{{queue=\"mail\",state=\"{state}\"}} 0\n"))
            };
            if none("ready") && none("waiting") && none("dead") {
                return;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("jobs are left in {}: {metrics}", day.folder.display());
}

fn every_mail_was_sent(folder: &Path, couples: usize) {
    for n in 0..couples * 2 {
        let person = person(n);
        let mails = mails_to(folder, &person.mailbox);
        assert!(mails.iter().any(|mail| code_in(mail).is_some()), "{} got no code", person.email);
    }
}
