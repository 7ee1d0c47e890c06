//! Races of two different changes: both are committed concurrently, many times, and then an invariant holds.

use std::{future::Future, sync::Arc};

use couple_core::{
    Change, CommitError, Committed, Conflict, DisplayName, IdempotencyChange, OutcomeRecord, Store,
    account::{Account, AccountChange, SeenToken, TokenKind, Tries},
    date::{CoupleDate, DateChange},
    digest,
    job::JobChange,
    media::{Media, MediaChange},
    pairing::{Couple, PairingChange, Side},
    timeline::{Body, TimelineChange},
};

use crate::world::{World, all, append, claim, concurrently, must, same};

/// Number of rounds of each race.
const ROUNDS: u32 = 20;

/// Sample data with other ids than the rest of a check.
fn world() -> World {
    World::new(3)
}

/// Commits two lists of changes concurrently, and returns the result of each.
async fn both<const N: usize, const M: usize>(
    store: &Arc<impl Store>,
    one: [Change; N],
    other: [Change; M],
) -> [Result<Committed, Conflict>; 2] {
    let results = concurrently(store, vec![one.into(), other.into()]).await;
    results.try_into().expect("two commits have two results")
}

/// Commits a change beside the end of its couple: it takes effect before the end, or conflicts.
async fn race_with_end<T: PartialEq + std::fmt::Debug, R: Future<Output = T>>(
    store: &Arc<impl Store>,
    (world, couple): (&World, &Couple),
    change: Change,
    read: impl Fn() -> R,
    what: &str,
) {
    let end = PairingChange::End { id: couple.id, members: couple.members, at: world.later(1), by: None };
    let end = async {
        must(store, end).await;
        read().await
    };
    let (result, at_end) = tokio::join!(store.commit(vec![change]), end);
    match result {
        Ok(_) | Err(CommitError::Conflict(Conflict::CoupleEnded(_))) => {}
        other => panic!("{what} beside the end of the couple has another conflict: {other:?}"),
    }
    let what = format!("{what} is written after the end of the couple was acknowledged, or undoes the end");
    same(&read().await, &at_end, &what);
    let ended_at = store.couple(couple.id).await.unwrap().and_then(|couple| couple.ended_at);
    same(&ended_at, &Some(world.later(1)), &what);
}

/// An abandoned job is claimed by one of two concurrent commits (J1).
pub(crate) async fn abandoned_job_is_claimed_once(store: &Arc<impl Store>) {
    let world = world();
    for round in 0..ROUNDS {
        let queue = format!("abandoned {round}");
        must(store, JobChange::Enqueue(world.job(&queue))).await;
        claim(store, &queue, world.now(), 30, 1).await;
        let again = |claim| JobChange::ClaimAbandoned {
            queue: queue.clone(),
            now: world.later(30),
            lease_until: world.later(60),
            claim,
        };
        let results = both(store, [again(2).into()], [again(3).into()]).await;
        let claimed = results.into_iter().flatten().map(|result| result.into_claimed_jobs().len());
        same(&claimed.sum::<usize>(), &1, "an abandoned job is claimed by another number of two claimers");
    }
}

/// A worker whose lease has ended changes the job, or another worker claims it (J4).
pub(crate) async fn ended_lease_is_used_or_taken(store: &Arc<impl Store>) {
    let world = world();
    // Ten rounds for each change of a worker.
    for round in 0..50 {
        let queue = format!("ended {round}");
        let job = world.job(&queue);
        must(store, JobChange::Enqueue(job.clone())).await;
        claim(store, &queue, world.now(), 30, 1).await;
        let again = JobChange::ClaimAbandoned {
            queue: queue.clone(),
            now: world.later(30),
            lease_until: world.later(60),
            claim: 2,
        };
        let (id, claim, due_at, at) = (job.id, 1, world.later(90), world.later(30));
        let late = match round % 5 {
            0 => JobChange::Renew { id, claim, lease_until: due_at },
            1 => JobChange::Finish { id, claim },
            2 => JobChange::Retry { id, claim, due_at },
            3 => JobChange::Defer { id, claim, due_at },
            _ => JobChange::Bury { id, claim, error: "error".to_owned(), at },
        };
        let what = format!("not one of two workers has the job, after a claim of it beside {late:?}");
        let [changed, claimed] = both(store, [late.into()], [again.into()]).await;
        let claimed = claimed.map_or(0, |result| result.into_claimed_jobs().len());
        same(&(usize::from(changed.is_ok()) + claimed), &1, &what);
    }
}

/// A couple with one text entry of the first member.
async fn couple_with_an_entry(store: &Arc<impl Store>, world: &World) -> Couple {
    let couple = world.stored_couple(store).await;
    all(store, vec![append(couple.id, world.entry("one"))]).await;
    couple
}

/// An entry that is edited and deleted concurrently is a tombstone without a body (T8).
pub(crate) async fn edited_tombstone_has_no_body(store: &Arc<impl Store>) {
    let world = world();
    for _ in 0..ROUNDS {
        let couple = couple_with_an_entry(store, &world).await.id;
        let (seq, author, at, body) = (1, Side::First, world.later(1), Body::from_stored("{\"late\":1}"));
        let edit = TimelineChange::Edit { couple, seq, author, body, at };
        let delete = TimelineChange::Delete { couple, seq, author, at };
        let [_, deleted] = both(store, [edit.into()], [delete.into()]).await;
        assert!(deleted.is_ok(), "an entry cannot be deleted beside an edit: {deleted:?}");
        let entry = store.entry(couple, seq).await.unwrap().expect("a tombstone is found");
        let what = "an entry that is edited and deleted concurrently has a body, or is no tombstone";
        same(&(entry.deleted_at, entry.body), &(Some(at), None), what);
    }
}

/// Concurrent reactions of both members are both stored (T9).
pub(crate) async fn reactions_of_both_members_are_stored(store: &Arc<impl Store>) {
    let world = world();
    for _ in 0..ROUNDS {
        let couple = couple_with_an_entry(store, &world).await.id;
        let react =
            |side| TimelineChange::React { couple, seq: 1, side, emoji: Some("👍".to_owned()) }.into();
        let results = both(store, [react(Side::First)], [react(Side::Second)]).await;
        assert!(results.iter().all(Result::is_ok), "concurrent reactions conflict: {results:?}");
        let reactions = store.entry(couple, 1).await.unwrap().expect("an entry is found").reactions;
        let expected = [(); 2].map(|()| Some("👍".to_owned()));
        same(&reactions, &expected, "of concurrent reactions of both members, one is lost");
    }
}

/// Concurrent read positions of both members are both stored (T10).
pub(crate) async fn read_positions_of_both_members_are_stored(store: &Arc<impl Store>) {
    let world = world();
    for _ in 0..ROUNDS {
        let couple = couple_with_an_entry(store, &world).await.id;
        let read = |side| TimelineChange::MarkRead { couple, side, seq: 1 }.into();
        let results = both(store, [read(Side::First)], [read(Side::Second)]).await;
        assert!(results.iter().all(Result::is_ok), "concurrent read positions conflict: {results:?}");
        let read = store.couple(couple).await.unwrap().expect("a couple is found").read;
        same(&read, &[1, 1], "of concurrent read positions of both members, one is lost");
    }
}

/// No entry is written to a log after its couple has ended (T11).
pub(crate) async fn no_entry_is_appended_after_the_end(store: &Arc<impl Store>) {
    let world = world();
    for _ in 0..ROUNDS {
        let couple = couple_with_an_entry(store, &world).await;
        let head = || async { store.couple(couple.id).await.unwrap().map(|couple| couple.head_seq) };
        let change = append(couple.id, world.entry("two"));
        race_with_end(store, (&world, &couple), change, head, "an entry").await;
    }
}

/// No picture is added or used after its couple has ended (M6).
pub(crate) async fn no_picture_is_added_or_used_after_the_end(store: &Arc<impl Store>) {
    let world = world();
    for round in 0..ROUNDS {
        let couple = world.stored_couple(store).await;
        let owner = couple.members[0];
        let photo = world.photo(couple.id, owner, "photo");
        let insert = || MediaChange::Insert { media: photo.clone(), most: 1_000 };
        let (change, what) = if round % 2 == 0 {
            (insert(), "a picture")
        } else {
            must(store, insert()).await;
            (
                MediaChange::Use { couple: couple.id, id: photo.id, owner, ready: false },
                "the use of a picture",
            )
        };
        let uses = || async { store.media(photo.id).await.unwrap().map(|Media { uses, .. }| uses) };
        race_with_end(store, (&world, &couple), change.into(), uses, what).await;
    }
}

/// No date is added, changed or removed after its couple has ended (DA4).
pub(crate) async fn no_date_is_changed_after_the_end(store: &Arc<impl Store>) {
    let world = world();
    for round in 0..ROUNDS {
        let couple = world.stored_couple(store).await;
        let date = world.date(couple.id);
        let put = |version| DateChange::Put { date: CoupleDate { version, ..date.clone() }, most: 9 };
        let (change, what) = match round % 3 {
            0 => (put(0), "a date"),
            kind => {
                must(store, put(0)).await;
                let remove = DateChange::Remove { couple: couple.id, id: date.id, version: 1 };
                if kind == 1 { (put(1), "a change of a date") } else { (remove, "the removal of a date") }
            }
        };
        let dates = || async { store.dates_of(couple.id).await.unwrap() };
        race_with_end(store, (&world, &couple), change.into(), dates, what).await;
    }
}

/// No session with a former version of the account is left when its password is changed and its sessions are ended (A9).
pub(crate) async fn no_session_survives_an_update_that_ends_sessions(store: &Arc<impl Store>) {
    let world = world();
    for round in 0..ROUNDS {
        let account = world.account(&format!("updated{round}"));
        must(store, AccountChange::Insert(account.clone())).await;
        let session = AccountChange::InsertSession { session: world.session(account.id), version: 0 };
        let updated = Account { display_name: DisplayName::from_stored("New"), ..account.clone() };
        let end = AccountChange::EndSessions { account: account.id, except: None };
        let update = [AccountChange::Update(updated).into(), end.into()];
        let [_, updated] = both(store, [session.into()], update).await;
        assert!(updated.is_ok(), "an account cannot be updated beside a new session: {updated:?}");
        let what = "a session survives a concurrent update of its account that ends all sessions";
        same(&store.sessions_of(account.id).await.unwrap(), &Vec::new(), what);
        let version = store.account(account.id).await.unwrap().map(|account| account.version);
        same(&version, &Some(1), "a new session undoes a concurrent update of its account");
    }
}

/// A token is redeemed in the state that the caller has seen, also beside a wrong code (A6).
pub(crate) async fn token_is_redeemed_before_a_wrong_code_or_not(store: &Arc<impl Store>) {
    let world = world();
    for round in 0..ROUNDS {
        let token = world.token(TokenKind::SignIn, &format!("redeemed{round}"));
        must(store, AccountChange::InsertToken(token.clone())).await;
        let seen = SeenToken { tries: Some(Tries::Own(0)), used_form: None };
        let redeem = AccountChange::RedeemToken { id: token.id, seen, at: world.later(1) };
        let count = AccountChange::CountTries {
            kind: token.kind,
            email: token.email.key().clone(),
            network: digest(&[b"network"]),
            at: world.later(1),
        };
        let [redeemed, counted] = both(store, [redeem.into()], [count.into()]).await;
        assert!(counted.is_ok(), "a wrong code cannot be counted beside a correct one: {counted:?}");
        let token = store.token(token.id).await.unwrap().expect("a token is found");
        let expected = if redeemed.is_ok() { (Some(world.later(1)), 0) } else { (None, 1) };
        let what = "a token that is redeemed beside a wrong code has another state than one of them leaves";
        same(&(token.used_at, token.tries), &expected, what);
    }
}

/// An expired outcome is replaced by one of two concurrent commits (I2).
pub(crate) async fn expired_outcome_is_replaced_once(store: &Arc<impl Store>) {
    let world = world();
    for round in 0..ROUNDS {
        let name = format!("expired {round}");
        let record = |outcome: &str, from| {
            IdempotencyChange::Record(OutcomeRecord {
                scope: digest(&[name.as_bytes()]),
                request: digest(&[outcome.as_bytes()]),
                outcome: outcome.to_owned(),
                recorded_at: world.later(from),
                expires_at: world.later(from + 60),
            })
        };
        must(store, record("0", 0)).await;
        let results = both(store, [record("1", 60).into()], [record("2", 60).into()]).await;
        let replaced = results.iter().filter(|result| result.is_ok()).count();
        same(&replaced, &1, "an expired outcome is replaced by another number of two concurrent commits");
    }
}
