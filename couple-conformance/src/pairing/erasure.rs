//! Purge, deletion requests, erasures, and members that are replaced.

use std::sync::Arc;

use couple_core::{
    AccountId, Change, Conflict, CoupleId, EmailKey, Store,
    account::{Account, AccountChange},
    pairing::{Block, Couple, Invite, InviteState, PairingChange, Side},
    timeline::{Page, TimelineChange},
};

use super::{are_paired, closed_states, end, insert_invite};
use crate::{
    samples::{MOMENT, near},
    world::{World, accepted, affects, all, append, insert, must, race, refused, same},
};

/// A purge removes invites by expiry; forgetting removes invites and blocks of an account.
pub async fn p12_purge_and_forgetting_remove_at_most_cap_rows(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let couple = world.stored_couple(&store).await;
    all(&store, vec![append(couple.id, world.entry("a"))]).await;
    // Expiries are not in the order of ids, and each invite has another state.
    let order = [4_usize, 1, 3, 0, 5, 2];
    let accepted_state = InviteState::Accepted { by: couple.members[1], couple: couple.id };
    let states = [
        InviteState::Declined,
        accepted_state,
        InviteState::Open,
        InviteState::Withdrawn,
        InviteState::Open,
        InviteState::Open,
    ];
    let mut invites = Vec::new();
    for n in order {
        let target = format!("t{n}");
        let expires_at = world.later(n as u64);
        let invite = Invite { expires_at, ..world.invite(ana, "ana", Some(&target)) };
        must(&store, insert_invite(invite.clone())).await;
        if states[n] != InviteState::Open {
            must(&store, PairingChange::CloseInvite { id: invite.id, to: states[n] }).await;
        }
        invites.push((n, invite));
    }
    let mut removed = 0;
    for (before, cap, count) in [(0, 9, 0_usize), (3, 0, 0), (5, 2, 2), (5, 2, 2), (5, 2, 1), (5, 2, 0)] {
        let purge = PairingChange::PurgeInvites { before: world.later(before), cap };
        let what = "a purge of invites does not return the number of removed rows, at most its cap";
        affects(&store, purge, count as u64, what).await;
        removed += count;
        let what =
            "a purge does not remove the invites that expired first, in any state, or removes another one";
        for (n, invite) in &invites {
            let found = store.invite(invite.id).await.unwrap();
            let state = (*n >= removed).then_some(states[*n]);
            same(&found.map(|invite| invite.state), &state, what);
            let found = store.invite_by_code(&invite.code).await.unwrap();
            same(&found.map(|invite| invite.state), &state, "a purged invite is found by its code");
            let found = store.invite_by_link(&invite.link).await.unwrap();
            same(&found.map(|invite| invite.state), &state, "a purged invite is found by its link");
            let open = state == Some(InviteState::Open);
            let found = store.invite_between(&invite.pair_key().unwrap()).await.unwrap();
            same(&found.is_some(), &open, "a purged invite is found by its pair key");
        }
    }
    for (n, invite) in invites {
        if n < removed {
            let again =
                Invite { id: world.invite(ana, "ana", None).id, expires_at: world.later(9999), ..invite };
            accepted(
                &store,
                insert_invite(again),
                "a purged invite takes its code, link or pair of addresses",
            )
            .await;
        }
    }
    // A purge of invites does not change couples or their timelines.
    let paired = Couple { head_seq: 1, ..couple.clone() };
    are_paired(&store, &paired, "a purge of invites changes the couple of an accepted one").await;
    let read = TimelineChange::MarkRead { couple: couple.id, side: Side::First, seq: 1 };
    accepted(&store, read, "a purge of invites changes the couple of an accepted one").await;

    // Forgetting one account, with rows of each kind and state.
    let (cleo, dan) = (world.account_id(), world.account_id());
    let email = world.email("x").key().clone();
    let block = |blocker, blocked| Block { blocker, blocker_email: email.clone(), blocked, at: world.now() };
    let mut own = Vec::new();
    for (n, state) in closed_states(&world).into_iter().chain([InviteState::Open; 2]).enumerate() {
        let invite = world.invite(cleo, "cleo", Some(&format!("f{n}")));
        must(&store, insert_invite(invite.clone())).await;
        if state != InviteState::Open {
            must(&store, PairingChange::CloseInvite { id: invite.id, to: state }).await;
        }
        own.push(invite);
        for block in [block(cleo, world.account_id()), block(world.account_id(), cleo)] {
            must(&store, PairingChange::Block(block)).await;
        }
    }
    let strangers = [block(dan, ben), block(ben, dan)];
    for block in &strangers {
        must(&store, PairingChange::Block(block.clone())).await;
    }
    let theirs = [world.invite(ben, "ben", Some("cleo")), world.invite(dan, "dan", None)];
    for invite in &theirs {
        must(&store, insert_invite(invite.clone())).await;
    }
    let by_cleo = InviteState::Accepted { by: cleo, couple: world.couple_id() };
    must(&store, PairingChange::CloseInvite { id: theirs[1].id, to: by_cleo }).await;
    for (cap, count, left) in [(0, 0, 5), (2, 6, 3), (2, 6, 1), (2, 3, 0), (2, 0, 0)] {
        let forget = PairingChange::Forget { account: cleo, cap };
        let what =
            "forgetting an account does not return the number of removed rows, at most its cap of each kind";
        affects(&store, forget, count, what).await;
        let what =
            "forgetting an account does not remove at most its cap of invites, in any state, and of blocks";
        let mut invites = 0;
        for invite in &own {
            invites += usize::from(store.invite(invite.id).await.unwrap().is_some());
        }
        same(&(invites, store.blocks_of(cleo).await.unwrap().len()), &(left, left), what);
    }
    for invite in own {
        let found = store.invite_between(&invite.pair_key().unwrap()).await.unwrap();
        same(&found, &None, "an invite of a forgotten account is found by its pair key");
        let again = Invite { id: world.invite(ben, "ben", None).id, ..invite };
        let what = "an invite of a forgotten account takes its code, link or pair of addresses";
        accepted(&store, insert_invite(again), what).await;
    }
    let what = "forgetting an account removes invites or blocks of another one";
    for invite in &theirs {
        assert!(store.invite(invite.id).await.unwrap().is_some(), "{what}");
    }
    for block in &strangers {
        assert!(store.is_blocked(block.blocker, block.blocked).await.unwrap(), "{what}");
    }
}

/// After a deletion request the account has no open invite, adds none and cannot be paired.
pub async fn p16_account_due_for_deletion_cannot_pair(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    for n in 0..20 {
        let (name, other) = (format!("p{n}"), format!("q{n}"));
        let (account, partner) = (world.account(&name), world.account(&other));
        let id = account.id;
        all(&store, vec![insert(&account), insert(&partner)]).await;
        must(&store, insert_invite(world.invite(id, &name, None))).await;
        let request: Vec<Change> = vec![
            PairingChange::WithdrawInvitesOf { inviter: id }.into(),
            AccountChange::Update(Account { deletion_due: Some(world.later(99)), ..account }).into(),
        ];
        let couple = world.couple([partner.id, id]);
        let commits = vec![
            request,
            vec![insert_invite(world.invite(id, &name, None)).into()],
            vec![
                PairingChange::Pair(couple.clone()).into(),
                PairingChange::WithdrawInvitesOf { inviter: id }.into(),
            ],
        ];
        assert!(race(&store, commits).await >= 1, "a deletion request, an invite and a pairing all conflict");
        let open = store.invites_of(id).await.unwrap();
        same(&open, &Vec::new(), "an invite is open after a deletion request");
        if store.couple_of(id).await.unwrap().is_some() {
            must(&store, end(&couple, world.now())).await;
        }
        let changed = Conflict::AccountChanged(id);
        let late = insert_invite(world.invite(id, &name, None));
        refused(&*store, late, changed, "an account with a deletion request adds an invite").await;
        for members in [[partner.id, id], [id, partner.id]] {
            let late = PairingChange::Pair(world.couple(members));
            refused(&*store, late, changed, "an account with a deletion request is paired").await;
            for member in members {
                let found = store.couple_of(member).await.unwrap();
                same(&found, &None, "an account with a deletion request is paired");
            }
        }
        // An invite must name the current address of its inviter.
        let changed = Conflict::AccountChanged(partner.id);
        for key in near(partner.email.key().as_str()).into_iter().chain([format!("{name}@example.org")]) {
            let inviter_email = EmailKey::from_stored(key);
            let other = Invite { inviter_email, ..world.invite(partner.id, &other, None) };
            refused(&*store, insert_invite(other), changed, "an invite names another address of its inviter")
                .await;
        }
        let sound = insert_invite(world.invite(partner.id, &other, None));
        accepted(&*store, sound, "an account without a deletion request cannot invite").await;
    }
}

/// An erasure is set by one of concurrent changes; its person can neither invite nor be paired.
pub async fn p18_person_to_be_erased_cannot_pair(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (ana, ben) = (world.account_id(), world.account_id());
    let set = |person, before, due| PairingChange::SetErasure { person, before, due };
    same(&store.erasure_of(ana).await.unwrap(), &None, "a person has an erasure that nobody requested");
    let commits = (0..50).map(|n| vec![set(ana, None, Some(world.later(n))).into()]).collect();
    let succeeded = race(&store, commits).await;
    same(&succeeded, &1, "of 50 concurrent erasures after one read other than one succeeded");
    let due = store.erasure_of(ana).await.unwrap();
    assert!(due.is_some(), "a requested erasure has no time");
    let changed = Conflict::AccountChanged(ana);
    let what = "an erasure is changed although its time is not as it was read";
    for before in [None, Some(world.later(99)), due.map(|due| due.plus(MOMENT))] {
        for next in [None, Some(world.later(98))] {
            refused(&*store, set(ana, before, next), changed, what).await;
        }
    }
    refused(&*store, set(ben, due, None), Conflict::AccountChanged(ben), what).await;
    same(&store.erasure_of(ana).await.unwrap(), &due, what);
    // A change to the same time checks it and changes nothing.
    accepted(&*store, set(ana, due, due), "an erasure is refused although its time is as it was read").await;
    same(
        &store.erasure_of(ana).await.unwrap(),
        &due,
        "an erasure does not have the time to which it was set",
    );
    let invite = insert_invite(world.invite(ana, "ana", None));
    refused(&*store, invite.clone(), changed, "a person to be erased adds an invite").await;
    for members in [[ana, ben], [ben, ana]] {
        let pair = PairingChange::Pair(world.couple(members));
        refused(&*store, pair, changed, "a person to be erased is paired").await;
        for member in members {
            same(&store.couple_of(member).await.unwrap(), &None, "a person to be erased is paired");
        }
    }
    // Of a request that is concurrent with a pairing, either is refused or the couple exists before it.
    let mut commits: Vec<Vec<Change>> = Vec::new();
    let cleo = world.account_id();
    for n in 0..50 {
        commits.push(match n % 2 {
            0 => vec![PairingChange::Pair(world.couple([cleo, ben])).into()],
            _ => vec![
                PairingChange::ExpectUnpaired { account: cleo }.into(),
                set(cleo, None, Some(world.later(50))).into(),
            ],
        });
    }
    let succeeded = race(&store, commits).await;
    same(&succeeded, &1, "of concurrent erasures and pairings of a person other than one succeeded");
    let paired = store.couple_of(cleo).await.unwrap().is_some();
    let erased = store.erasure_of(cleo).await.unwrap().is_some();
    assert!(
        paired != erased,
        "a person is both paired and to be erased, or neither, after concurrent changes"
    );
    // A later time, and a withdrawn request, which allows both again.
    for (before, next) in [
        (due, Some(world.later(77))),
        (Some(world.later(77)), None),
        (None, Some(world.later(5))),
        (Some(world.later(5)), None),
    ] {
        accepted(
            &*store,
            set(ana, before, next),
            "an erasure is refused although its time is as it was read",
        )
        .await;
        let found = store.erasure_of(ana).await.unwrap();
        same(&found, &next, "an erasure does not have the time to which it was set");
    }
    accepted(&*store, invite, "a person whose erasure was withdrawn cannot invite").await;

    let mut expected = Vec::new();
    for n in [300, 100, 200, 100, 100] {
        let (person, due) = (world.account_id(), world.later(n));
        must(&store, set(person, None, Some(due))).await;
        expected.push((due, person));
    }
    expected.sort_unstable();
    let from = Some((world.later(99), world.account_id()));
    let list = async |at, after, limit| store.erasures_due(at, after, limit).await.unwrap();
    let what = "not exactly the persons whose erasure is due are listed, earliest first and then by id";
    same(&list(world.later(300), from, 9).await, &expected, what);
    same(&list(world.later(300).minus(MOMENT), from, 9).await.as_slice(), &&expected[..4], what);
    let what = "a page of due erasures does not have its limit of rows";
    for limit in 1..=5 {
        let page = list(world.later(300), from, u32::try_from(limit).unwrap()).await;
        same(&page.as_slice(), &&expected[..limit], what);
    }
    let what = "a page of due erasures does not start after the given person";
    for (n, last) in expected.iter().enumerate() {
        same(&list(world.later(300), Some(*last), 9).await.as_slice(), &&expected[n + 1..], what);
    }
    let (due, person) = expected[0];
    let finish = |due| PairingChange::FinishErasure { person, due };
    let changed = Conflict::AccountChanged(person);
    let what = "an erasure is finished although its time is not as it was read";
    refused(&*store, finish(world.later(1)), changed, what).await;
    same(&store.erasure_of(person).await.unwrap(), &Some(due), what);
    must(&store, finish(due)).await;
    same(&store.erasure_of(person).await.unwrap(), &None, "a finished erasure has a time");
    refused(&*store, finish(due), changed, "an erasure is finished twice").await;
    same(
        &store.erasure_of(expected[1].1).await.unwrap(),
        &Some(expected[1].0),
        "finishing an erasure removes another one",
    );
}

/// A replaced member is neither named by the couple nor has it among the own couples.
pub async fn p19_ended_couple_forgets_a_replaced_member(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let [ana, ben] = couple.members;
    all(&store, vec![append(couple.id, world.entry("a"))]).await;
    let with = world.account_id();
    let replace = |side, with| PairingChange::Anonymize { couple: couple.id, side, with };
    let active = Conflict::CoupleLives(couple.id);
    for side in [Side::First, Side::Second] {
        refused(&store, replace(side, with), active, "a member of an active couple is replaced").await;
    }
    must(&store, end(&couple, world.later(1))).await;
    let ended = store.couple(couple.id).await.unwrap().unwrap();
    // Other couples of the same members, ended and active, are not changed.
    let mut others = Vec::new();
    for member in [ana, ben] {
        let earlier = world.couple([member, world.account_id()]);
        must(&store, PairingChange::Pair(earlier.clone())).await;
        must(&store, end(&earlier, world.later(2))).await;
        let active = world.couple([world.account_id(), member]);
        must(&store, PairingChange::Pair(active.clone())).await;
        let earlier = store.couple(earlier.id).await.unwrap().unwrap();
        let mut both = vec![earlier, active];
        both.sort_by_key(|couple| std::cmp::Reverse((couple.since, couple.id)));
        others.push(both);
    }
    let ids = |couples: &[Couple]| {
        let mut ids: Vec<CoupleId> = couples.iter().map(|couple| couple.id).collect();
        ids.sort_unstable();
        ids
    };
    let listed = async |member: AccountId| {
        let page = store.couples_page(member, None, 9).await.unwrap();
        (ids(&store.couples_of(member).await.unwrap()), ids(&page))
    };
    let of = |couples: &[Couple]| (ids(couples), ids(couples));
    must(&store, replace(Side::First, with)).await;
    let replaced = Couple { members: [with, ben], ..ended };
    let what = "the replacement of a member does not change exactly this member of the couple";
    same(&store.couple(couple.id).await.unwrap().as_ref(), &Some(&replaced), what);
    let what = "a couple is not exactly among the couples of the members who were not replaced";
    same(&listed(ana).await, &of(&others[0]), what);
    same(&listed(with).await, &of(&[]), what);
    same(&listed(ben).await, &of(&[others[1].clone(), vec![replaced.clone()]].concat()), what);
    let entries = store.entries(couple.id, Page::After(0), 9, None).await.unwrap().len();
    same(&entries, &1, "the replacement of a member changes the log of the couple");
    let second = world.account_id();
    must(&store, replace(Side::Second, second)).await;
    same(&listed(ben).await, &of(&others[1]), what);
    same(&listed(second).await, &of(&[]), what);
    let both = Couple { members: [with, second], ..replaced };
    let what = "the replacement of a member does not change exactly this member of the couple";
    same(&store.couple(couple.id).await.unwrap(), &Some(both), what);
    for other in others.concat() {
        let found = store.couple(other.id).await.unwrap();
        same(&found, &Some(other), "the replacement of a member changes another couple");
    }
    let missing = world.couple_id();
    let unknown = PairingChange::Anonymize { couple: missing, side: Side::First, with };
    refused(&store, unknown, Conflict::CoupleLives(missing), "a member of a missing couple is replaced")
        .await;
}
