//! DA1–DA7: dates of couples.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Change, Conflict, CoupleId, DateId, Label, Store,
    date::{CalendarDay, CoupleDate, DateChange, DateKind},
    pairing::{Couple, PairingChange, Side},
};

use crate::{
    change_races,
    samples::{EARLY, LATE, longest, special},
    world::{World, accepted, all, must, race, refused, same},
};

const MOST: u32 = 100;

fn put(date: &CoupleDate) -> DateChange {
    DateChange::Put { date: date.clone(), most: MOST }
}

fn remove(date: &CoupleDate) -> DateChange {
    DateChange::Remove { couple: date.couple, id: date.id, version: date.version }
}

/// Date as it is stored after it was written.
fn stored(written: &CoupleDate) -> CoupleDate {
    CoupleDate { version: written.version + 1, ..written.clone() }
}

fn day(text: &str) -> CalendarDay {
    CalendarDay::from_stored(text).expect("a day")
}

fn end(couple: &Couple, world: &World) -> PairingChange {
    PairingChange::End { id: couple.id, members: couple.members, at: world.later(1), by: None }
}

/// Expects that a date reads back as expected, alone and in the list; `what` is what was done before.
async fn require_stored(store: &impl Store, expected: &CoupleDate, what: &str) {
    let found = store.date(expected.couple, expected.id).await.unwrap();
    same(&found.as_ref(), &Some(expected), &format!("a date reads back otherwise {what}"));
    let listed = store.dates_of(expected.couple).await.unwrap();
    let listed = listed.iter().find(|date| date.id == expected.id);
    same(&listed, &Some(expected), &format!("a listed date reads back otherwise {what}"));
}

/// Ids of the dates of a couple, in the order of the list.
async fn ids_of(store: &impl Store, couple: CoupleId) -> Vec<DateId> {
    store.dates_of(couple).await.unwrap().iter().map(|date| date.id).collect()
}

/// Every field reads back, and a change replaces every field and increments the version.
pub async fn da1_date_fields_read_back(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await.id;
    let unknown = store.date(couple, world.date(couple).id).await.unwrap();
    assert_eq!(unknown, None, "a date is found by an id that none has");
    let date = |kind, title: Option<String>, text, is_yearly, created_at| CoupleDate {
        kind,
        title: title.map(Label::from_stored),
        day: day(text),
        is_yearly,
        created_at,
        ..world.date(couple)
    };
    let dates = [
        world.date(couple),
        date(DateKind::Anniversary, None, "1800-01-01", true, EARLY),
        date(DateKind::FirstDate, Some(longest(200)), "9999-12-31", false, LATE),
        date(DateKind::Birthday, Some(special("Mia")), "--02-29", true, EARLY),
        date(DateKind::Other, None, "2024-02-29", false, world.now().plus(Duration::from_micros(1))),
    ];
    for date in &dates {
        must(&store, put(date)).await;
    }
    for date in &dates {
        require_stored(&store, &stored(date), "after it was added").await;
    }
    // Each takes every field of the next one, and has one row.
    for version in 1..4 {
        let next = dates.iter().cycle().skip(usize::try_from(version).unwrap_or(0));
        for (date, other) in dates.iter().zip(next) {
            let changed = CoupleDate { couple, id: date.id, version, ..other.clone() };
            accepted(&store, put(&changed), "a date of the stored version cannot be changed").await;
            require_stored(&store, &stored(&changed), "after it was changed").await;
        }
    }
    same(&ids_of(&store, couple).await.len(), &dates.len(), "a change adds or removes a date");
}

/// A change and a removal require the version that was read: of concurrent changes after the same read one succeeds.
pub async fn da2_dates_change_only_as_read(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let couple = world.stored_couple(&*store).await.id;
    let first = world.date(couple);
    let conflict = Conflict::DateChanged(first.id);
    let what = "a date is written though nothing of its version is stored";
    for version in [1, -1] {
        refused(&*store, put(&CoupleDate { version, ..first.clone() }), conflict, what).await;
    }
    refused(&*store, remove(&first), conflict, "a date that does not exist is removed").await;
    must(&*store, put(&first)).await;
    let current = stored(&first);
    for version in [0, 2, -1] {
        let wrong = CoupleDate { version, kind: DateKind::FirstDate, ..first.clone() };
        let what = "a date of another version than the stored one is written";
        refused(&*store, put(&wrong), conflict, what).await;
        let what = "a date of another version than the stored one is removed";
        refused(&*store, remove(&wrong), conflict, what).await;
        require_stored(&*store, &current, "after a change that conflicted").await;
    }
    accepted(&*store, put(&current), "a date of the stored version cannot be changed").await;
    accepted(&*store, remove(&stored(&current)), "a date of the stored version cannot be removed").await;
    let gone = store.date(couple, first.id).await.unwrap();
    same(&gone, &None, "a date is found after it was removed");
    same(&ids_of(&*store, couple).await, &Vec::new(), "a date is listed after it was removed");
    // The version starts again. Then concurrent changes of a new and of a stored date.
    accepted(&*store, put(&first), "a date cannot be added again after it was removed").await;
    require_stored(&*store, &stored(&first), "after it was added again").await;
    for date in [world.date(couple), stored(&first)] {
        let commits = (0..50).map(|n| {
            let date = CoupleDate { created_at: world.later(n), ..date.clone() };
            if n % 5 == 4 && date.version > 0 { vec![remove(&date).into()] } else { vec![put(&date).into()] }
        });
        let succeeded = race(&store, commits.collect()).await;
        same(&succeeded, &1, "of concurrent changes after the same read another number than one succeeds");
    }
}

/// A couple has at most `most` dates, also when they are added concurrently.
pub async fn da3_number_of_dates_is_limited(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (couple, other) = (world.stored_couple(&*store).await.id, world.stored_couple(&*store).await.id);
    for _ in 0..3 {
        must(&*store, put(&world.date(other))).await;
    }
    let add = |date: &CoupleDate, most| DateChange::Put { date: date.clone(), most };
    let (first, full) = (world.date(couple), Conflict::TooManyDates(couple));
    refused(&*store, add(&first, 0), full, "a date is added beyond a limit of none").await;
    accepted(&*store, add(&first, 1), "a date of another couple counts").await;
    refused(&*store, add(&world.date(couple), 1), full, "a date is added beyond the limit").await;
    accepted(&*store, add(&stored(&first), 1), "a date that is changed counts twice").await;
    same(&ids_of(&*store, couple).await.len(), &1, "another number of dates than the limit is stored");
    // Two changes of one commit.
    let second = world.date(couple);
    let two = vec![add(&second, 2).into(), add(&world.date(couple), 2).into()];
    let conflict = crate::world::conflicts(&*store, two).await;
    same(&conflict, &full, "two dates of one commit exceed the limit");
    let commits = (0..50).map(|_| vec![add(&world.date(couple), 8).into()]).collect();
    let succeeded = race(&store, commits).await;
    same(&succeeded, &7, "of concurrent additions another number than fits succeeds");
    same(&ids_of(&*store, couple).await.len(), &8, "concurrent additions exceed the limit");
}

/// Dates of an ended couple stay and do not change.
pub async fn da4_dates_of_an_ended_couple_do_not_change(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let date = world.date(couple.id);
    must(&store, put(&date)).await;
    must(&store, end(&couple, &world)).await;
    let ended = Conflict::CoupleEnded(couple.id);
    refused(&store, put(&world.date(couple.id)), ended, "a date is added to an ended couple").await;
    refused(&store, put(&stored(&date)), ended, "a date of an ended couple is changed").await;
    refused(&store, remove(&stored(&date)), ended, "a date of an ended couple is removed").await;
    // The end comes before the version.
    refused(&store, put(&date), ended, "a date of an ended couple has another conflict").await;
    require_stored(&store, &stored(&date), "after the end of its couple").await;
    let missing = world.couple_id();
    let unknown = Conflict::CoupleEnded(missing);
    refused(&store, put(&world.date(missing)), unknown, "a date is added to a missing couple").await;
    change_races::no_date_is_changed_after_the_end(&Arc::new(store)).await;
}

/// The list has the dates of the couple by the time of their creation, then by id, at most 200.
pub async fn da5_dates_are_listed_by_creation(store: impl Store) {
    let world = World::default();
    let (couple, other) = (world.stored_couple(&store).await.id, world.stored_couple(&store).await.id);
    must(&store, put(&world.date(other))).await;
    let at = |micros: u64| world.now().plus(Duration::from_micros(micros));
    let times = [at(2), EARLY, at(1), at(1), LATE, at(1), EARLY];
    let mut dates: Vec<CoupleDate> =
        times.into_iter().map(|created_at| CoupleDate { created_at, ..world.date(couple) }).collect();
    for n in [3, 0, 6, 2, 5, 1, 4] {
        must(&store, put(&dates[n])).await;
    }
    dates.sort_by_key(|date| (date.created_at, date.id));
    let expected: Vec<DateId> = dates.iter().map(|date| date.id).collect();
    same(&ids_of(&store, couple).await, &expected, "dates are listed in another order");
    let many = world.stored_couple(&store).await.id;
    let changes = (0..201).map(|n| {
        let date = CoupleDate { created_at: at(n), ..world.date(many) };
        Change::from(DateChange::Put { date, most: 999 })
    });
    all(&store, changes.collect()).await;
    let listed = store.dates_of(many).await.unwrap();
    same(&listed.len(), &200, "the list has another number of dates than the first 200");
    let last = listed.last().map(|date| date.created_at);
    same(&last, &Some(at(199)), "the list lacks one of the first 200");
}

/// Two couples can have dates of one id.
pub async fn da6_date_ids_belong_to_the_couple(store: impl Store) {
    let world = World::default();
    let (couple, other) = (world.stored_couple(&store).await.id, world.stored_couple(&store).await.id);
    let mine = world.date(couple);
    let theirs = CoupleDate { couple: other, kind: DateKind::Birthday, ..mine.clone() };
    must(&store, put(&mine)).await;
    accepted(&store, put(&theirs), "two couples cannot have dates of one id").await;
    require_stored(&store, &stored(&mine), "after another couple added one of its id").await;
    let changed = CoupleDate { day: day("2001-02-03"), ..stored(&theirs) };
    must(&store, put(&changed)).await;
    require_stored(&store, &stored(&mine), "after another couple changed one of its id").await;
    must(&store, remove(&stored(&mine))).await;
    require_stored(&store, &stored(&changed), "after another couple removed one of its id").await;
    let gone = store.date(couple, mine.id).await.unwrap();
    same(&gone, &None, "a date of another couple is found");
}

/// Replacing a member of an ended couple removes the dates of that couple, and of no other.
pub async fn da7_dates_are_removed_with_a_member(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let other = world.couple([couple.members[0], world.account_id()]);
    let date = world.date(other.id);
    let dates = [world.date(couple.id), world.date(couple.id)];
    all(&store, dates.iter().map(|date| put(date).into()).collect()).await;
    must(&store, end(&couple, &world)).await;
    all(&store, vec![PairingChange::Pair(other.clone()).into(), put(&date).into()]).await;
    let replace = PairingChange::Anonymize { couple: couple.id, side: Side::First, with: world.account_id() };
    must(&store, replace).await;
    for removed in dates {
        let found = store.date(couple.id, removed.id).await.unwrap();
        same(&found, &None, "a date stays after a member of its couple was replaced");
    }
    same(
        &ids_of(&store, couple.id).await,
        &Vec::new(),
        "dates stay after a member of their couple was replaced",
    );
    require_stored(&store, &stored(&date), "after a member of another couple was replaced").await;
    // A replacement without dates.
    let with = world.account_id();
    let second = PairingChange::Anonymize { couple: couple.id, side: Side::Second, with };
    accepted(&store, second, "a member of a couple without dates cannot be replaced").await;
}
