//! Couples with sessions, and requests that append entries.
#![allow(clippy::unwrap_used, dead_code, reason = "each bench uses a part of it, and may panic")]

use std::{sync::Arc, time::Duration};

use couple::{
    AccountId,
    account::{Account, AccountChange, Session},
    core::{Change, DisplayName, EmailAddress, Ports, digest},
    pairing::{Couple, PairingChange},
};

/// Account with a session whose token is known.
fn person(ports: &Ports, n: usize, bearer: &str) -> (AccountId, [Change; 2]) {
    let (now, id) = (ports.now(), ports.new_id());
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
        id: ports.new_id(),
        account: id,
        token: digest(&[bearer.as_bytes()]),
        device: None,
        created_at: now,
        authenticated_at: now,
        seen_at: now,
        expires_at: now.plus(Duration::from_hours(1)),
        widget_token: None,
    };
    (id, [AccountChange::Insert(account).into(), AccountChange::InsertSession { session, version: 0 }.into()])
}

/// Creates couples; returns the tokens of their members.
pub(crate) async fn seed(ports: &Ports, couples: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    for n in 0..couples {
        let bearers = [format!("bench-{n}-first-0123456789"), format!("bench-{n}-second-0123456789")];
        let (first, mut changes) = {
            let (id, changes) = person(ports, 2 * n, &bearers[0]);
            (id, changes.to_vec())
        };
        let (second, more) = person(ports, 2 * n + 1, &bearers[1]);
        changes.extend(more);
        let couple = Couple {
            id: ports.new_id(),
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
        changes.push(PairingChange::Pair(couple).into());
        ports.store.commit(changes).await.unwrap();
        tokens.extend(bearers);
    }
    tokens
}

/// Generator of requests that append entries; the accounts take turns.
pub(crate) fn entry(
    tokens: Arc<Vec<String>>,
    run: &'static str,
) -> impl Fn(u64) -> (&'static str, Option<String>, String) {
    move |n: u64| {
        let index = usize::try_from(n).unwrap() * 7 % tokens.len();
        let body = format!(
            r#"{{"client_id":"{run}-{n}","kind":"text","body":{{"text":"good morning, sleep well?"}}}}"#
        );
        ("/v1/couple/entries", Some(tokens[index].clone()), body)
    }
}
