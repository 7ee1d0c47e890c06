//! Invites: one per pair of addresses, closed once, limited, listed by their target.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Change, Conflict, Digest, EmailAddress, EmailKey, InviteId, Store, Timestamp,
    pairing::{Block, Couple, Invite, InviteState, PairingChange, pair_key},
};

use super::{closed_states, end, insert_invite};
use crate::{
    samples::{MOMENT, before_1970, longest_ascii, near, similar_digests},
    world::{World, accepted, all, must, race, refused, same},
};

/// An invite is closed once: accepted, declined or withdrawn.
pub async fn p3_invite_is_closed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let ana = world.account_id();
    let other = world.invite(ana, "ana", None);
    must(&store, insert_invite(other.clone())).await;
    let ends = closed_states(&world);
    for to in ends {
        let invite = world.invite(ana, "ana", Some("ben"));
        must(&store, insert_invite(invite.clone())).await;
        must(&store, PairingChange::CloseInvite { id: invite.id, to }).await;
        let closed = Some(Invite { state: to, ..invite.clone() });
        let what = "a closed invite is not found with the state to which it was closed";
        same(&store.invite(invite.id).await.unwrap(), &closed, what);
        same(&store.invite_by_code(&invite.code).await.unwrap(), &closed, what);
        same(&store.invite_by_link(&invite.link).await.unwrap(), &closed, what);
        for late in ends {
            let late = PairingChange::CloseInvite { id: invite.id, to: late };
            refused(&store, late, Conflict::InviteClosed(invite.id), "a closed invite is closed again").await;
        }
        same(&store.invite(invite.id).await.unwrap(), &closed, what);
        let what = "closing an invite does not close exactly this one";
        same(&store.invites_of(ana).await.unwrap().as_slice(), &std::slice::from_ref(&other), what);
        same(&store.invites_to(world.email("ben").key()).await.unwrap(), &Vec::new(), what);
    }
    let missing = world.invite(ana, "ana", None).id;
    let close = PairingChange::CloseInvite { id: missing, to: InviteState::Declined };
    refused(&store, close, Conflict::InviteClosed(missing), "a missing invite is closed").await;
    // Last, because the order of concurrent commits is not known: a fault that one commit alone shows is found above.
    let invite = world.invite(ana, "ana", None);
    must(&store, insert_invite(invite.clone())).await;
    let commits = (0..51).map(|n| vec![PairingChange::CloseInvite { id: invite.id, to: ends[n % 3] }.into()]);
    let succeeded = race(&store, commits.collect()).await;
    same(&succeeded, &1, "of 51 concurrent changes that close an invite other than one succeeded");
}

/// A pair of addresses has one open invite, in either direction.
///
/// After it is closed the pair is free again.
pub async fn p4_address_pair_has_one_open_invite(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (ana, ben) = (world.account_id(), world.account_id());
    let commits = (0..50).map(|n| {
        let invite = if n % 2 == 0 {
            world.invite(ana, "ana", Some("ben"))
        } else {
            world.invite(ben, "ben", Some("ana"))
        };
        vec![insert_invite(invite).into()]
    });
    let succeeded = race(&store, commits.collect()).await;
    same(&succeeded, &1, "of 50 concurrent invites between two addresses other than one succeeded");
    let pair = world.invite(ana, "ana", Some("ben")).pair_key().unwrap();
    let mut open =
        store.invite_between(&pair).await.unwrap().expect("an open invite is not found by its pair key");
    let crossed = Conflict::InviteCrossed;
    let twins = || [world.invite(ana, "ana", Some("ben")), world.invite(ben, "ben", Some("ana"))];
    for to in closed_states(&world) {
        for twin in twins() {
            refused(&store, insert_invite(twin), crossed, "a second invite between two addresses is open")
                .await;
        }
        // An expired invite takes the pair until it is closed.
        for twin in twins() {
            let late = Invite { created_at: world.later(9000), expires_at: world.later(9999), ..twin };
            refused(
                &store,
                insert_invite(late),
                crossed,
                "an expired invite does not take its pair of addresses",
            )
            .await;
        }
        must(&store, PairingChange::CloseInvite { id: open.id, to }).await;
        let found = store.invite_between(&pair).await.unwrap();
        same(&found, &None, "a closed invite is found by its pair key");
        open = twins()[usize::from(to == InviteState::Declined)].clone();
        accepted(&store, insert_invite(open.clone()), "a closed invite takes its pair of addresses").await;
        let found = store.invite_between(&pair).await.unwrap();
        same(&found.as_ref(), &Some(&open), "an open invite is not found by its pair key");
    }
    // Another pair with one of the addresses, or with a similar one.
    let others = [("cleo", Some("ben")), ("ana", Some("cleo")), ("ben", Some("dan")), ("dan", Some("ana"))];
    for (from, to) in others {
        let invite = world.invite(world.account_id(), from, to);
        accepted(&store, insert_invite(invite), "an invite between two addresses takes another pair").await;
    }
    for key in near("ben@example.org") {
        let target = Some(EmailAddress::from_stored(key.as_str(), EmailKey::from_stored(key.as_str())));
        let invite = Invite { target, ..world.invite(ana, "ana", None) };
        accepted(&store, insert_invite(invite), "an invite between two addresses takes another pair").await;
    }
    // Invites without a target address have no pair.
    for _ in 0..2 {
        let invite = insert_invite(world.invite(ana, "ana", None));
        accepted(&store, invite, "an invite without a target address takes a pair").await;
    }
}

/// An account in a couple cannot add an invite.
pub async fn p5_paired_account_cannot_invite(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    for member in couple.members {
        let invite = insert_invite(world.invite(member, "ana", None));
        refused(&store, invite, Conflict::Paired(member), "an account in a couple adds an invite").await;
    }
    let free = insert_invite(world.invite(world.account_id(), "ben", None));
    accepted(&store, free, "an account without a couple cannot invite").await;
    must(&store, end(&couple, world.now())).await;
    for (member, name) in couple.members.into_iter().zip(["cleo", "dan"]) {
        let invite = insert_invite(world.invite(member, name, None));
        accepted(&store, invite, "a member of an ended couple cannot invite").await;
    }
}

/// Withdrawing closes all open invites of the account and no others.
pub async fn p6_withdrawal_closes_all_open_invites(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let accepted_state = InviteState::Accepted { by: ben, couple: world.couple_id() };
    let expired = Invite { expires_at: before_1970(0), ..world.invite(ana, "ana", None) };
    let invites = [
        world.invite(ana, "ana", None),
        world.invite(ana, "ana", Some("cleo")),
        expired,
        world.invite(ana, "ana", Some("dan")),
        world.invite(ana, "ana", None),
        world.invite(ben, "ben", None),
        world.invite(ben, "ben", Some("cleo")),
    ];
    for invite in &invites {
        must(&store, insert_invite(invite.clone())).await;
    }
    must(&store, PairingChange::CloseInvite { id: invites[3].id, to: InviteState::Declined }).await;
    must(&store, PairingChange::CloseInvite { id: invites[4].id, to: accepted_state }).await;
    must(&store, PairingChange::WithdrawInvitesOf { inviter: ana }).await;
    let mut states = Vec::new();
    for invite in &invites {
        states.push(store.invite(invite.id).await.unwrap().unwrap().state);
    }
    use InviteState::{Declined, Open, Withdrawn};
    let expected = vec![Withdrawn, Withdrawn, Withdrawn, Declined, accepted_state, Open, Open];
    same(&states, &expected, "a withdrawal does not close exactly the open invites of the account");
    same(&store.invites_of(ana).await.unwrap(), &Vec::new(), "a withdrawn invite is listed");
    let to_cleo = store.invites_to(world.email("cleo").key()).await.unwrap();
    same(&to_cleo.as_slice(), &std::slice::from_ref(&invites[6]), "a withdrawn invite is listed");
    let again = insert_invite(world.invite(ana, "ana", Some("cleo")));
    accepted(&store, again, "a withdrawn invite takes its pair of addresses").await;
}

/// Concurrent invites of one account stop at the limit; closed and expired ones do not count.
pub async fn p15_open_invites_never_exceed_the_limit(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let ana = world.account_id();
    let of = |inviter, name: &str, limit| PairingChange::InsertInvite {
        invite: world.invite(inviter, name, None),
        limit,
    };
    for _ in 0..5 {
        let first = of(world.account_id(), "other", 1);
        accepted(&store, first, "an invite within the limit is refused").await;
    }
    let full = Conflict::TooManyInvites(ana);
    refused(&store, of(ana, "ana", 0), full, "an invite exceeds the limit of open ones").await;
    let succeeded = race(&store, (0..50).map(|_| vec![of(ana, "ana", 10).into()]).collect()).await;
    same(&succeeded, &10, "of 50 concurrent invites with a limit of 10 other than 10 succeeded");
    for limit in [1, 9, 10] {
        refused(&store, of(ana, "ana", limit), full, "an invite exceeds the limit of open ones").await;
    }
    accepted(&store, of(ana, "ana", 11), "an invite within the limit is refused").await;
    let sent = store.invites_of(ana).await.unwrap();
    for (invite, to) in sent.iter().zip(closed_states(&world)) {
        must(&store, PairingChange::CloseInvite { id: invite.id, to }).await;
        accepted(&store, of(ana, "ana", 11), "a closed invite counts toward the limit").await;
        refused(&store, of(ana, "ana", 11), full, "an invite exceeds the limit of open ones").await;
    }
    let of_ben = of(world.account_id(), "ben", 1);
    accepted(&store, of_ben, "invites of another account count toward the limit").await;
    // Those with a target count too.
    let cleo = world.account_id();
    must(&store, insert_invite(world.invite(cleo, "cleo", Some("dan")))).await;
    let second = of(cleo, "cleo", 1);
    refused(&store, second, Conflict::TooManyInvites(cleo), "an invite exceeds the limit of open ones").await;
    // All invites expire in an hour.
    let at = |after: Duration| {
        let created_at = world.later(3600).plus(after).minus(MOMENT);
        Invite { created_at, expires_at: world.later(9999), ..world.invite(ana, "ana", None) }
    };
    let early = PairingChange::InsertInvite { invite: at(Duration::ZERO), limit: 11 };
    refused(&store, early, full, "an invite exceeds the limit of open ones").await;
    let later = PairingChange::InsertInvite { invite: at(MOMENT), limit: 1 };
    accepted(&store, later, "an expired invite counts toward the limit").await;
}

/// Ids, codes and links of invites are unique; all 32 bytes are compared.
pub async fn p20_invite_code_and_link_are_unique(store: impl Store) {
    let world = World::default();
    let invite_with = |code: Option<Digest>, link: Option<Digest>| {
        let invite = world.invite(world.account_id(), "ana", None);
        Invite { code: code.unwrap_or(invite.code), link: link.unwrap_or(invite.link), ..invite }
    };
    let mut invites = Vec::new();
    for similar in similar_digests() {
        let found = store.invite_by_code(&similar).await.unwrap();
        same(&found, &None, "an invite is found by a similar code");
        let found = store.invite_by_link(&similar).await.unwrap();
        same(&found, &None, "an invite is found by a similar link");
        for invite in [invite_with(Some(similar), None), invite_with(None, Some(similar))] {
            accepted(&store, insert_invite(invite.clone()), "a code or link is taken for a similar one")
                .await;
            // A code is not a link.
            same(
                &store.invite_by_link(&invite.code).await.unwrap().filter(|one| one.id == invite.id),
                &None,
                "an invite is found by its code as a link",
            );
            same(
                &store.invite_by_code(&invite.link).await.unwrap().filter(|one| one.id == invite.id),
                &None,
                "an invite is found by its link as a code",
            );
            invites.push(invite);
        }
    }
    let closed = PairingChange::CloseInvite { id: invites[1].id, to: InviteState::Declined };
    must(&store, closed).await;
    invites[1].state = InviteState::Declined;
    for first in &invites[..2] {
        let code = (invite_with(Some(first.code), None), "an invite with a used code is added");
        let link = (invite_with(None, Some(first.link)), "an invite with a used link is added");
        let same_id = Invite { id: first.id, ..invite_with(None, None) };
        for (second, what) in [code, link, (same_id, "an invite with a used id is added")] {
            let exists = Conflict::InviteExists(second.id);
            refused(&store, insert_invite(second), exists, what).await;
        }
    }
    for invite in invites {
        let found = store.invite_by_code(&invite.code).await.unwrap();
        same(&found.as_ref(), &Some(&invite), "an invite is not found by its code");
        let found = store.invite_by_link(&invite.link).await.unwrap();
        same(&found.as_ref(), &Some(&invite), "an invite is not found by its link");
    }
}

/// Invites, couples and blocks are listed newest first, those of the same time by id, at most 200.
pub async fn p21_lists_have_the_newest_two_hundred(store: impl Store) {
    const COUNT: usize = 203;
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let cleo = world.email("cleo");
    // Later ids have earlier times; each four have the same. All have expired.
    let at = |n: u64| world.now().minus(Duration::from_secs(n / 4));
    let (mut of, mut to, mut blocks, mut couples) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut changes: Vec<Change> = Vec::new();
    for n in 0..COUNT as u64 {
        let expires_at = before_1970(0);
        let from = Invite { created_at: at(n), expires_at, ..world.invite(ana, "ana", None) };
        let name = format!("p{n}");
        let incoming =
            Invite { created_at: at(n), expires_at, ..world.invite(world.account_id(), &name, Some("cleo")) };
        let block = Block {
            blocker: ana,
            blocker_email: world.email("ana").key().clone(),
            blocked: world.account_id(),
            at: at(n),
        };
        let couple = Couple { since: at(n), ..world.couple([ben, world.account_id()]) };
        of.push((at(n), from.id));
        to.push((at(n), incoming.id));
        blocks.push((at(n), block.blocked));
        couples.push((at(n), couple.id));
        changes.extend([
            insert_invite(from).into(),
            insert_invite(incoming).into(),
            PairingChange::Block(block).into(),
            PairingChange::Pair(couple.clone()).into(),
            end(&couple, world.now()).into(),
        ]);
    }
    let others = [
        insert_invite(world.invite(ben, "ben", Some("ana"))),
        PairingChange::Block(Block {
            blocker: ben,
            blocker_email: world.email("ben").key().clone(),
            blocked: ana,
            at: world.later(9),
        }),
    ];
    changes.extend(others.map(Change::from));
    for changes in changes.chunks(100) {
        all(&store, changes.to_vec()).await;
    }
    for count in [203, 201, 200, 199] {
        let what = |rows: &str| {
            format!("of {count} {rows} not the newest 200 are listed, newest first and then by id")
        };
        let found = store.invites_of(ana).await.unwrap();
        let found: Vec<_> = found.iter().map(|invite| (invite.created_at, invite.id)).collect();
        same(&found, &newest(&mut of, count), &what("invites of an account"));
        let found = store.invites_to(cleo.key()).await.unwrap();
        let found: Vec<_> = found.iter().map(|invite| (invite.created_at, invite.id)).collect();
        same(&found, &newest(&mut to, count), &what("invites to an address"));
        let found = store.blocks_of(ana).await.unwrap();
        let found: Vec<_> = found.iter().map(|block| (block.at, block.blocked)).collect();
        same(&found, &newest(&mut blocks, count), &what("blocks"));
        let found = store.couples_of(ben).await.unwrap();
        let found: Vec<_> = found.iter().map(|couple| (couple.since, couple.id)).collect();
        same(
            &found,
            &newest(&mut couples, COUNT),
            &format!("of {COUNT} couples not the newest 200 are listed, newest first and then by id"),
        );
        let next = if count == 203 { 2 } else { 1 };
        for _ in 0..next {
            remove(&store, &mut of, &mut to).await;
            let blocked = blocks.remove(100).1;
            must(&store, PairingChange::Unblock { blocker: ana, blocked }).await;
        }
    }
}

/// Closes one of the invites of each list, and removes it from the list.
async fn remove(
    store: &impl Store,
    of: &mut Vec<(Timestamp, InviteId)>,
    to: &mut Vec<(Timestamp, InviteId)>,
) {
    for (list, state) in [(of, InviteState::Declined), (to, InviteState::Withdrawn)] {
        must(store, PairingChange::CloseInvite { id: list.remove(100).1, to: state }).await;
    }
}

/// The newest 200 of `count` rows, as they must be listed.
fn newest<T: Ord + Copy>(rows: &mut [(Timestamp, T)], count: usize) -> Vec<(Timestamp, T)> {
    rows.sort_unstable_by_key(|row| std::cmp::Reverse(*row));
    assert_eq!(rows.len(), count, "the check removes one row at a time");
    rows.iter().take(200).copied().collect()
}

/// Open invites to an address are found by exactly its key.
pub async fn p22_invite_target_is_compared_exactly(store: impl Store) {
    let world = World::default();
    let email = |key: &str| EmailAddress::from_stored("Typed@Example.org", EmailKey::from_stored(key));
    let keys: Vec<String> = ["cleo.a@example.org".to_owned()]
        .into_iter()
        .chain(near("cleo.a@example.org"))
        .chain([1, 2].map(|n| format!("{}@example.org.{n}", longest_ascii(64))))
        .collect();
    let mut expected = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let found = store.invites_to(email(key).key()).await.unwrap();
        same(&found, &Vec::new(), "an invite to a similar address is listed");
        let invite =
            Invite { target: Some(email(key)), ..world.invite(world.account_id(), &format!("p{n}"), None) };
        accepted(&store, insert_invite(invite.clone()), "a target address is taken for a similar one").await;
        let found = store.invite_between(&pair_key(&invite.inviter_email, email(key).key())).await.unwrap();
        same(&found.as_ref(), &Some(&invite), "an invite is not found by the addresses that it connects");
        expected.push(invite);
    }
    // Neither an invite without a target, nor one from the address, is one to it.
    must(&store, insert_invite(world.invite(world.account_id(), "x", None))).await;
    let from = EmailKey::from_stored(keys[0].as_str());
    let from = Invite { inviter_email: from, ..world.invite(world.account_id(), "y", Some("z")) };
    must(&store, insert_invite(from)).await;
    for (key, invite) in keys.iter().zip(expected) {
        let found = store.invites_to(email(key).key()).await.unwrap();
        same(&found, &vec![invite], "an invite to a similar address is listed");
    }
}
