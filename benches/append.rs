//! Appending an entry through HTTP on SQLite at 1,000 couples, on the disk before the answer: the peak rate with 64
//! connections, then p50 and p99 at half of it, counted from when each request was due.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench says what it saw")]

mod support;

use std::{sync::Arc, time::Duration};

use couple::{
    AccountId, Backend, CoupleId, Store as _,
    account::{Account, AccountChange, Session},
    core::{Change, DisplayName, EmailAddress, Ports, SessionId, digest, limits::Unlimited},
    pairing::{Couple, PairingChange},
    store::sql::SqliteOptions,
};
use support::{load, runtime, serve};

const COUPLES: usize = 1_000;

/// A person who is signed in with a known token.
fn person(ports: &Ports, n: usize, bearer: &str) -> (AccountId, [Change; 2]) {
    let (now, id) = (ports.now(), AccountId::new(&*ports.clock, &*ports.entropy));
    let account = Account {
        id,
        email: EmailAddress::parse("email", &format!("p{n}@example.org")).unwrap(),
        display_name: DisplayName::from_stored(format!("P{n}")),
        locale: None,
        time_zone: None,
        birthday: None,
        password: None,
        created_at: now,
        deletion_due: None,
        version: 0,
    };
    let session = Session {
        id: SessionId::new(&*ports.clock, &*ports.entropy),
        account: id,
        token: digest(&[bearer.as_bytes()]),
        device: None,
        created_at: now,
        authenticated_at: now,
        seen_at: now,
        expires_at: now.plus(Duration::from_hours(1)),
    };
    (id, [AccountChange::Insert(account).into(), AccountChange::InsertSession { session, version: 0 }.into()])
}

async fn seed(ports: &Ports) -> Vec<String> {
    let mut tokens = Vec::new();
    for n in 0..COUPLES {
        let bearers = [format!("bench-{n}-first-0123456789"), format!("bench-{n}-second-0123456789")];
        let (first, mut changes) = {
            let (id, changes) = person(ports, 2 * n, &bearers[0]);
            (id, changes.to_vec())
        };
        let (second, more) = person(ports, 2 * n + 1, &bearers[1]);
        changes.extend(more);
        let couple = Couple {
            id: CoupleId::new(&*ports.clock, &*ports.entropy),
            members: [first, second],
            since: ports.now(),
            epoch: 1,
            ended_at: None,
            title: None,
            anniversary: None,
            previous: None,
            restore: [false, false],
            head_seq: 0,
            read: [0, 0],
        };
        changes.push(PairingChange::Found(couple).into());
        ports.store.commit(changes).await.unwrap();
        tokens.extend(bearers);
    }
    tokens
}

fn main() {
    let (server, generator) = (runtime(2), runtime(1));
    let folder = support::folder();
    let (backend, tokens) = server.block_on(async {
        let store = SqliteOptions::new(folder.join("couple.db")).open().await.unwrap();
        let backend = Backend::builder()
            .store(store)
            .keys(couple::Keyring::new([7; 32]))
            .limits(Unlimited)
            .build()
            .unwrap();
        let tokens = seed(backend.ports()).await;
        (backend, Arc::new(tokens))
    });
    let address = serve(&server, backend);
    let entry = |tokens: Arc<Vec<String>>, run: &'static str| {
        move |n: u64| {
            let index = usize::try_from(n).unwrap() * 7 % tokens.len();
            let body = format!(
                r#"{{"client_id":"{run}-{n}","kind":"text","body":{{"text":"good morning, sleep well?"}}}}"#
            );
            ("/v1/couple/entries", Some(tokens[index].clone()), body)
        }
    };
    let time = Duration::from_secs(5);
    let peak = generator.block_on(load(address, 64, time, None, 201, entry(tokens.clone(), "peak")));
    let half = load(address, 64, time, Some(peak.per_second / 2.0), 201, entry(tokens, "half"));
    let half = generator.block_on(half);
    println!("entries per second at the peak:  {:>8.0}", peak.per_second);
    println!("entries per second at half load: {:>8.0}", half.per_second);
    println!("p50 at half load:                {:>8.2} ms", half.p50.as_secs_f64() * 1e3);
    println!("p99 at half load:                {:>8.2} ms", half.p99.as_secs_f64() * 1e3);
    server.shutdown_background();
    drop(std::fs::remove_dir_all(folder));
}
