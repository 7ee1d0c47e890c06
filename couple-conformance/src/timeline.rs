//! T1–T14: the log of a couple.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use couple_core::{
    Change, ChangeResult, Conflict, CoupleId, Store, Timestamp,
    pairing::{Couple, PairingChange, Side},
    timeline::{Body, Entry, NewEntry, Page, TimelineChange},
};

use crate::{
    change_races,
    samples::{EARLY, LATE},
    world::{World, all, append, commit, concurrently, conflict, conflicts, must, race},
};

/// Longest body in bytes: the longest one of a client, and the picture's state that the system adds.
const MAX_BODY_BYTES: usize = Body::MAX_BODY_BYTES + 1024;

async fn all_entries(store: &impl Store, couple: CoupleId) -> Vec<Entry> {
    store.entries(couple, Page::After(0), 1000, None).await.unwrap()
}

fn seqs(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.seq).collect()
}

async fn stored_entry(store: &impl Store, couple: CoupleId, seq: i64) -> Entry {
    store.entry(couple, seq).await.unwrap().expect("an entry is not found by its seq")
}

async fn require_conflict(store: &impl Store, change: impl Into<Change>, expected: Conflict, what: &str) {
    assert_eq!(conflict(store, change).await, expected, "another conflict: {what}");
}

/// Commits a couple whose log is at `head`, as after many years.
async fn stored_couple_at(world: &World, store: &impl Store, head: i64) -> CoupleId {
    let couple = Couple { head_seq: head, ..world.couple([world.account_id(), world.account_id()]) };
    must(store, PairingChange::Pair(couple.clone())).await;
    couple.id
}

/// The `seq` of each log is 1, 2, 3, … without gaps under concurrent writers.
pub async fn t1_seq_has_no_gaps(store: impl Store) {
    const BEFORE: i64 = 5_000_000_000;
    let world = World::default();
    let store = Arc::new(store);
    let other = world.stored_couple(&store).await;
    all(&store, vec![append(other.id, world.entry("other"))]).await;
    let couple = world.stored_couple(&store).await;
    let mut results = Vec::new();
    for wave in [0..100, 100..200] {
        let commits = wave.map(|n| vec![append(couple.id, world.entry(&n.to_string()))]).collect();
        results.extend(concurrently(&store, commits).await);
    }
    let entries = all_entries(&store, couple.id).await;
    assert_eq!(seqs(&entries), (1..=200).collect::<Vec<_>>(), "the seqs of a log are not 1, 2, 3, …");
    for (n, result) in results.into_iter().enumerate() {
        let seq = result.expect("an append conflicts with another one").appended_seqs().next();
        let named = entries.iter().find(|entry| Some(entry.seq) == seq).and_then(|e| e.client_id.clone());
        assert_eq!(named, Some(n.to_string()), "an append returns the seq of another entry: {seq:?}");
    }
    let head = store.couple(couple.id).await.unwrap().unwrap().head_seq;
    assert_eq!(head, 200, "the head of a log is not its last seq");
    let old = stored_couple_at(&world, &store, BEFORE).await;
    let committed = all(&store, vec![append(old, world.entry("a"))]).await;
    assert_eq!(committed.appended_seqs().next(), Some(BEFORE + 1), "a seq above 2^32 is not the next one");
    assert_eq!(seqs(&all_entries(&store, old).await), [BEFORE + 1], "a seq above 2^32 is not stored");
}

/// A reader with a cursor sees every entry once and in order while writers append.
pub async fn t2_reader_sees_every_entry_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await;
    let commits: Vec<_> = (0..100).map(|n| vec![append(couple.id, world.entry(&n.to_string()))]).collect();
    let is_written = AtomicBool::new(false);
    let writer = async {
        let succeeded = race(&store, commits).await;
        is_written.store(true, Ordering::SeqCst);
        succeeded
    };
    let reader = async {
        let mut cursor = 0;
        while cursor < 100 {
            let written = is_written.load(Ordering::SeqCst);
            let page = store.entries(couple.id, Page::After(cursor), 7, None).await.unwrap();
            if written && page.is_empty() {
                break;
            }
            for entry in page {
                assert_eq!(entry.seq, cursor + 1, "a reader misses an entry, or sees one twice");
                cursor = entry.seq;
            }
            tokio::task::yield_now().await;
        }
        cursor
    };
    let (succeeded, cursor) = tokio::join!(writer, reader);
    assert_eq!(succeeded, 100, "an append conflicts with another one");
    assert_eq!(cursor, 100, "a reader misses the last entries");
}

/// An author uses a client id once; the other author and other couples may use the same one, and the system uses none. Ids that differ in
/// case, accents or a blank are different.
pub async fn t3_author_uses_a_client_id_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let couple = world.stored_couple(&store).await.id;
    let commits = (0..50).map(|_| vec![append(couple, world.entry("same-é"))]).collect();
    assert_eq!(race(&store, commits).await, 1, "an author uses a client id more than once");
    let author = |side, id: &str| NewEntry { author: Some(side), ..world.entry(id) };
    let similar = ["Same-é", "same-e", "same-é ", "same", "s%", "____-é"];
    for id in similar {
        let found = store.entry_by_client_id(couple, Side::First, id).await.unwrap();
        assert_eq!(found, None, "a client id is found by a similar one: {id:?}");
    }
    let may_repeat = async |couple: CoupleId, entry: NewEntry| {
        let repeated = commit(&store, vec![append(couple, entry.clone())]).await;
        assert!(repeated.is_ok(), "an id that its author has not used conflicts: {entry:?}");
    };
    may_repeat(couple, author(Side::Second, "same-é")).await;
    for id in similar {
        may_repeat(couple, author(Side::First, id)).await;
    }
    let other = world.stored_couple(&store).await.id;
    may_repeat(other, author(Side::First, "same-é")).await;
    for side in [Side::First, Side::Second] {
        for id in similar.into_iter().take(if side == Side::First { 6 } else { 0 }).chain(["same-é"]) {
            let found = store.entry_by_client_id(couple, side, id).await.unwrap();
            let found = found.map(|entry| (entry.author, entry.client_id));
            let expected = Some((Some(side), Some(id.to_owned())));
            assert_eq!(found, expected, "a client id finds the entry of another id or author");
        }
    }
    let system = NewEntry::system("paired", None, None, world.now());
    may_repeat(couple, system.clone()).await;
    may_repeat(couple, system).await;
    let by = NewEntry::system("paired", Some(Side::First), None, world.now());
    may_repeat(couple, by.clone()).await;
    may_repeat(couple, by).await;
}

/// A commit that conflicts after an append leaves no gap, and none of its client ids.
pub async fn t4_failed_commit_leaves_no_gap(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    all(&store, vec![append(couple.id, world.entry("a"))]).await;
    let changes = vec![append(couple.id, world.entry("b")), append(couple.id, world.entry("a"))];
    assert_eq!(conflicts(&store, changes).await, Conflict::ClientIdUsed, "a repeated client id");
    let found = store.entry_by_client_id(couple.id, Side::First, "b").await.unwrap();
    assert_eq!(found, None, "a commit that conflicted left a client id");
    let committed = match commit(&store, vec![append(couple.id, world.entry("b"))]).await {
        Ok(committed) => committed,
        Err(error) => panic!("a commit that conflicted left a client id: {error}"),
    };
    let expected = [ChangeResult::Appended { seq: 2 }];
    assert_eq!(committed.results(), expected, "a commit that conflicted left a gap");
}

/// Bodies as no JSON writer formats them, with any Unicode text.
fn unusual_body(text: &str) -> Body {
    Body::from_stored(format!(
        r#"{{ "z":1.50,  "a" : "\u0041 👩‍❤️‍👨 ' \" \\ {text} 李", "z":9007199254740993 }} "#
    ))
}

/// Every field of an entry reads back, with any Unicode text, in the longest client ids and kinds (64 bytes) and bodies (17 KiB).
pub async fn t5_entry_fields_read_back(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let long_id: String = ('!'..='~').filter(|c| *c != '"').take(64).collect();
    let long_body = format!(r#"{{ "z":1.50,  "a" : "É👩‍❤️‍👨{}👋Z " }}"#, "é".repeat(MAX_BODY_BYTES / 2 - 40));
    let long_body = format!("{long_body}{}", " ".repeat(MAX_BODY_BYTES - long_body.len()));
    let mut new = vec![
        NewEntry {
            author: Some(Side::Second),
            client_id: Some(long_id.clone()),
            kind: format!("X-{}", long_id.chars().rev().take(62).collect::<String>()),
            body: Some(Body::from_stored(long_body)),
            target: Some(5_000_000_007),
            at: EARLY,
        },
        NewEntry {
            author: Some(Side::First),
            client_id: Some("Ç-👋 ".to_owned()),
            kind: "x-Ôwn 👋 ".to_owned(),
            body: Some(unusual_body("É")),
            target: None,
            at: LATE,
        },
        NewEntry {
            author: None,
            client_id: None,
            kind: "media_ready".to_owned(),
            body: None,
            target: Some(i64::MAX - 1),
            at: world.later(3),
        },
        NewEntry {
            author: Some(Side::Second),
            client_id: None,
            kind: "entry_edited".to_owned(),
            body: None,
            target: Some(1),
            at: world.later(2),
        },
    ];
    for entry in &new {
        all(&store, vec![append(couple.id, entry.clone())]).await;
    }
    // Appended in one commit, too.
    let more: Vec<NewEntry> = new
        .iter()
        .map(|entry| NewEntry {
            client_id: entry.client_id.as_ref().map(|id| id.chars().rev().collect()),
            ..entry.clone()
        })
        .collect();
    all(&store, more.iter().map(|entry| append(couple.id, entry.clone())).collect()).await;
    new.extend(more);
    let expected: Vec<Entry> = new.into_iter().zip(1..).map(|(entry, seq)| entry.at_seq(seq)).collect();
    for expected in &expected {
        let found = stored_entry(&store, couple.id, expected.seq).await;
        assert!(found == *expected, "an entry reads back otherwise:\n{found:?}\n{expected:?}");
    }
    for page in [Page::After(0), Page::Before(i64::MAX)] {
        let found = store.entries(couple.id, page, 99, None).await.unwrap();
        assert!(found == expected, "a page has other fields than its entries: {page:?}");
    }
    for side in [Side::First, Side::Second] {
        let found = store.entries_by(couple.id, side, 0, 99).await.unwrap();
        let expected: Vec<_> = expected.iter().filter(|entry| entry.author == Some(side)).cloned().collect();
        assert!(found == expected, "an export has other fields than its entries: {side:?}");
    }
    assert_eq!(store.entry(couple.id, 9).await.unwrap(), None, "an entry is found beyond the head");
}

/// Pages in both directions keep `seq` order and the limit, and filter by kind and by author. They have tombstones too.
pub async fn t6_pages_keep_seq_order_and_limit(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let similar = ["Hug", "hug ", "húg", "hu", "h%", "h_g", "hug-2"];
    let mut changes = Vec::new();
    for n in 1..=20_u64 {
        let kind = if n % 5 == 0 { "hug" } else { similar[usize::try_from(n).unwrap() % 7] };
        let author = if n % 2 == 0 { Side::First } else { Side::Second };
        // The clock was set back before each entry.
        let at = world.later(100 - n);
        let entry =
            NewEntry { kind: kind.to_owned(), author: Some(author), at, ..world.entry(&n.to_string()) };
        changes.push(append(couple.id, entry));
    }
    for seq in [6, 15] {
        let author = if seq == 6 { Side::First } else { Side::Second };
        changes.push(TimelineChange::Delete { couple: couple.id, seq, author, at: world.now() }.into());
    }
    for n in 21..=260 {
        let entry = NewEntry { author: None, client_id: None, ..world.entry(&n.to_string()) };
        changes.push(append(couple.id, entry));
    }
    for commit in changes.chunks(50) {
        all(&store, commit.to_vec()).await;
    }
    let page = async |page, limit, kind, expected: &[i64]| {
        let found = seqs(&store.entries(couple.id, page, limit, kind).await.unwrap());
        assert_eq!(found, expected, "a page of {page:?} with limit {limit}, kind {kind:?} has other entries");
    };
    page(Page::After(3), 3, None, &[4, 5, 6]).await;
    page(Page::Before(4), 2, None, &[2, 3]).await;
    page(Page::Before(3), 9, None, &[1, 2]).await;
    page(Page::Before(8), 3, None, &[5, 6, 7]).await;
    page(Page::After(260), 9, None, &[]).await;
    page(Page::Before(i64::MAX), 2, None, &[259, 260]).await;
    page(Page::After(i64::MAX), 2, None, &[]).await;
    page(Page::Before(i64::MIN), 2, None, &[]).await;
    page(Page::After(0), 200, None, &(1..=200).collect::<Vec<_>>()).await;
    page(Page::Before(241), 200, None, &(41..=240).collect::<Vec<_>>()).await;
    page(Page::After(5), 2, Some("hug"), &[10, 15]).await;
    page(Page::After(0), 9, Some("hug"), &[5, 10, 15, 20]).await;
    page(Page::Before(15), 1, Some("hug"), &[10]).await;
    page(Page::Before(21), 9, Some("hug"), &[5, 10, 15, 20]).await;
    page(Page::After(0), 9, Some("h%"), &[4, 11, 18]).await;
    page(Page::After(0), 9, Some("x"), &[]).await;
    let by = async |side, after, limit, expected: &[i64]| {
        let found = seqs(&store.entries_by(couple.id, side, after, limit).await.unwrap());
        assert_eq!(found, expected, "an export of {side:?} after {after}, limit {limit} has other entries");
    };
    by(Side::First, 4, 3, &[6, 8, 10]).await;
    by(Side::Second, 13, 9, &[15, 17, 19]).await;
    by(Side::First, 260, 9, &[]).await;
    by(Side::Second, 0, 99, &(1..20).step_by(2).collect::<Vec<_>>()).await;
}

fn edit_with(couple: CoupleId, seq: i64, author: Side, body: &Body, at: Timestamp) -> TimelineChange {
    TimelineChange::Edit { couple, seq, author, body: body.clone(), at }
}

fn edit(couple: CoupleId, seq: i64, author: Side, world: &World) -> TimelineChange {
    edit_with(couple, seq, author, &Body::from_stored("{}"), world.later(1))
}

/// A log with similar entries in two couples: two of each author, one of the system about each.
async fn similar_logs(world: &World, store: &impl Store) -> [CoupleId; 2] {
    let ids = [world.stored_couple(store).await.id, world.stored_couple(store).await.id];
    for id in ids {
        let new =
            |author, name: &str| NewEntry { author: Some(author), target: Some(3), ..world.entry(name) };
        let system = |by| append(id, NewEntry::system("paired", by, Some(1), world.now()));
        let changes = vec![
            append(id, new(Side::First, "a")),
            append(id, new(Side::First, "b")),
            append(id, new(Side::Second, "a")),
            append(id, new(Side::Second, "b")),
            system(None),
            system(Some(Side::First)),
        ];
        all(store, changes).await;
    }
    ids
}

/// Entries of both logs: the first entry of the first log, and all others.
async fn first_and_others(store: &impl Store, ids: [CoupleId; 2]) -> (Entry, Vec<Entry>) {
    let mut entries = all_entries(store, ids[0]).await;
    let first = entries.remove(0);
    entries.extend(all_entries(store, ids[1]).await);
    (first, entries)
}

/// An author edits only their own entries, and no tombstones; each edit replaces the one before, and changes nothing else.
pub async fn t7_author_edits_only_own_entries(store: impl Store) {
    let world = World::default();
    let ids = similar_logs(&world, &store).await;
    let id = ids[0];
    let react = |emoji: &str| TimelineChange::React {
        couple: id,
        seq: 1,
        side: Side::Second,
        emoji: Some(emoji.to_owned()),
    };
    must(&store, react("❤️")).await;
    let (before, others) = first_and_others(&store, ids).await;
    let long = format!(r#"{{"t": "{}"}} "#, "é".repeat((MAX_BODY_BYTES - 11) / 2));
    for (body, at) in [
        (unusual_body("É"), EARLY),
        (Body::from_stored(long), LATE),
        (Body::from_stored("{}"), world.later(1)),
        (unusual_body("2"), world.later(9)),
    ] {
        must(&store, edit_with(id, 1, Side::First, &body, at)).await;
        let (found, others_now) = first_and_others(&store, ids).await;
        let expected = Entry { body: Some(body), edited_at: Some(at), ..before.clone() };
        assert!(found == expected, "an edited entry reads back otherwise:\n{found:?}\n{expected:?}");
        assert_eq!(others_now, others, "an edit changes another entry");
    }
    for (seq, author) in
        [(1, Side::Second), (3, Side::First), (5, Side::First), (5, Side::Second), (7, Side::First)]
    {
        let closed = commit(&store, vec![edit(id, seq, author, &world).into()]).await;
        assert!(closed.is_err(), "{author:?} edits entry {seq}, which is not theirs");
        require_conflict(&store, edit(id, seq, author, &world), Conflict::EntryClosed(seq), "an edit").await;
    }
    must(&store, TimelineChange::Delete { couple: id, seq: 2, author: Side::First, at: world.now() }).await;
    let closed = commit(&store, vec![edit(id, 2, Side::First, &world).into()]).await;
    assert!(closed.is_err(), "an edit changes a tombstone");
}

/// Deleting leaves a tombstone: no body, no reactions, the same `seq` and other fields, permanently.
pub async fn t8_deletion_leaves_a_tombstone(store: impl Store) {
    let world = World::default();
    for at in [EARLY, LATE] {
        let ids = similar_logs(&world, &store).await;
        let id = ids[0];
        let react = |side, emoji: Option<&str>| TimelineChange::React {
            couple: id,
            seq: 1,
            side,
            emoji: emoji.map(str::to_owned),
        };
        must(&store, react(Side::First, Some("😀"))).await;
        must(&store, react(Side::Second, Some("❤️"))).await;
        must(&store, edit(id, 1, Side::First, &world)).await;
        let (before, others) = first_and_others(&store, ids).await;
        let delete = |seq, author, at| TimelineChange::Delete { couple: id, seq, author, at };
        for (seq, author) in [(1, Side::Second), (5, Side::First), (7, Side::First)] {
            let closed = commit(&store, vec![delete(seq, author, at).into()]).await;
            assert!(closed.is_err(), "{author:?} deletes entry {seq}, which is not theirs");
        }
        must(&store, delete(1, Side::First, at)).await;
        let (found, others_now) = first_and_others(&store, ids).await;
        assert_eq!(found.seq, 1, "a deletion leaves no tombstone");
        let expected = Entry { body: None, reactions: [None, None], deleted_at: Some(at), ..before };
        assert!(found == expected, "a tombstone reads back otherwise:\n{found:?}\n{expected:?}");
        assert_eq!(others_now, others, "a deletion changes another entry");
        let changes = [
            ("a second deletion", delete(1, Side::First, world.later(5))),
            ("a reaction", react(Side::Second, Some("❤️"))),
            ("a removed reaction", react(Side::First, None)),
            ("an edit", edit(id, 1, Side::First, &world)),
        ];
        for (what, change) in changes {
            let closed = commit(&store, vec![change.into()]).await;
            assert!(closed.is_err(), "{what} changes a tombstone");
        }
        assert_eq!(stored_entry(&store, id, 1).await, expected, "a change of a tombstone that conflicted");
        // The client id stays used, so that a late repeat cannot restore the entry.
        let repeated = commit(&store, vec![append(id, world.entry("a"))]).await;
        assert!(repeated.is_err(), "the client id of a tombstone is used again");
        let found = store.entry_by_client_id(id, Side::First, "a").await.unwrap();
        assert_eq!(found, Some(expected), "a tombstone is not found by its client id");
    }
    change_races::edited_tombstone_has_no_body(&Arc::new(store)).await;
}

/// Each member has one reaction per entry, up to 64 bytes long.
pub async fn t9_member_has_one_reaction_per_entry(store: impl Store) {
    let world = World::default();
    let ids = similar_logs(&world, &store).await;
    let (before, others) = first_and_others(&store, ids).await;
    let react = |seq, side, emoji: Option<&str>| TimelineChange::React {
        couple: ids[0],
        seq,
        side,
        emoji: emoji.map(str::to_owned),
    };
    let long = "😀".repeat(16);
    for (side, emoji, expected) in [
        (Side::First, Some("😀"), [Some("😀"), None]),
        (Side::Second, Some("❤️"), [Some("😀"), Some("❤️")]),
        (Side::First, Some("👍🏽"), [Some("👍🏽"), Some("❤️")]),
        (Side::Second, None, [Some("👍🏽"), None]),
        (Side::Second, None, [Some("👍🏽"), None]),
        (Side::Second, Some(long.as_str()), [Some("👍🏽"), Some(long.as_str())]),
        (Side::First, None, [None, Some(long.as_str())]),
    ] {
        must(&store, react(1, side, emoji)).await;
        let (found, others_now) = first_and_others(&store, ids).await;
        let expected = Entry { reactions: expected.map(|one| one.map(str::to_owned)), ..before.clone() };
        assert!(found == expected, "reactions read back otherwise:\n{found:?}\n{expected:?}");
        assert_eq!(others_now, others, "a reaction changes another entry");
    }
    for emoji in [None, Some("😀")] {
        let missing = commit(&store, vec![react(7, Side::First, emoji).into()]).await;
        assert!(missing.is_err(), "an entry that does not exist has a reaction");
        require_conflict(&store, react(7, Side::First, emoji), Conflict::EntryClosed(7), "a reaction").await;
    }
    change_races::reactions_of_both_members_are_stored(&Arc::new(store)).await;
}

/// A read position only moves forward, at most to the newest entry.
pub async fn t10_read_position_never_moves_back(store: impl Store) {
    const BEFORE: i64 = 5_000_000_000;
    let world = World::default();
    let (id, other) = (world.stored_couple(&store).await.id, world.stored_couple(&store).await.id);
    for n in 0..5 {
        let entry = world.entry(&n.to_string());
        all(&store, vec![append(id, entry.clone()), append(other, entry)]).await;
    }
    for (side, seq, expected) in [
        (Side::Second, -1, [0, 0]),
        (Side::First, 3, [3, 0]),
        (Side::First, 1, [3, 0]),
        (Side::First, 3, [3, 0]),
        (Side::Second, 99, [3, 5]),
        (Side::Second, -1, [3, 5]),
        (Side::First, 4, [4, 5]),
        (Side::First, i64::MIN, [4, 5]),
        (Side::First, 5, [5, 5]),
        (Side::First, 6, [5, 5]),
        (Side::Second, i64::MAX, [5, 5]),
    ] {
        must(&store, TimelineChange::MarkRead { couple: id, side, seq }).await;
        let read = store.couple(id).await.unwrap().unwrap().read;
        assert_eq!(read, expected, "the read positions after {side:?} read {seq} are others");
    }
    let read = store.couple(other).await.unwrap().unwrap().read;
    assert_eq!(read, [0, 0], "a read position of another couple moves");
    let old = stored_couple_at(&world, &store, BEFORE).await;
    must(&store, TimelineChange::MarkRead { couple: old, side: Side::Second, seq: BEFORE - 1 }).await;
    let read = store.couple(old).await.unwrap().unwrap().read;
    assert_eq!(read, [0, BEFORE - 1], "a read position above 2^32 is not stored");
    change_races::read_positions_of_both_members_are_stored(&Arc::new(store)).await;
}

/// The log of an ended couple can be read but not written, and a couple that does not exist has no log.
pub async fn t11_log_of_an_ended_couple_is_read_only(store: impl Store) {
    let world = World::default();
    let Couple { id, members, .. } = world.stored_couple(&store).await;
    all(&store, vec![append(id, world.entry("a"))]).await;
    must(&store, PairingChange::End { id, members, at: world.now(), by: None }).await;
    let before = (all_entries(&store, id).await, store.couple(id).await.unwrap());
    assert_eq!(before.0.len(), 1, "the log of an ended couple cannot be read");
    let react = |emoji| TimelineChange::React { couple: id, seq: 1, side: Side::First, emoji };
    let changes = [
        ("an entry", TimelineChange::Append { couple: id, entry: world.entry("b") }),
        ("an edit", edit(id, 1, Side::First, &world)),
        ("a deletion", TimelineChange::Delete { couple: id, seq: 1, author: Side::First, at: world.now() }),
        ("a reaction", react(Some("❤️".to_owned()))),
        ("a removed reaction", react(None)),
        ("a read position", TimelineChange::MarkRead { couple: id, side: Side::First, seq: 1 }),
    ];
    for (what, change) in changes {
        let written = commit(&store, vec![change.clone().into()]).await;
        assert!(written.is_err(), "{what} is written to the log of an ended couple");
        require_conflict(&store, change, Conflict::CoupleEnded(id), what).await;
    }
    let after = (all_entries(&store, id).await, store.couple(id).await.unwrap());
    assert_eq!(after, before, "a change that conflicted is written to the log of an ended couple");
    let unknown = world.couple_id();
    let written = commit(&store, vec![append(unknown, world.entry("a"))]).await;
    assert!(written.is_err(), "an entry is written for a couple that does not exist");
    require_conflict(&store, append(unknown, world.entry("a")), Conflict::CoupleEnded(unknown), "an entry")
        .await;
    change_races::no_entry_is_appended_after_the_end(&Arc::new(store)).await;
}

/// Erasing affects one member's entries and reactions in one range of an ended couple's log.
pub async fn t12_erasure_changes_only_one_members_entries(store: impl Store) {
    let world = World::default();
    for at in [EARLY, LATE] {
        let Couple { id, members, .. } = world.stored_couple(&store).await;
        for n in 0..9 {
            let author = if n % 2 == 0 { Side::First } else { Side::Second };
            let entry = NewEntry { author: Some(author), target: Some(n), ..world.entry(&n.to_string()) };
            all(&store, vec![append(id, entry)]).await;
        }
        // The tenth and eleventh entries are of the system, about each member; the twelfth is a tombstone.
        let system = |by| append(id, NewEntry::system("paired", by, Some(1), world.now()));
        all(&store, vec![system(None), system(Some(Side::First)), append(id, world.entry("gone"))]).await;
        must(&store, edit(id, 3, Side::First, &world)).await;
        must(&store, TimelineChange::Delete { couple: id, seq: 12, author: Side::First, at: world.now() })
            .await;
        let erase = |after, cap| TimelineChange::Erase { couple: id, author: Side::First, at, after, cap };
        let active = commit(&store, vec![erase(0, 9).into()]).await;
        assert!(active.is_err(), "entries of an active couple are erased");
        require_conflict(&store, erase(0, 9), Conflict::CoupleLives(id), "an erasure").await;
        for (seq, side) in [
            (2, Side::First),
            (4, Side::First),
            (4, Side::Second),
            (5, Side::First),
            (7, Side::Second),
            (8, Side::First),
            (10, Side::Second),
        ] {
            let emoji = Some(if side == Side::First { "❤️" } else { "😀" }.to_owned());
            must(&store, TimelineChange::React { couple: id, seq, side, emoji }).await;
        }
        must(&store, PairingChange::End { id, members, at: world.now(), by: None }).await;
        let before = all_entries(&store, id).await;
        let expected: Vec<Entry> = before
            .iter()
            .cloned()
            .map(|mut entry| {
                if entry.author == Some(Side::First) && entry.deleted_at.is_none() {
                    return Entry {
                        client_id: None,
                        body: None,
                        reactions: [None, None],
                        deleted_at: Some(at),
                        ..entry
                    };
                }
                entry.reactions[0] = None;
                entry
            })
            .collect();
        let mut log = before.clone();
        for first in [3, 0, 6, 9] {
            let changed = must(&store, erase(first as i64, 3)).await.rows_affected();
            let now = all_entries(&store, id).await;
            let range = first..first + 3;
            let differ = expected[range.clone()].iter().zip(&before[range.clone()]);
            let differ = differ.filter(|(now, then)| now != then).count() as u64;
            log[range.clone()].clone_from_slice(&expected[range.clone()]);
            assert_eq!(now[range.clone()], expected[range], "an erased range reads back otherwise");
            assert!(now == log, "an erasure changes entries outside of its range");
            assert_eq!(changed, differ, "an erasure returns another number of entries");
        }
        let found = store.entry_by_client_id(id, Side::First, "0").await.unwrap();
        assert_eq!(found, None, "an erased entry is found by its client id");
        // A repetition, or a range beyond the head of the log, changes nothing.
        for (after, cap) in [(0, 9), (0, u32::MAX), (12, 9), (i64::MAX, 9)] {
            let changed = must(&store, erase(after, cap)).await.rows_affected();
            assert_eq!(changed, 0, "an erasure that changes nothing counts entries");
        }
        let now = all_entries(&store, id).await;
        assert!(now == expected, "an erasure that changes nothing changes entries");
    }
    let unknown =
        TimelineChange::Erase { couple: world.couple_id(), author: Side::First, at: EARLY, after: 0, cap: 9 };
    assert_eq!(must(&store, unknown).await.rows_affected(), 0, "entries of a couple that does not exist");
}

/// Reads of a couple never return entries of another couple.
pub async fn t13_read_returns_no_entry_of_another_couple(store: impl Store) {
    let world = World::default();
    let mut ids = [world.stored_couple(&store).await.id, world.stored_couple(&store).await.id];
    ids.sort_unstable();
    let named = |id: CoupleId, name: &str| append(id, world.entry(&format!("{name} of {id}")));
    all(
        &store,
        vec![named(ids[0], "a"), named(ids[1], "a"), named(ids[0], "b"), append(ids[0], world.entry("c"))],
    )
    .await;
    for (id, count) in [(ids[0], 3), (ids[1], 1), (world.couple_id(), 0)] {
        let forwards = store.entries(id, Page::After(0), 99, None).await.unwrap();
        let backwards = store.entries(id, Page::Before(99), 99, Some("text")).await.unwrap();
        let by = store.entries_by(id, Side::First, 0, 99).await.unwrap();
        for found in [&forwards, &backwards, &by] {
            assert_eq!(found.len(), count, "a read returns entries of another couple, or not its own");
        }
        let first = store.entry(id, 1).await.unwrap();
        assert_eq!(first, forwards.first().cloned(), "an entry of another couple is found by its seq");
        let unread = store.unread(id, Side::First, 0, &[]).await.unwrap();
        assert_eq!(unread as usize, count, "entries of another couple are counted as unread");
    }
    let found = store.entry_by_client_id(ids[1], Side::First, "c").await.unwrap();
    assert_eq!(found, None, "an entry of another couple is found by its client id");
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
        edit(couple.id, 7, first, &world).into(),
    ];
    all(&store, changes).await;
    let unread = async |author, after, except: &[&str], expected: u32| {
        let kinds: Vec<_> = except.iter().map(|kind| (*kind).to_owned()).collect();
        let count = store.unread(couple.id, author, after, &kinds).await.unwrap();
        assert_eq!(count, expected, "another number is unread of {author:?} after {after} except {except:?}");
    };
    for (author, after, expected) in [
        (first, 0, 2),
        (first, 1, 1),
        (first, 6, 1),
        (first, 7, 0),
        (first, i64::MAX, 0),
        (second, 0, 1),
        (second, 2, 0),
    ] {
        unread(author, after, &[], expected).await;
        unread(author, after, &["x-none"], expected).await;
    }
    let hug = NewEntry { kind: "hug".to_owned(), ..world.entry("e") };
    all(&store, vec![append(couple.id, hug)]).await;
    for (kinds, expected) in [
        (&[][..], 3),
        (&["hug"], 2),
        (&["text"], 1),
        (&["x-a", "hug", "text"], 0),
        (&["HUG", "hug ", "húg", "hu", "h%", "h_g", ""], 3),
    ] {
        unread(first, 0, kinds, expected).await;
    }
    for commit in 0..3 {
        all(&store, (0..50).map(|n| by(second, &format!("{commit}-{n}"))).collect()).await;
    }
    unread(second, 0, &[], 151).await;
    unread(second, 0, &["hug"], 151).await;
}
