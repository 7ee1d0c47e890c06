//! Couples: pairing, end, title, wishes, list.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Conflict, Label, Store,
    pairing::{Couple, PairingChange, Side},
};

use super::{are_paired, end, restore};
use crate::{
    samples::MOMENT,
    world::{World, accepted, must, race, refused, same},
};

/// Of concurrent commits that add a couple with the same member, one succeeds.
pub async fn p1_account_is_in_at_most_one_couple(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    for shared_side in [0, 1, 2] {
        let shared = world.account_id();
        let commits = (0..50).map(|n| {
            let other = world.account_id();
            let first = if shared_side == 2 { n % 2 } else { shared_side };
            let members = if first == 0 { [shared, other] } else { [other, shared] };
            vec![PairingChange::Pair(world.couple(members)).into()]
        });
        let succeeded = race(&store, commits.collect()).await;
        same(&succeeded, &1, "of 50 concurrent couples with the same member other than one succeeded");
        let couples = store.couples_of(shared).await.unwrap().len();
        same(&couples, &1, "an account has other than one couple after 50 concurrent pairings");
        for members in [[shared, world.account_id()], [world.account_id(), shared]] {
            let again = PairingChange::Pair(world.couple(members));
            refused(&*store, again, Conflict::Paired(shared), "an account in a couple is paired again").await;
        }
    }
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
    let succeeded = race(&store, commits).await;
    same(&succeeded, &1, "of concurrent couples among three accounts other than one succeeded");
    let mut in_one = 0;
    for person in people {
        if let Some(couple) = store.couple_of(person).await.unwrap() {
            in_one += 1;
            are_paired(&*store, &couple, "one member of a couple is paired, but not the other").await;
        }
        for couple in store.couples_of(person).await.unwrap() {
            for member in couple.members {
                let of = store.couples_of(member).await.unwrap();
                assert!(of.contains(&couple), "a couple is in the list of one member, but not of the other");
            }
        }
    }
    same(&in_one, &2, "one member of a couple is paired, but not the other");
    let couple = world.stored_couple(&*store).await;
    are_paired(&*store, &couple, "one member of a couple is paired, but not the other").await;
    for member in couple.members {
        let found = store.couples_of(member).await.unwrap();
        let what = "a couple is in the list of one member, but not of the other";
        same(&found.as_slice(), &std::slice::from_ref(&couple), what);
    }
}

/// Ending a couple increments the epoch and unpairs both members, once.
pub async fn p7_end_of_a_couple_unpairs_both_members(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (couple, other) = (world.stored_couple(&*store).await, world.stored_couple(&*store).await);
    let title = Some(Label::from_stored("Us"));
    let describe = PairingChange::Describe { id: couple.id, title: Some(title.clone()), anniversary: None };
    must(&store, describe).await;
    must(&store, restore(&couple, Side::First, [false, false])).await;
    // The store unpairs the members of its row.
    let change = PairingChange::End { id: couple.id, members: other.members, at: world.later(5), by: None };
    let succeeded = race(&store, (0..50).map(|_| vec![change.clone().into()]).collect()).await;
    same(&succeeded, &1, "of 50 concurrent changes that end a couple other than one succeeded");
    let expected =
        Couple { epoch: 2, ended_at: Some(world.later(5)), title, restore: [true, false], ..couple.clone() };
    let found = store.couple(couple.id).await.unwrap();
    same(
        &found,
        &Some(expected),
        "the end of a couple does not change exactly its epoch and its time of end",
    );
    are_paired(&*store, &other, "the end of a couple unpairs other accounts").await;
    for member in couple.members {
        let found = store.couple_of(member).await.unwrap();
        same(&found, &None, "a member of an ended couple is still paired");
        let listed = store.couples_of(member).await.unwrap().len();
        same(&listed, &1, "an ended couple is not in the list of its members");
    }
    let again = world.couple(couple.members);
    accepted(&store, PairingChange::Pair(again.clone()), "a member of an ended couple is still paired").await;
    let late = end(&couple, world.later(6));
    refused(&store, late, Conflict::CoupleEnded(couple.id), "an ended couple is ended again").await;
    are_paired(&*store, &again, "a late end of a couple unpairs its members in their next couple").await;
}

/// Changes that need an active couple conflict after the couple's end.
pub async fn p8_change_of_an_ended_couple_conflicts(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let id = couple.id;
    let label = Some(Some(Label::from_stored("Us")));
    let changes = || {
        vec![
            PairingChange::Describe { id, title: None, anniversary: None },
            PairingChange::Describe {
                id,
                title: label.clone(),
                anniversary: Some(Some("2020-02-29".to_owned())),
            },
            PairingChange::Restore { id, side: Side::First, wanted: true, read: [false, false] },
            PairingChange::Restore { id, side: Side::Second, wanted: true, read: [true, false] },
            PairingChange::Restore { id, side: Side::Second, wanted: true, read: [true, true] },
            PairingChange::End { id, members: couple.members, at: world.now(), by: None },
        ]
    };
    for change in changes() {
        accepted(&store, change, "a change of an active couple conflicts").await;
    }
    let ended = store.couple(id).await.unwrap();
    for change in changes() {
        let what = format!("a change of an ended couple succeeds: {change:?}");
        refused(&store, change, Conflict::CoupleEnded(id), &what).await;
    }
    same(&store.couple(id).await.unwrap(), &ended, "a conflict changes an ended couple");
    let id = world.couple_id();
    let missing = [
        PairingChange::Describe { id, title: None, anniversary: None },
        PairingChange::Restore { id, side: Side::First, wanted: true, read: [false, false] },
        PairingChange::End { id, members: couple.members, at: world.now(), by: None },
    ];
    for change in missing {
        refused(&store, change, Conflict::CoupleEnded(id), "a change of a missing couple succeeds").await;
    }
}

/// All couples of an account are listed, newest first and page by page.
pub async fn p11_couples_are_listed_newest_first(store: impl Store) {
    let world = World::default();
    let members = [world.account_id(), world.account_id()];
    let mut expected = Vec::new();
    // Later ids have earlier times. The last couple is active.
    for n in 0..5 {
        let couple = Couple { since: world.now().minus(Duration::from_secs(n)), ..world.couple(members) };
        must(&store, PairingChange::Pair(couple.clone())).await;
        if n < 4 {
            must(&store, end(&couple, world.now())).await;
        }
        let _: Couple = world.stored_couple(&store).await;
        expected.push(couple.id);
        world.clock.advance(MOMENT * 2000);
    }
    for member in members {
        let ids: Vec<_> = store.couples_of(member).await.unwrap().iter().map(|couple| couple.id).collect();
        same(&ids, &expected, "not all couples of an account are listed, newest first");
        // `expected` is in the order of ids, too.
        for limit in 1..=6 {
            let mut after = None;
            let mut rest = &expected[..];
            loop {
                let page = store.couples_page(member, after, u32::try_from(limit).unwrap()).await.unwrap();
                let page: Vec<_> = page.iter().map(|couple| couple.id).collect();
                let (next, later) = rest.split_at(limit.min(rest.len()));
                same(
                    &page.as_slice(),
                    &next,
                    "a page does not have the couples that follow the given id, in the order of ids",
                );
                let Some(last) = next.last() else { break };
                (after, rest) = (Some(*last), later);
            }
        }
    }
    let stranger = world.account_id();
    same(&store.couples_of(stranger).await.unwrap(), &Vec::new(), "an account without couples has a couple");
    same(
        &store.couples_page(stranger, None, 9).await.unwrap(),
        &Vec::new(),
        "an account without couples has a couple",
    );
}

/// Concurrent changes of title and anniversary are both kept.
pub async fn p13_describing_writes_only_given_fields(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (couple, other) = (world.stored_couple(&*store).await, world.stored_couple(&*store).await);
    let id = couple.id;
    let title = Some(Label::from_stored("Us"));
    let anniversary = Some("2020-02-29".to_owned());
    let commits = (0..50).map(|n| {
        let (title, anniversary) =
            if n % 2 == 0 { (Some(title.clone()), None) } else { (None, Some(anniversary.clone())) };
        vec![PairingChange::Describe { id, title, anniversary }.into()]
    });
    let succeeded = race(&store, commits.collect()).await;
    same(&succeeded, &50, "concurrent changes of title and anniversary conflict");
    let mut expected = Couple { title, anniversary, ..couple };
    let day = |text: &str| Some(Some(text.to_owned()));
    let label = |text: &str| Some(Some(Label::from_stored(text)));
    let steps = [
        (None, None),
        (label("We"), day("1999-12-31")),
        (Some(None), None),
        (label("We"), Some(None)),
        (None, day("2001-01-01")),
        (Some(None), Some(None)),
        (label("Again"), None),
    ];
    for (title, anniversary) in steps {
        let found = store.couple(id).await.unwrap();
        same(&found.as_ref(), &Some(&expected), "a description does not write exactly the given fields");
        expected.title = title.clone().unwrap_or(expected.title);
        expected.anniversary = anniversary.clone().unwrap_or(expected.anniversary);
        must(&store, PairingChange::Describe { id, title, anniversary }).await;
    }
    let found = store.couple(id).await.unwrap();
    same(&found, &Some(expected), "a description does not write exactly the given fields");
    let found = store.couple(other.id).await.unwrap();
    same(&found, &Some(other), "a description changes another couple");
}

/// A restore wish is set only if the wishes of both members are as they were read.
pub async fn p14_restore_wish_requires_unchanged_wishes(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&*store).await;
    let sides = [Side::First, Side::Second];
    let commits = (0..50).map(|n| vec![restore(&couple, sides[n % 2], [false, false]).into()]);
    let succeeded = race(&store, commits.collect()).await;
    same(&succeeded, &1, "of 50 concurrent wishes after one read other than one succeeded");
    let couple = world.stored_couple(&*store).await;
    let mut now = [false, false];
    // Every change of both wishes, and a wish that is withdrawn.
    let steps = [
        (Side::First, true),
        (Side::Second, true),
        (Side::First, false),
        (Side::First, true),
        (Side::Second, false),
        (Side::First, false),
        (Side::Second, true),
        (Side::Second, true),
    ];
    for (side, wanted) in steps {
        for read in [[false, false], [false, true], [true, false], [true, true]] {
            if read != now {
                let stale = PairingChange::Restore { id: couple.id, side, wanted, read };
                let what = "a wish is set although the wishes changed since they were read";
                refused(&store, stale, Conflict::CoupleChanged(couple.id), what).await;
            }
        }
        let change = PairingChange::Restore { id: couple.id, side, wanted, read: now };
        accepted(&store, change, "a wish is refused although the wishes are as they were read").await;
        now[side.index()] = wanted;
        let found = store.couple(couple.id).await.unwrap();
        let expected = Some(Couple { restore: now, ..couple.clone() });
        same(&found, &expected, "a wish is not set, or not taken back, for exactly its side");
    }
}

/// Expecting an account to be unpaired conflicts while it is in a couple.
pub async fn p17_expecting_unpaired_conflicts_when_paired(store: impl Store) {
    let world = World::default();
    let expect = |account| PairingChange::ExpectUnpaired { account };
    let what = "an account without a couple is expected to be unpaired, and is not";
    accepted(&store, expect(world.account_id()), what).await;
    let couple = world.stored_couple(&store).await;
    for member in couple.members {
        let what = "an account in a couple is taken for unpaired";
        refused(&store, expect(member), Conflict::Paired(member), what).await;
    }
    accepted(&store, expect(world.account_id()), what).await;
    must(&store, end(&couple, world.now())).await;
    for member in couple.members {
        accepted(&store, expect(member), what).await;
    }
}
