//! T1–T14: the log of a couple.

use std::sync::Arc;

use couple_core::{
    ChangeResult, Conflict, CoupleId, Store,
    pairing::{Couple, PairingChange, Side},
    timeline::{Body, Entry, NewEntry, Page, TimelineChange},
};

use crate::world::{World, all, append, conflict, conflicts, must, race};

async fn all_entries(store: &impl Store, couple: CoupleId) -> Vec<Entry> {
    store.entries(couple, Page::After(0), 1000, None).await.unwrap()
}

/// `seq` is 1, 2, 3, … without gaps under concurrent writers.
pub async fn t1_seq_has_no_gaps(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let commits = (0..200).map(|n| vec![append(couple.id, world.entry(&n.to_string()))]).collect();
    assert_eq!(race(&store, commits).await, 200);
    let seqs: Vec<i64> = all_entries(&store, couple.id).await.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert_eq!(store.couple(couple.id).await.unwrap().unwrap().head_seq, 200);
}

/// A reader with a cursor sees every entry once and in order while writers append.
pub async fn t2_reader_sees_every_entry_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let commits: Vec<_> = (0..100).map(|n| vec![append(couple.id, world.entry(&n.to_string()))]).collect();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move { race(&store, commits).await })
    };
    let mut cursor = 0;
    while cursor < 100 {
        for entry in store.entries(couple.id, Page::After(cursor), 7, None).await.unwrap() {
            assert_eq!(entry.seq, cursor + 1);
            cursor = entry.seq;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(writer.await.unwrap(), 100);
}

/// An author uses a client id once; the other author may use the same one, and the system uses none.
pub async fn t3_author_uses_a_client_id_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let commits = (0..50).map(|_| vec![append(couple.id, world.entry("same"))]).collect();
    assert_eq!(race(&store, commits).await, 1);
    let theirs = NewEntry { author: Some(Side::Second), ..world.entry("same") };
    all(&store, vec![append(couple.id, theirs)]).await;
    for side in [Side::First, Side::Second] {
        let found = store.entry_by_client_id(couple.id, side, "same").await.unwrap().unwrap();
        assert_eq!(found.author, Some(side));
    }
    let system = NewEntry::system("paired", None, None, world.now());
    all(&store, vec![append(couple.id, system.clone()), append(couple.id, system)]).await;
    assert_eq!(all_entries(&store, couple.id).await.len(), 4);
    assert_eq!(store.entry_by_client_id(couple.id, Side::First, "Same").await.unwrap(), None);
}

/// A commit that conflicts after an append leaves no gap.
pub async fn t4_failed_commit_leaves_no_gap(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    all(&store, vec![append(couple.id, world.entry("a"))]).await;
    let changes = vec![append(couple.id, world.entry("b")), append(couple.id, world.entry("a"))];
    assert_eq!(conflicts(&store, changes).await, Conflict::ClientIdUsed);
    let committed = all(&store, vec![append(couple.id, world.entry("c"))]).await;
    assert_eq!(committed.results(), [ChangeResult::Appended { seq: 2 }]);
}

/// Every field of an entry reads back, with any Unicode text.
pub async fn t5_entry_fields_read_back(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let new = NewEntry {
        author: Some(Side::Second),
        client_id: Some("c-1".to_owned()),
        kind: "x-own".to_owned(),
        body: Some(Body::from_stored(r#"{"text":"\u0041 👩‍❤️‍👨 ' \" \\ 李"}"#)),
        target: Some(7),
        at: world.later(3),
    };
    let system = NewEntry::system("paired", None, None, world.now());
    all(&store, vec![append(couple.id, new.clone()), append(couple.id, system.clone())]).await;
    for (seq, new) in [(1, new), (2, system)] {
        let expected = Entry {
            seq,
            author: new.author,
            client_id: new.client_id,
            kind: new.kind,
            body: new.body,
            target: new.target,
            created_at: new.at,
            edited_at: None,
            deleted_at: None,
            reactions: [None, None],
        };
        assert_eq!(store.entry(couple.id, seq).await.unwrap(), Some(expected));
    }
    assert_eq!(store.entry(couple.id, 3).await.unwrap(), None);
}

/// Pages in both directions keep `seq` order and the limit, and filter by kind and by author.
pub async fn t6_pages_keep_seq_order_and_limit(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    for n in 1..=20 {
        let kind = if n % 5 == 0 { "hug" } else { "text" };
        let author = if n % 2 == 0 { Side::First } else { Side::Second };
        let entry = NewEntry { kind: kind.to_owned(), author: Some(author), ..world.entry(&n.to_string()) };
        all(&store, vec![append(couple.id, entry)]).await;
    }
    let seqs = |page, limit, kind| {
        let store = &store;
        async move {
            let page = store.entries(couple.id, page, limit, kind).await.unwrap();
            page.iter().map(|entry| entry.seq).collect::<Vec<_>>()
        }
    };
    assert_eq!(seqs(Page::After(3), 3, None).await, [4, 5, 6]);
    assert_eq!(seqs(Page::Before(4), 2, None).await, [2, 3]);
    assert_eq!(seqs(Page::Before(3), 9, None).await, [1, 2]);
    assert_eq!(seqs(Page::After(20), 9, None).await, Vec::<i64>::new());
    assert_eq!(seqs(Page::Before(i64::MAX), 2, None).await, [19, 20]);
    assert_eq!(seqs(Page::After(i64::MAX), 2, None).await, Vec::<i64>::new());
    assert_eq!(seqs(Page::After(5), 2, Some("hug")).await, [10, 15]);
    assert_eq!(seqs(Page::Before(15), 1, Some("hug")).await, [10]);
    let by = store.entries_by(couple.id, Side::First, 4, 3).await.unwrap();
    assert_eq!(by.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [6, 8, 10]);
}

fn edit(couple: CoupleId, seq: i64, author: Side, world: &World) -> TimelineChange {
    TimelineChange::Edit { couple, seq, author, body: Body::from_stored("{}"), at: world.later(1) }
}

/// An author edits only their own entries, and no tombstones.
pub async fn t7_author_edits_only_own_entries(store: impl Store) {
    let world = World::default();
    let id = world.stored_couple(&store).await.id;
    all(&store, vec![append(id, world.entry("a"))]).await;
    let system = NewEntry::system("paired", None, None, world.now());
    all(&store, vec![append(id, system)]).await;
    must(&store, edit(id, 1, Side::First, &world)).await;
    let entry = store.entry(id, 1).await.unwrap().unwrap();
    assert_eq!((entry.body, entry.edited_at), (Some(Body::from_stored("{}")), Some(world.later(1))));
    assert_eq!(conflict(&store, edit(id, 1, Side::Second, &world)).await, Conflict::EntryClosed(1));
    assert_eq!(conflict(&store, edit(id, 2, Side::First, &world)).await, Conflict::EntryClosed(2));
    assert_eq!(conflict(&store, edit(id, 3, Side::First, &world)).await, Conflict::EntryClosed(3));
}

/// Deleting leaves a tombstone: no body, no reactions, the same `seq`, permanently.
pub async fn t8_deletion_leaves_a_tombstone(store: impl Store) {
    let world = World::default();
    let id = world.stored_couple(&store).await.id;
    all(&store, vec![append(id, world.entry("a"))]).await;
    let react =
        TimelineChange::React { couple: id, seq: 1, side: Side::Second, emoji: Some("❤️".to_owned()) };
    must(&store, react.clone()).await;
    let delete = |author| TimelineChange::Delete { couple: id, seq: 1, author, at: world.later(2) };
    assert_eq!(conflict(&store, delete(Side::Second)).await, Conflict::EntryClosed(1));
    must(&store, delete(Side::First)).await;
    let entry = store.entry(id, 1).await.unwrap().unwrap();
    assert_eq!((entry.body, entry.reactions, entry.deleted_at), (None, [None, None], Some(world.later(2))));
    for change in [delete(Side::First), react, edit(id, 1, Side::First, &world)] {
        assert_eq!(conflict(&store, change).await, Conflict::EntryClosed(1));
    }
    // The client id stays used, so that a late repeat cannot restore the entry.
    assert_eq!(conflicts(&store, vec![append(id, world.entry("a"))]).await, Conflict::ClientIdUsed);
}

/// Each member has one reaction per entry.
pub async fn t9_member_has_one_reaction_per_entry(store: impl Store) {
    let world = World::default();
    let id = world.stored_couple(&store).await.id;
    all(&store, vec![append(id, world.entry("a"))]).await;
    let react = |side, emoji: Option<&str>| TimelineChange::React {
        couple: id,
        seq: 1,
        side,
        emoji: emoji.map(str::to_owned),
    };
    for (side, emoji, expected) in [
        (Side::First, Some("😀"), [Some("😀"), None]),
        (Side::Second, Some("❤️"), [Some("😀"), Some("❤️")]),
        (Side::First, Some("👍🏽"), [Some("👍🏽"), Some("❤️")]),
        (Side::Second, None, [Some("👍🏽"), None]),
    ] {
        must(&store, react(side, emoji)).await;
        let entry = store.entry(id, 1).await.unwrap().unwrap();
        assert_eq!(entry.reactions.each_ref().map(Option::as_deref), expected);
    }
    let missing = TimelineChange::React { couple: id, seq: 2, side: Side::First, emoji: None };
    assert_eq!(conflict(&store, missing).await, Conflict::EntryClosed(2));
}

/// A read position only moves forward, at most to the newest entry.
pub async fn t10_read_position_never_moves_back(store: impl Store) {
    let world = World::default();
    let id = world.stored_couple(&store).await.id;
    for n in 0..5 {
        all(&store, vec![append(id, world.entry(&n.to_string()))]).await;
    }
    for (side, seq, expected) in [
        (Side::First, 3, [3, 0]),
        (Side::First, 1, [3, 0]),
        (Side::Second, 99, [3, 5]),
        (Side::Second, -1, [3, 5]),
        (Side::First, 5, [5, 5]),
        (Side::First, 6, [5, 5]),
    ] {
        must(&store, TimelineChange::MarkRead { couple: id, side, seq }).await;
        assert_eq!(store.couple(id).await.unwrap().unwrap().read, expected, "{side:?} {seq}");
    }
}

/// The log of an ended couple can be read but not written.
pub async fn t11_log_of_an_ended_couple_is_read_only(store: impl Store) {
    let world = World::default();
    let Couple { id, members, .. } = world.stored_couple(&store).await;
    all(&store, vec![append(id, world.entry("a"))]).await;
    must(&store, PairingChange::End { id, members, at: world.now() }).await;
    let changes = [
        TimelineChange::Append { couple: id, entry: world.entry("b") },
        edit(id, 1, Side::First, &world),
        TimelineChange::Delete { couple: id, seq: 1, author: Side::First, at: world.now() },
        TimelineChange::React { couple: id, seq: 1, side: Side::First, emoji: None },
        TimelineChange::MarkRead { couple: id, side: Side::First, seq: 1 },
    ];
    for change in changes {
        assert_eq!(conflict(&store, change).await, Conflict::CoupleEnded(id));
    }
    assert_eq!(all_entries(&store, id).await.len(), 1);
}

/// Erasing affects one member's entries and reactions in one range of an ended couple's log.
pub async fn t12_erasure_changes_only_one_members_entries(store: impl Store) {
    let world = World::default();
    let Couple { id, members, .. } = world.stored_couple(&store).await;
    for n in 0..9 {
        let author = if n % 2 == 0 { Side::First } else { Side::Second };
        all(&store, vec![append(id, NewEntry { author: Some(author), ..world.entry(&n.to_string()) })]).await;
    }
    let erase = |after, cap| TimelineChange::Erase {
        couple: id,
        author: Side::First,
        at: world.later(9),
        after,
        cap,
    };
    assert_eq!(conflict(&store, erase(0, 9)).await, Conflict::CoupleLives(id));
    for (seq, side) in
        [(2, Side::First), (4, Side::First), (4, Side::Second), (5, Side::First), (8, Side::First)]
    {
        must(&store, TimelineChange::React { couple: id, seq, side, emoji: Some("❤️".to_owned()) }).await;
    }
    must(&store, PairingChange::End { id, members, at: world.now() }).await;
    let before = all_entries(&store, id).await;
    let mut erased = Vec::new();
    for (first, after) in [(0, 0), (3, 3), (6, 6)] {
        let changed = must(&store, erase(after, 3)).await.rows_affected();
        let now = all_entries(&store, id).await;
        let range = first..first + 3;
        // The change affects only entries in its range, and returns the number of changed ones.
        assert_eq!(now[range.end..], before[range.end..]);
        assert_eq!(now[..range.start], erased);
        let differ = now[range.clone()].iter().zip(&before[range]).filter(|(now, then)| now != then).count();
        assert_eq!(changed, differ as u64);
        erased = now[..first + 3].to_vec();
    }
    for (n, entry) in erased.iter().enumerate() {
        let own = entry.author == Some(Side::First);
        assert_eq!(own, entry.body.is_none() && entry.client_id.is_none() && entry.deleted_at.is_some());
        let other = (n == 3).then(|| "❤️".to_owned());
        assert_eq!(entry.reactions, [None, other], "{n}");
    }
    assert_eq!(store.entry_by_client_id(id, Side::First, "0").await.unwrap(), None);
    // A repetition, or a range beyond the head of the log, changes nothing.
    assert_eq!(must(&store, erase(0, 9)).await.rows_affected(), 0);
    assert_eq!(must(&store, erase(9, 9)).await.rows_affected(), 0);
}

/// Reads of a couple never return entries of another couple.
pub async fn t13_read_returns_no_entry_of_another_couple(store: impl Store) {
    let world = World::default();
    let (one, other) = (world.stored_couple(&store).await.id, world.stored_couple(&store).await.id);
    all(&store, vec![append(one, world.entry("a")), append(other, world.entry("a"))]).await;
    all(&store, vec![append(one, world.entry("b"))]).await;
    assert_eq!(all_entries(&store, one).await.len(), 2);
    assert_eq!(all_entries(&store, other).await.len(), 1);
    assert_eq!(store.entry_by_client_id(other, Side::First, "b").await.unwrap(), None);
    assert_eq!(all_entries(&store, world.couple_id()).await, []);
}

/// Unread entries are those of one author with a client id, after a position, without tombstones.
pub async fn t14_unread_entries_of_an_author_are_counted(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let by = |author, name: &str| append(couple.id, NewEntry { author: Some(author), ..world.entry(name) });
    let (first, second) = (Side::First, Side::Second);
    let system = |kind: &str, by| append(couple.id, NewEntry::system(kind, by, Some(1), world.now()));
    let changes = vec![
        by(first, "a"),
        by(second, "b"),
        by(first, "c"),
        system("entry_edited", Some(first)),
        system("entry_reacted", Some(second)),
        system("media_ready", None),
        by(first, "d"),
        TimelineChange::Delete { couple: couple.id, seq: 3, author: first, at: world.now() }.into(),
        system("entry_deleted", Some(first)),
    ];
    all(&store, changes).await;
    let other = world.stored_couple(&store).await;
    all(&store, vec![append(other.id, world.entry("a"))]).await;
    for (author, after, expected) in
        [(first, 0, 2), (first, 1, 1), (first, 6, 1), (first, 7, 0), (second, 0, 1), (second, 2, 0)]
    {
        let unread = store.unread(couple.id, author, after, &[]).await.unwrap();
        assert_eq!(unread, expected, "{author:?} after {after}");
    }
    assert_eq!(store.unread(other.id, first, 0, &[]).await.unwrap(), 1);
    assert_eq!(store.unread(world.couple_id(), first, 0, &[]).await.unwrap(), 0);
    let hug = NewEntry { kind: "hug".to_owned(), ..world.entry("e") };
    all(&store, vec![append(couple.id, hug)]).await;
    let except = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
    for (kinds, expected) in [(&[][..], 3), (&["hug"], 2), (&["text"], 1), (&["x-a", "hug", "text"], 0)] {
        assert_eq!(store.unread(couple.id, first, 0, &except(kinds)).await.unwrap(), expected, "{kinds:?}");
    }
}
