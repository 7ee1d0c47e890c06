//! Fields of invites and couples, and blocks.

use couple_core::{
    EmailAddress, EmailKey, Label, Store,
    account::{Account, AccountChange},
    pairing::{Block, Couple, Invite, PairingChange},
};

use super::{are_paired, closed_states, end, insert_invite};
use crate::{
    samples::{after_2038, before_1970, big, longest, longest_ascii, near, similar_digests, special},
    world::{World, accepted, must, same},
};

/// Every field of invites, couples, blocks and erasures reads back.
pub async fn p9_invite_and_couple_fields_read_back(store: impl Store) {
    let world = World::default();
    let key = |n: usize| EmailKey::from_stored(format!("{}@{}.{n}", longest_ascii(64), longest_ascii(187)));
    let target = |typed: String, key| Some(EmailAddress::from_stored(typed, key));
    let digests = similar_digests();
    let mut invites = vec![
        Invite {
            inviter_email: key(1),
            target: target("Ana+Tag@Bücher.Example ".to_owned(), key(2)),
            message: Some(Label::from_stored(special("Hëllo"))),
            created_at: before_1970(1),
            expires_at: after_2038(2),
            ..world.invite(world.account_id(), "x", None)
        },
        Invite {
            inviter_email: key(3),
            target: target(format!("{}@{}", longest_ascii(64), longest(110)), key(4)),
            message: Some(Label::from_stored(longest(200))),
            created_at: after_2038(1),
            expires_at: before_1970(2),
            ..world.invite(world.account_id(), "x", None)
        },
        world.invite(world.account_id(), "ana", None),
    ];
    invites.extend(digests.iter().zip(digests.iter().rev()).map(|(code, link)| Invite {
        code: *code,
        link: *link,
        ..world.invite(world.account_id(), "ana", None)
    }));
    let changed = "an invite does not read back as it was written";
    for invite in &invites {
        accepted(&store, insert_invite(invite.clone()), "an invite is refused for its values").await;
        same(&store.invite(invite.id).await.unwrap().as_ref(), &Some(invite), changed);
        same(&store.invite_by_code(&invite.code).await.unwrap().as_ref(), &Some(invite), changed);
        same(&store.invite_by_link(&invite.link).await.unwrap().as_ref(), &Some(invite), changed);
        same(
            &store.invites_of(invite.inviter).await.unwrap().as_slice(),
            &std::slice::from_ref(invite),
            changed,
        );
        if let (Some(target), Some(pair)) = (&invite.target, invite.pair_key()) {
            same(
                &store.invites_to(target.key()).await.unwrap().as_slice(),
                &std::slice::from_ref(invite),
                changed,
            );
            same(&store.invite_between(&pair).await.unwrap().as_ref(), &Some(invite), changed);
        }
    }
    for (invite, state) in invites.iter().zip(closed_states(&world)) {
        must(&store, PairingChange::CloseInvite { id: invite.id, to: state }).await;
        let closed = Some(Invite { state, ..invite.clone() });
        same(
            &store.invite(invite.id).await.unwrap(),
            &closed,
            "an invite does not read back with its new state",
        );
    }

    let couples = [
        Couple {
            since: before_1970(1),
            epoch: big(2),
            title: Some(Label::from_stored(special("Us"))),
            anniversary: Some("1804-02-29".to_owned()),
            previous: Some(world.couple_id()),
            restore: [true, false],
            head_seq: big(3),
            read: [big(4), big(5)],
            ..world.couple([world.account_id(), world.account_id()])
        },
        Couple {
            since: after_2038(1),
            epoch: 3,
            title: Some(Label::from_stored(longest(200))),
            anniversary: Some("9999-12-31".to_owned()),
            restore: [false, true],
            head_seq: 7,
            read: [6, 5],
            ..world.couple([world.account_id(), world.account_id()])
        },
        world.couple([world.account_id(), world.account_id()]),
    ];
    let changed = "a couple does not read back as it was written";
    for (n, couple) in (0..).zip(couples) {
        // Members in both orders of their ids.
        for reversed in [false, true] {
            let mut couple = Couple { id: world.couple_id(), ..couple.clone() };
            couple.members.sort_unstable();
            if reversed {
                couple.members.reverse();
            }
            must(&store, PairingChange::Pair(couple.clone())).await;
            same(&store.couple(couple.id).await.unwrap().as_ref(), &Some(&couple), changed);
            are_paired(&store, &couple, changed).await;
            for member in couple.members {
                let listed = store.couples_of(member).await.unwrap();
                assert!(listed.contains(&couple), "{changed}: {couple:?} is not in {listed:?}");
                let listed = store.couples_page(member, None, 9).await.unwrap();
                assert!(listed.contains(&couple), "{changed}: {couple:?} is not in {listed:?}");
            }
            let at = if reversed { before_1970(n) } else { after_2038(n) };
            must(&store, end(&couple, at)).await;
            let ended = Couple { ended_at: Some(at), epoch: couple.epoch + 1, ..couple };
            same(&store.couple(ended.id).await.unwrap(), &Some(ended), changed);
        }
    }
    for (n, at) in [before_1970(1), after_2038(2)].into_iter().enumerate() {
        let (ana, ben) = (world.account_id(), world.account_id());
        let block = Block { blocker: ana, blocker_email: key(n), blocked: ben, at };
        must(&store, PairingChange::Block(block.clone())).await;
        let found = store.blocks_of(ana).await.unwrap();
        same(&found, &vec![block], "a block does not read back as it was written");
        let set = PairingChange::SetErasure { person: ana, due: Some(at), before: None };
        must(&store, set).await;
        let changed = "the time of an erasure does not read back as it was written";
        same(&store.erasure_of(ana).await.unwrap(), &Some(at), changed);
        let due = store.erasures_due(at, None, 9).await.unwrap();
        assert!(due.contains(&(at, ana)), "{changed}: {at:?} is not in {due:?}");
    }
}

/// Blocks are found by the blocker's id and by the address at that time, in one direction only.
///
/// A block can be replaced and removed.
pub async fn p10_blocks_are_found_by_id_and_by_address(store: impl Store) {
    let world = World::default();
    let ana = world.account("ana");
    must(&store, AccountChange::Insert(ana.clone())).await;
    let (ben, cleo) = (world.account_id(), world.account_id());
    let email = ana.email.key();
    let block = |blocker, blocked, name: &str, at| Block {
        blocker,
        blocker_email: world.email(name).key().clone(),
        blocked,
        at: world.later(at),
    };
    let add = async |block: &Block| must(&store, PairingChange::Block(block.clone())).await;
    let first = block(ana.id, ben, "ana", 1);
    add(&first).await;
    let what = "a block does not hold from the blocker to the blocked account, and only so";
    let blocked = async || {
        [
            store.is_blocked(ana.id, ben).await.unwrap(),
            store.is_blocked_by_email(email, ben).await.unwrap(),
            store.is_blocked(ben, ana.id).await.unwrap(),
            store.is_blocked_by_email(email, ana.id).await.unwrap(),
            store.is_blocked(ana.id, cleo).await.unwrap(),
            store.is_blocked_by_email(email, cleo).await.unwrap(),
        ]
    };
    same(&blocked().await, &[true, true, false, false, false, false], what);
    same(&store.blocks_of(ben).await.unwrap(), &Vec::new(), what);
    for key in near(email.as_str()) {
        let found = store.is_blocked_by_email(&EmailKey::from_stored(key), ben).await.unwrap();
        same(&found, &false, "a block is found by a similar address");
    }
    // The address of the blocker at the time of the block.
    must(&store, AccountChange::Update(Account { email: world.email("new"), ..ana.clone() })).await;
    let what = "a block is not found by exactly the blocker's address at the time of the block";
    same(&store.is_blocked_by_email(email, ben).await.unwrap(), &true, what);
    same(&store.is_blocked_by_email(world.email("new").key(), ben).await.unwrap(), &false, what);
    let (other, reverse, by_cleo) =
        (block(ana.id, cleo, "ana", 2), block(ben, ana.id, "ben", 3), block(cleo, ben, "cleo", 4));
    for block in [&other, &reverse, &by_cleo] {
        add(block).await;
    }
    let replaced = block(ana.id, ben, "new", 5);
    add(&replaced).await;
    let what =
        "a block does not replace exactly an earlier one of the same accounts, with its address and time";
    same(&store.blocks_of(ana.id).await.unwrap(), &vec![replaced, other.clone()], what);
    same(&store.is_blocked_by_email(email, ben).await.unwrap(), &false, what);
    same(&store.is_blocked_by_email(world.email("new").key(), ben).await.unwrap(), &true, what);
    for _ in 0..2 {
        must(&store, PairingChange::Unblock { blocker: ana.id, blocked: ben }).await;
        let what = "the removal of a block does not remove exactly this one";
        same(&store.blocks_of(ana.id).await.unwrap().as_slice(), &std::slice::from_ref(&other), what);
        same(&store.blocks_of(ben).await.unwrap().as_slice(), &std::slice::from_ref(&reverse), what);
        same(&store.blocks_of(cleo).await.unwrap().as_slice(), &std::slice::from_ref(&by_cleo), what);
        same(&store.is_blocked(ana.id, ben).await.unwrap(), &false, what);
        same(&store.is_blocked_by_email(world.email("new").key(), ben).await.unwrap(), &false, what);
    }
}
