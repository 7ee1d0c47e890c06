//! P1–P19: invites, couples and blocks.

use std::{collections::HashSet, sync::Arc, time::Duration};

use couple_core::{
    Change, Conflict, Label, Store,
    account::{Account, AccountChange},
    pairing::{Block, Couple, Invite, InviteState, PairingChange, Side},
    timeline::{Page, TimelineChange},
};

use crate::world::{World, all, append, conflict, insert, must, race};

/// Change that adds an invite, with a high limit of open invites.
fn insert_invite(invite: Invite) -> PairingChange {
    PairingChange::InsertInvite { invite, limit: 100 }
}

/// Change by which a member asks to restore the previous timeline.
fn restore(couple: &Couple, side: Side, read: [bool; 2]) -> PairingChange {
    PairingChange::Restore { id: couple.id, side, wanted: true, read }
}

/// Of concurrent commits that add a couple with the same member, one succeeds.
pub async fn p1_account_is_in_at_most_one_couple(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let shared = world.account_id();
    let commits = (0..50).map(|n| {
        let other = world.account_id();
        let members = if n % 2 == 0 { [shared, other] } else { [other, shared] };
        vec![PairingChange::Pair(world.couple(members)).into()]
    });
    let commits = commits.collect();
    assert_eq!(race(&store, commits).await, 1);
    assert_eq!(store.couples_of(shared).await.unwrap().len(), 1);
}

/// Concurrent commits pair three accounts with each other: one couple with two members remains.
pub async fn p2_both_members_are_paired_or_neither(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let people = [world.account_id(), world.account_id(), world.account_id()];
    let mut commits = Vec::new();
    for n in 0..60 {
        let members = [people[n % 3], people[(n + 1) % 3]];
        commits.push(vec![PairingChange::Pair(world.couple(members)).into()]);
    }
    assert_eq!(race(&store, commits).await, 1);
    let mut in_one = 0;
    for person in people {
        if let Some(couple) = store.couple_of(person).await.unwrap() {
            in_one += 1;
            for member in couple.members {
                assert_eq!(store.couple_of(member).await.unwrap().unwrap().id, couple.id);
            }
        }
    }
    assert_eq!(in_one, 2);
}

/// An invite is closed once: accepted, declined or withdrawn.
pub async fn p3_invite_is_closed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let invite = world.invite(world.account_id(), "ana", None);
    must(&store, insert_invite(invite.clone())).await;
    let ends = [
        InviteState::Accepted { by: world.account_id(), couple: world.couple_id() },
        InviteState::Declined,
        InviteState::Withdrawn,
    ];
    let commits = (0..51).map(|n| vec![PairingChange::CloseInvite { id: invite.id, to: ends[n % 3] }.into()]);
    let commits = commits.collect();
    assert_eq!(race(&store, commits).await, 1);
    let stored = store.invite(invite.id).await.unwrap().unwrap();
    assert!(ends.contains(&stored.state));
    let late = PairingChange::CloseInvite { id: invite.id, to: InviteState::Declined };
    assert_eq!(conflict(&store, late).await, Conflict::InviteClosed(invite.id));
    assert_eq!(store.invites_of(invite.inviter).await.unwrap(), []);
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
    let commits = commits.collect();
    assert_eq!(race(&store, commits).await, 1);
    let pair = world.invite(ana, "ana", Some("ben")).pair_key().unwrap();
    let open = store.invite_between(&pair).await.unwrap().unwrap();
    must(&store, PairingChange::CloseInvite { id: open.id, to: InviteState::Declined }).await;
    assert_eq!(store.invite_between(&pair).await.unwrap(), None);
    let again = world.invite(ben, "ben", Some("ana"));
    must(&store, insert_invite(again.clone())).await;
    assert_eq!(store.invite_between(&pair).await.unwrap(), Some(again));
    // The limit does not apply to invites without a target address.
    must(&store, insert_invite(world.invite(ana, "ana", None))).await;
    must(&store, insert_invite(world.invite(ana, "ana", None))).await;
}

/// An account in a couple cannot add an invite.
pub async fn p5_paired_account_cannot_invite(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let invite = insert_invite(world.invite(couple.members[1], "ana", None));
    assert_eq!(conflict(&store, invite).await, Conflict::Paired(couple.members[1]));
}

/// Withdrawing closes all open invites of the account and no others.
pub async fn p6_withdrawal_closes_all_open_invites(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let invites = [
        world.invite(ana, "ana", None),
        world.invite(ana, "ana", Some("cleo")),
        world.invite(ana, "ana", None),
        world.invite(ben, "ben", None),
    ];
    for invite in &invites {
        must(&store, insert_invite(invite.clone())).await;
    }
    must(&store, PairingChange::CloseInvite { id: invites[2].id, to: InviteState::Declined }).await;
    must(&store, PairingChange::WithdrawInvitesOf { inviter: ana }).await;
    let mut states = Vec::new();
    for invite in &invites {
        states.push(store.invite(invite.id).await.unwrap().unwrap().state);
    }
    use InviteState::{Declined, Open, Withdrawn};
    assert_eq!(states, [Withdrawn, Withdrawn, Declined, Open]);
    assert_eq!(store.invites_to(world.email("cleo").key()).await.unwrap(), []);
    must(&store, insert_invite(world.invite(ana, "ana", Some("cleo")))).await;
}

/// Ending a couple increments the epoch and unpairs both members, once.
pub async fn p7_end_of_a_couple_unpairs_both_members(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let end = PairingChange::End { id: couple.id, members: couple.members, at: world.later(5) };
    assert_eq!(race(&store, (0..50).map(|_| vec![end.clone().into()]).collect()).await, 1);
    let ended = store.couple(couple.id).await.unwrap().unwrap();
    assert_eq!(ended, Couple { epoch: 2, ended_at: Some(world.later(5)), ..couple.clone() });
    for member in couple.members {
        assert_eq!(store.couple_of(member).await.unwrap(), None);
    }
    must(&store, PairingChange::Pair(world.couple(couple.members))).await;
    assert_eq!(conflict(&store, end).await, Conflict::CoupleEnded(couple.id));
}

/// Changes that need an active couple conflict after the couple's end.
pub async fn p8_change_of_an_ended_couple_conflicts(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let id = couple.id;
    let changes = || {
        vec![
            PairingChange::Describe { id, title: None, anniversary: None },
            PairingChange::Restore { id, side: Side::First, wanted: true, read: [false, false] },
            PairingChange::Restore { id, side: Side::Second, wanted: true, read: [true, false] },
            PairingChange::End { id, members: couple.members, at: world.now() },
        ]
    };
    for change in changes() {
        must(&store, change).await;
    }
    for change in changes() {
        assert_eq!(conflict(&store, change).await, Conflict::CoupleEnded(id));
    }
}

/// Every field of invites and couples reads back.
pub async fn p9_invite_and_couple_fields_read_back(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let plain = world.invite(ana, "ana", None);
    let full =
        Invite { message: Some(Label::from_stored("Hëllo 👋")), ..world.invite(ben, "ben", Some("cleo")) };
    for invite in [&plain, &full] {
        must(&store, insert_invite(invite.clone())).await;
        assert_eq!(store.invite(invite.id).await.unwrap().as_ref(), Some(invite));
        assert_eq!(store.invite_by_code(&invite.code).await.unwrap().as_ref(), Some(invite));
        assert_eq!(store.invite_by_link(&invite.link).await.unwrap().as_ref(), Some(invite));
        assert_eq!(store.invites_of(invite.inviter).await.unwrap(), std::slice::from_ref(invite));
    }
    assert_eq!(store.invites_to(world.email("cleo").key()).await.unwrap(), std::slice::from_ref(&full));
    assert_eq!(store.invite_by_code(&plain.link).await.unwrap(), None);
    let to = InviteState::Accepted { by: ben, couple: world.couple_id() };
    must(&store, PairingChange::CloseInvite { id: plain.id, to }).await;
    assert_eq!(store.invite(plain.id).await.unwrap(), Some(Invite { state: to, ..plain }));

    let couple = Couple { previous: Some(world.couple_id()), ..world.couple([ana, ben]) };
    must(&store, PairingChange::Pair(couple.clone())).await;
    assert_eq!(store.couple(couple.id).await.unwrap().as_ref(), Some(&couple));
    let (title, anniversary) = (Some(Label::from_stored("Us ❤️")), Some("2020-02-29".to_owned()));
    let describe = PairingChange::Describe {
        id: couple.id,
        title: Some(title.clone()),
        anniversary: Some(anniversary.clone()),
    };
    must(&store, describe).await;
    must(&store, restore(&couple, Side::Second, [false, false])).await;
    let described = Couple { title, anniversary, restore: [false, true], ..couple };
    assert_eq!(store.couple_of(ben).await.unwrap(), Some(described));
}

/// Blocks are found by the blocker's id and by the address at that time, in one direction only.
///
/// A block can be replaced and removed.
pub async fn p10_blocks_are_found_by_id_and_by_address(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let email = world.email("ana").key().clone();
    let block = Block { blocker: ana, blocker_email: email.clone(), blocked: ben, at: world.now() };
    must(&store, PairingChange::Block(block.clone())).await;
    let later = Block { at: world.later(5), ..block };
    must(&store, PairingChange::Block(later.clone())).await;
    assert_eq!(store.blocks_of(ana).await.unwrap(), [later]);
    assert_eq!(store.blocks_of(ben).await.unwrap(), []);
    assert!(store.is_blocked(ana, ben).await.unwrap());
    assert!(!store.is_blocked(ben, ana).await.unwrap());
    assert!(store.is_blocked_by_email(&email, ben).await.unwrap());
    assert!(!store.is_blocked_by_email(&email, ana).await.unwrap());
    must(&store, PairingChange::Unblock { blocker: ana, blocked: ben }).await;
    must(&store, PairingChange::Unblock { blocker: ana, blocked: ben }).await;
    assert!(!store.is_blocked(ana, ben).await.unwrap());
}

/// All couples of an account are listed, newest first and page by page.
pub async fn p11_couples_are_listed_newest_first(store: impl Store) {
    let world = World::default();
    let members = [world.account_id(), world.account_id()];
    let mut expected = Vec::new();
    for _ in 0..3 {
        let couple = world.couple(members);
        must(&store, PairingChange::Pair(couple.clone())).await;
        must(&store, PairingChange::End { id: couple.id, members: couple.members, at: world.now() }).await;
        expected.insert(0, couple.id);
        world.clock.advance(Duration::from_secs(1));
    }
    for member in members {
        let ids: Vec<_> = store.couples_of(member).await.unwrap().iter().map(|couple| couple.id).collect();
        assert_eq!(ids, expected);
        let (mut paged, mut after) = (Vec::new(), None);
        for rows in [2, 1, 0] {
            let page = store.couples_page(member, after, 2).await.unwrap();
            assert_eq!(page.len(), rows);
            after = page.last().map(|couple| couple.id).or(after);
            paged.extend(page.iter().map(|couple| couple.id));
        }
        assert!(paged.is_sorted());
        assert_eq!(paged.into_iter().collect::<HashSet<_>>(), ids.into_iter().collect());
    }
    assert_eq!(store.couples_of(world.account_id()).await.unwrap(), []);
}

/// A purge removes invites by expiry; forgetting removes invites and blocks of an account.
pub async fn p12_purge_and_forgetting_remove_at_most_cap_rows(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    for _ in 0..3 {
        must(&store, insert_invite(world.invite(ana, "ana", None))).await;
    }
    let purge = |before, cap| PairingChange::PurgeInvites { before, cap };
    assert_eq!(must(&store, purge(world.later(3600), 9)).await.rows_affected(), 0);
    assert_eq!(must(&store, purge(world.later(3601), 2)).await.rows_affected(), 2);
    let addressed = world.invite(ana, "ana", Some("ben"));
    let theirs = world.invite(ben, "ben", None);
    let email = world.email("x").key().clone();
    let block = |blocker, blocked| Block { blocker, blocker_email: email.clone(), blocked, at: world.now() };
    let changes = vec![
        insert_invite(addressed.clone()).into(),
        insert_invite(theirs.clone()).into(),
        PairingChange::Block(block(ana, ben)).into(),
        PairingChange::Block(block(ben, ana)).into(),
        PairingChange::Forget { account: ana, cap: 9 }.into(),
    ];
    all(&store, changes).await;
    assert_eq!(store.invites_of(ana).await.unwrap(), []);
    assert_eq!(store.invite_between(&addressed.pair_key().unwrap()).await.unwrap(), None);
    assert_eq!(store.invites_of(ben).await.unwrap(), [theirs]);
    assert!(!store.is_blocked(ana, ben).await.unwrap());
    assert!(!store.is_blocked(ben, ana).await.unwrap());
    // One change removes at most `cap` rows of each kind; repeated changes remove all rows.
    let cleo = world.account_id();
    for n in 0..5 {
        let other = world.account_id();
        must(&store, insert_invite(world.invite(cleo, &format!("c{n}"), None))).await;
        must(&store, PairingChange::Block(block(cleo, other))).await;
        must(&store, PairingChange::Block(block(other, cleo))).await;
    }
    for (removed, left) in [(6, 3), (6, 1), (3, 0), (0, 0)] {
        assert_eq!(
            must(&store, PairingChange::Forget { account: cleo, cap: 2 }).await.rows_affected(),
            removed
        );
        assert_eq!(store.invites_of(cleo).await.unwrap().len(), left);
        assert_eq!(store.blocks_of(cleo).await.unwrap().len(), left);
    }
    // A purge of invites does not change couples or their timelines.
    let couple = world.stored_couple(&store).await;
    all(&store, vec![append(couple.id, world.entry("a"))]).await;
    must(&store, purge(world.later(99_999), 99)).await;
    let read = TimelineChange::MarkRead { couple: couple.id, side: Side::First, seq: 1 };
    must(&store, read).await;
}

/// Concurrent changes of title and anniversary are both kept.
pub async fn p13_describing_writes_only_given_fields(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let id = couple.id;
    let title = Some(Label::from_stored("Us"));
    let anniversary = Some("2020-02-29".to_owned());
    let commits = (0..50).map(|n| {
        let (title, anniversary) =
            if n % 2 == 0 { (Some(title.clone()), None) } else { (None, Some(anniversary.clone())) };
        vec![PairingChange::Describe { id, title, anniversary }.into()]
    });
    let commits = commits.collect();
    assert_eq!(race(&store, commits).await, 50);
    let stored = store.couple(id).await.unwrap().unwrap();
    assert_eq!((&stored.title, &stored.anniversary), (&title, &anniversary));
    must(&store, PairingChange::Describe { id, title: None, anniversary: None }).await;
    assert_eq!(store.couple(id).await.unwrap(), Some(stored));
    must(&store, PairingChange::Describe { id, title: Some(None), anniversary: None }).await;
    let cleared = store.couple(id).await.unwrap().unwrap();
    assert_eq!((cleared.title, cleared.anniversary), (None, anniversary));
}

/// A restore wish is set only if the wishes of both members are as they were read.
pub async fn p14_restore_wish_requires_unchanged_wishes(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let sides = [Side::First, Side::Second];
    let commits = (0..50).map(|n| vec![restore(&couple, sides[n % 2], [false, false]).into()]);
    let commits = commits.collect();
    assert_eq!(race(&store, commits).await, 1);
    let read = store.couple(couple.id).await.unwrap().unwrap().restore;
    assert!(read == [true, false] || read == [false, true], "{read:?}");
    let stale = restore(&couple, Side::First, [true, true]);
    assert_eq!(conflict(&store, stale).await, Conflict::CoupleChanged(couple.id));
    let other = if read[0] { Side::Second } else { Side::First };
    must(&store, restore(&couple, other, read)).await;
    assert_eq!(store.couple(couple.id).await.unwrap().unwrap().restore, [true, true]);
}

/// Concurrent invites of one account stop at the limit; closed and expired ones do not count.
pub async fn p15_open_invites_never_exceed_the_limit(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let ana = world.account_id();
    let invite = || PairingChange::InsertInvite { invite: world.invite(ana, "ana", None), limit: 10 };
    assert_eq!(race(&store, (0..50).map(|_| vec![invite().into()]).collect()).await, 10);
    assert_eq!(conflict(&store, invite()).await, Conflict::TooManyInvites(ana));
    let sent = store.invites_of(ana).await.unwrap();
    must(&store, PairingChange::CloseInvite { id: sent[0].id, to: InviteState::Declined }).await;
    must(&store, invite()).await;
    let of_ben =
        PairingChange::InsertInvite { invite: world.invite(world.account_id(), "ben", None), limit: 1 };
    must(&store, of_ben).await;
    world.clock.advance(Duration::from_hours(1));
    must(&store, invite()).await;
}

/// After a deletion request the account has no open invite, adds none and cannot be paired.
pub async fn p16_account_due_for_deletion_cannot_pair(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    for n in 0..20 {
        let name = format!("p{n}");
        let (account, partner) = (world.account(&name), world.account(&format!("q{n}")));
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
        assert!(race(&store, commits).await >= 1);
        assert_eq!(store.invites_of(id).await.unwrap(), [], "round {n}");
        if store.couple_of(id).await.unwrap().is_some() {
            must(&store, PairingChange::End { id: couple.id, members: couple.members, at: world.now() })
                .await;
        }
        let late = insert_invite(world.invite(id, &name, None));
        assert_eq!(conflict(&store, late).await, Conflict::AccountChanged(id));
        let late = PairingChange::Pair(world.couple([partner.id, id]));
        assert_eq!(conflict(&store, late).await, Conflict::AccountChanged(id));
        // An invite must name the current address of its inviter.
        let other = insert_invite(world.invite(partner.id, "someone-else", None));
        assert_eq!(conflict(&store, other).await, Conflict::AccountChanged(partner.id));
        must(&store, insert_invite(world.invite(partner.id, &format!("q{n}"), None))).await;
    }
}

/// Expecting an account to be unpaired conflicts while it is in a couple.
pub async fn p17_expecting_unpaired_conflicts_when_paired(store: impl Store) {
    let world = World::default();
    let expect = |account| PairingChange::ExpectUnpaired { account };
    must(&store, expect(world.account_id())).await;
    let couple = world.stored_couple(&store).await;
    for member in couple.members {
        assert_eq!(conflict(&store, expect(member)).await, Conflict::Paired(member));
    }
    must(&store, PairingChange::End { id: couple.id, members: couple.members, at: world.now() }).await;
    must(&store, expect(couple.members[0])).await;
}

/// An erasure is set by one of concurrent changes; its person can neither invite nor be paired.
pub async fn p18_person_to_be_erased_cannot_pair(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (ana, ben) = (world.account_id(), world.account_id());
    let set = |person, before, due| PairingChange::SetErasure { person, before, due };
    let commits = (0..50).map(|n| vec![set(ana, None, Some(world.later(n))).into()]).collect();
    assert_eq!(race(&store, commits).await, 1);
    let due = store.erasure_of(ana).await.unwrap();
    assert!(due.is_some());
    for stale in [set(ana, None, None), set(ana, Some(world.later(99)), None)] {
        assert_eq!(conflict(&store, stale).await, Conflict::AccountChanged(ana));
    }
    // A change to the same time checks it and changes nothing.
    must(&store, set(ana, due, due)).await;
    assert_eq!(store.erasure_of(ana).await.unwrap(), due);
    let invite = insert_invite(world.invite(ana, "ana", None));
    assert_eq!(conflict(&store, invite.clone()).await, Conflict::AccountChanged(ana));
    for members in [[ana, ben], [ben, ana]] {
        let pair = PairingChange::Pair(world.couple(members));
        assert_eq!(conflict(&store, pair).await, Conflict::AccountChanged(ana));
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
    assert_eq!(race(&store, commits).await, 1);
    let paired = store.couple_of(cleo).await.unwrap().is_some();
    assert_ne!(paired, store.erasure_of(cleo).await.unwrap().is_some());
    // A withdrawn request allows both again.
    must(&store, set(ana, due, None)).await;
    assert_eq!(store.erasure_of(ana).await.unwrap(), None);
    must(&store, invite).await;

    let mut expected = Vec::new();
    for n in [300, 100, 200, 100] {
        let (person, due) = (world.account_id(), world.later(n));
        must(&store, set(person, None, Some(due))).await;
        expected.push((due, person));
    }
    expected.sort_unstable();
    let from = Some((world.later(99), world.account_id()));
    assert_eq!(store.erasures_due(world.later(300), from, 9).await.unwrap(), expected);
    assert_eq!(store.erasures_due(world.later(299), from, 9).await.unwrap(), expected[..3]);
    assert_eq!(store.erasures_due(world.later(300), from, 2).await.unwrap(), expected[..2]);
    for (n, last) in expected.iter().enumerate() {
        let rest = store.erasures_due(world.later(300), Some(*last), 9).await.unwrap();
        assert_eq!(rest, expected[n + 1..]);
    }
    let (due, person) = expected[0];
    let finish = |due| PairingChange::FinishErasure { person, due };
    assert_eq!(conflict(&store, finish(world.later(1))).await, Conflict::AccountChanged(person));
    must(&store, finish(due)).await;
    assert_eq!(store.erasure_of(person).await.unwrap(), None);
    assert_eq!(conflict(&store, finish(due)).await, Conflict::AccountChanged(person));
}

/// A replaced member is neither named by the couple nor has it among the own couples.
pub async fn p19_ended_couple_forgets_a_replaced_member(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let [ana, ben] = couple.members;
    all(&store, vec![append(couple.id, world.entry("a"))]).await;
    let with = world.account_id();
    let replace = |side, with| PairingChange::Anonymize { couple: couple.id, side, with };
    let active = conflict(&store, replace(Side::First, with)).await;
    assert_eq!(active, Conflict::CoupleLives(couple.id));
    must(&store, PairingChange::End { id: couple.id, members: couple.members, at: world.later(1) }).await;
    let ended = store.couple(couple.id).await.unwrap().unwrap();
    // Another couple of the same member is not changed.
    let other = world.couple([ana, world.account_id()]);
    must(&store, PairingChange::Pair(other.clone())).await;
    must(&store, replace(Side::First, with)).await;
    let replaced = Couple { members: [with, ben], ..ended };
    assert_eq!(store.couple(couple.id).await.unwrap(), Some(replaced.clone()));
    assert_eq!(store.couples_of(ana).await.unwrap(), std::slice::from_ref(&other));
    assert_eq!(store.couples_page(ana, None, 9).await.unwrap(), [other]);
    assert_eq!(store.couples_of(ben).await.unwrap(), std::slice::from_ref(&replaced));
    assert_eq!(store.couples_of(with).await.unwrap(), []);
    assert_eq!(store.entries(couple.id, Page::After(0), 9, None).await.unwrap().len(), 1);
    let second = world.account_id();
    must(&store, replace(Side::Second, second)).await;
    assert_eq!(store.couples_of(ben).await.unwrap(), []);
    let both = Couple { members: [with, second], ..replaced };
    assert_eq!(store.couple(couple.id).await.unwrap(), Some(both));
    let unknown = PairingChange::Anonymize { couple: world.couple_id(), side: Side::First, with };
    assert!(matches!(conflict(&store, unknown).await, Conflict::CoupleLives(_)));
}
