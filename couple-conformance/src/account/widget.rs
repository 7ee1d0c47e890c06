//! Widget tokens: sessions with the couple of their account, the limit of an account, uniqueness.

use std::sync::Arc;

use couple_core::{
    Conflict, Digest, Store,
    account::{Account, AccountChange, Session, SessionToken},
    digest,
    pairing::{Couple, PairingChange, Side},
    timeline::TimelineChange,
};

use super::sessions;
use crate::{
    samples::similar_digests,
    world::{World, accepted, all, append, concurrently, insert, must, refused, same},
};

/// Maximum number of sessions with a widget token in these checks.
const MOST: u32 = 3;

fn set(session: &Session, token: Option<Digest>) -> AccountChange {
    AccountChange::SetWidgetToken { account: session.account, id: session.id, token, most: MOST }
}

fn token(name: &str) -> Digest {
    digest(&[b"widget", name.as_bytes()])
}

async fn find(store: &impl Store, token: SessionToken) -> Option<(Session, Account, Option<Couple>)> {
    store.session_and_couple(&token).await.unwrap()
}

/// A session is found by either token with the present state of its account and couple, and not after its end.
pub async fn a22_session_is_found_with_its_couple(store: impl Store) {
    let world = World::default();
    let (mut ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let [mut session, plain, replaced] = sessions(&store, &world, ana.id).await;
    must(&store, set(&session, Some(token("one")))).await;
    session.widget_token = Some(token("one"));
    let what = "a session does not have the present state of its account and couple";
    let mut couple: Option<Couple> = None;
    for step in 0..6 {
        match step {
            1 => {
                let paired = world.couple([ben.id, ana.id]);
                must(&store, PairingChange::Pair(paired.clone())).await;
                couple = Some(paired);
            }
            2 => {
                let couple = couple.as_mut().unwrap();
                let read = TimelineChange::MarkRead { couple: couple.id, side: Side::Second, seq: 1 };
                all(&store, vec![append(couple.id, world.entry("one")), read.into()]).await;
                (couple.head_seq, couple.read) = (1, [0, 1]);
            }
            3 => {
                let couple = couple.as_mut().unwrap();
                couple.anniversary = Some("2020-02-29".to_owned());
                let anniversary = Some(couple.anniversary.clone());
                must(&store, PairingChange::Describe { id: couple.id, title: None, anniversary }).await;
            }
            4 => {
                let deletion_due = Some(world.later(9));
                ana = Account { deletion_due, ..ana };
                must(&store, AccountChange::Update(ana.clone())).await;
                ana.version += 1;
            }
            5 => {
                let couple = couple.take().unwrap();
                let end = PairingChange::End {
                    id: couple.id,
                    members: couple.members,
                    at: world.later(9),
                    by: None,
                };
                must(&store, end).await;
            }
            _ => {}
        }
        let expected = |session: &Session| Some((session.clone(), ana.clone(), couple.clone()));
        let by_widget = find(&store, SessionToken::Widget(token("one"))).await;
        same(&by_widget, &expected(&session), what);
        for one in [&session, &plain] {
            same(&find(&store, SessionToken::Bearer(one.token)).await, &expected(one), what);
        }
    }
    let what = "a session is found by a token of the other kind";
    same(&find(&store, SessionToken::Bearer(token("one"))).await, &None, what);
    same(&find(&store, SessionToken::Widget(session.token)).await, &None, what);
    same(&store.session_by_token(&token("one")).await.unwrap(), &None, what);
    let what = "a session is found by a widget token that was replaced or removed";
    must(&store, set(&replaced, Some(token("old")))).await;
    must(&store, set(&replaced, Some(token("new")))).await;
    same(&find(&store, SessionToken::Widget(token("old"))).await, &None, what);
    let found = find(&store, SessionToken::Widget(token("new"))).await.map(|(session, ..)| session.id);
    same(&found, &Some(replaced.id), "a session is not found by its new widget token");
    must(&store, set(&replaced, None)).await;
    same(&find(&store, SessionToken::Widget(token("new"))).await, &None, what);
    let what = "an ended session is found by its widget token";
    let ended = Conflict::SessionEnded(session.id);
    for end in [
        AccountChange::EndSession { account: ana.id, id: session.id },
        AccountChange::EndSessions { account: ana.id, except: None },
        AccountChange::PurgeSessions { before: world.later(9_999), idle: world.now(), cap: 9 },
        AccountChange::Erase { id: ana.id, version: ana.version },
    ] {
        must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
        let again = AccountChange::InsertSession { session: session.clone(), version: ana.version };
        must(&store, again).await;
        let is_found = find(&store, SessionToken::Widget(token("one"))).await.is_some();
        same(&is_found, &true, "a session that is added with a widget token is not found by it");
        must(&store, end).await;
        same(&find(&store, SessionToken::Widget(token("one"))).await, &None, what);
        refused(&store, set(&session, Some(token("late"))), ended, "an ended session gets a widget token")
            .await;
        refused(&store, set(&session, None), ended, "the widget token of an ended session is removed").await;
    }
}

/// The number of sessions of an account with a widget token is limited, and widget tokens are unique.
pub async fn a23_widget_tokens_are_limited_and_unique(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&*store, vec![insert(&ana), insert(&ben)]).await;
    let theirs: [Session; 3] = sessions(&*store, &world, ben.id).await;
    for (n, session) in theirs.iter().enumerate() {
        let change = set(session, Some(token(&format!("ben {n}"))));
        accepted(&*store, change, "of changes one by one, fewer succeed than fit").await;
    }
    let own: [Session; 50] = sessions(&*store, &world, ana.id).await;
    let of = |n: usize| token(&format!("ana {n}"));
    let commits = own.iter().enumerate().map(|(n, session)| vec![set(session, Some(of(n))).into()]);
    let results = concurrently(&store, commits.collect()).await;
    let what = "concurrent changes exceed the limit, or fewer succeed than fit";
    same(&results.iter().filter(|result| result.is_ok()).count(), &(MOST as usize), what);
    for (n, result) in results.iter().enumerate() {
        let found = find(&*store, SessionToken::Widget(of(n))).await.map(|(session, ..)| session.id);
        let what = "the widget tokens are not those whose change succeeded";
        same(&found, &result.is_ok().then_some(own[n].id), what);
    }
    let has = |wanted: bool| own.iter().zip(&results).find(|(_, result)| result.is_ok() == wanted).unwrap().0;
    let (with, without) = (has(true), has(false));
    let full = Conflict::TooManyWidgetTokens(ana.id);
    refused(&*store, set(without, Some(token("x"))), full, "a widget token exceeds the limit").await;
    accepted(&*store, set(without, None), "a session without a widget token cannot lose it at the limit")
        .await;
    accepted(&*store, set(with, Some(token("y"))), "a widget token cannot be replaced at the limit").await;
    must(&*store, AccountChange::EndSession { account: ana.id, id: with.id }).await;
    accepted(&*store, set(without, Some(token("x"))), "the widget token of an ended session still counts")
        .await;
    must(&*store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    let [one, other]: [Session; 2] = sessions(&*store, &world, ana.id).await;
    for similar in similar_digests() {
        let found = find(&*store, SessionToken::Widget(similar)).await;
        same(&found, &None, "a session is found by a similar widget token");
        accepted(&*store, set(&one, Some(similar)), "a widget token is taken for a similar one").await;
        accepted(&*store, set(&one, Some(similar)), "a session cannot keep its widget token").await;
        let taken = Conflict::SessionExists(other.id);
        refused(&*store, set(&other, Some(similar)), taken, "two sessions have a widget token").await;
        let taken = Session { widget_token: Some(similar), ..world.session(ana.id) };
        let add = AccountChange::InsertSession { session: taken.clone(), version: 0 };
        refused(
            &*store,
            add,
            Conflict::SessionExists(taken.id),
            "a session with a used widget token is added",
        )
        .await;
    }
}
