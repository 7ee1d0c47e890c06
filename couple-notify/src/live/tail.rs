//! Tail: the newest entries of a couple's log, as of the last read.
//!
//! The tail is out of date only by entries that are not read yet: a change of an entry appends another entry that names it, and adding
//! that one to the tail updates the changed entry here too. So a tail with the same newest `seq` as its log has the same content.

use std::{collections::VecDeque, sync::Arc};

use couple_core::timeline::{Entry, EntryView};

use super::EncodedEntry;

/// Maximum number of entries.
pub(super) const MAX_ENTRIES: u32 = 32;
/// Maximum number of bytes, unless a single entry is larger.
const MAX_BYTES: usize = 64 * 1024;

/// Consecutive entries.
#[derive(Debug)]
pub(super) struct Tail {
    /// `seq` before the first entry.
    start: i64,
    lines: VecDeque<Arc<EncodedEntry>>,
    bytes: usize,
}

/// Result of [`Tail::after`].
#[derive(Debug)]
pub(super) enum Next {
    /// The next entry.
    Entry(Arc<EncodedEntry>),
    /// The next entry is older than the tail.
    Older,
    /// There is no further entry.
    Nothing,
}

impl Tail {
    /// An empty tail that begins after `start`.
    pub(super) const fn new(start: i64) -> Self {
        Self { start, lines: VecDeque::new(), bytes: 0 }
    }

    fn end(&self) -> i64 {
        self.start + i64::try_from(self.lines.len()).unwrap_or(i64::MAX - self.start)
    }

    /// `seq` after which the log must be read to reach `head`; none if the tail reaches it.
    pub(super) fn missing(&mut self, head: i64) -> Option<i64> {
        if head <= self.end() {
            return None;
        }
        if head - self.end() > i64::from(MAX_ENTRIES) {
            *self = Self::new(head - i64::from(MAX_ENTRIES));
        }
        Some(self.end())
    }

    /// Whether `seq` comes next.
    pub(super) fn is_next(&self, seq: i64) -> bool {
        seq == self.end() + 1
    }

    /// Whether `seq` is in the tail, or older.
    pub(super) fn contains(&self, seq: i64) -> bool {
        seq <= self.end()
    }

    /// Adds entries that were read, and updates the entries that they changed.
    pub(super) fn extend(&mut self, views: Vec<EntryView>) {
        for view in views {
            if view.entry.seq != self.end() + 1 {
                *self = Self::new(view.entry.seq - 1);
            }
            if let Some(target) = &view.target {
                self.replace(target);
            }
            let line = Arc::new(EncodedEntry::new(view));
            self.bytes += line.size();
            self.lines.push_back(line);
        }
        while self.lines.len() > MAX_ENTRIES as usize || (self.bytes > MAX_BYTES && self.lines.len() > 1) {
            let removed = self.lines.pop_front();
            self.bytes -= removed.map_or(0, |line| line.size());
            self.start += 1;
        }
    }

    /// Replaces an entry, and its copies as a target, by its current state.
    fn replace(&mut self, entry: &Entry) {
        for line in &mut self.lines {
            let EntryView { entry: own, target } = &line.view;
            let view = if own.seq == entry.seq {
                EntryView { entry: entry.clone(), target: target.clone() }
            } else if target.as_ref().is_some_and(|target| target.seq == entry.seq) {
                EntryView { entry: own.clone(), target: Some(entry.clone()) }
            } else {
                continue;
            };
            self.bytes -= line.size();
            *line = Arc::new(EncodedEntry::new(view));
            self.bytes += line.size();
        }
    }

    /// Drops all entries, which every stream has received.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.end());
    }

    /// The entry after `seq`.
    pub(super) fn after(&self, seq: i64) -> Next {
        if seq < self.start {
            return Next::Older;
        }
        let at = usize::try_from(seq - self.start).unwrap_or(usize::MAX);
        self.lines.get(at).map_or(Next::Nothing, |line| Next::Entry(line.clone()))
    }
}

#[cfg(test)]
mod tests {
    use couple_core::{
        Timestamp,
        pairing::Side,
        timeline::{Body, NewEntry},
    };
    use serde_json::value::RawValue;

    use super::*;

    fn entry(seq: i64, text: &str, target: Option<i64>) -> Entry {
        let body = Some(Body::from_stored(format!("{{\"text\":\"{text}\"}}")));
        let at = Timestamp::from_micros(0);
        let new = NewEntry { author: None, client_id: None, kind: "text".to_owned(), body, target, at };
        new.at_seq(seq)
    }

    fn view(seq: i64) -> EntryView {
        EntryView { entry: entry(seq, "x", None), target: None }
    }

    fn line(tail: &Tail, after: i64) -> Arc<EncodedEntry> {
        match tail.after(after) {
            Next::Entry(line) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tail_is_consecutive_and_bounded() {
        let mut tail = Tail::new(10);
        assert_eq!(tail.missing(10), None);
        assert_eq!(tail.missing(12), Some(10));
        tail.extend(vec![view(11), view(12)]);
        assert_eq!(tail.missing(12), None);
        assert!(matches!(tail.after(9), Next::Older));
        assert_eq!(line(&tail, 10).view.entry.seq, 11);
        assert!(matches!(tail.after(12), Next::Nothing) && matches!(tail.after(99), Next::Nothing));
        // Far ahead: entries in between are skipped.
        assert_eq!(tail.missing(100), Some(68));
        tail.extend((69..=100).map(view).collect());
        assert!(matches!(tail.after(67), Next::Older));
        tail.extend(vec![view(101)]);
        assert!(matches!(tail.after(68), Next::Older));
        assert_eq!(line(&tail, 100).view.entry.seq, 101);
        tail.clear();
        assert!(matches!(tail.after(100), Next::Older) && matches!(tail.after(101), Next::Nothing));
    }

    #[test]
    fn changed_entry_is_replaced_everywhere() {
        let mut tail = Tail::new(0);
        tail.extend(vec![
            view(1),
            EntryView { entry: entry(2, "", Some(1)), target: Some(entry(1, "once", None)) },
        ]);
        assert_eq!(line(&tail, 0).view.entry, entry(1, "once", None));
        let first = line(&tail, 0);
        let json = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(first.json(Side::First, |_| json("1")).get(), "1");
        tail.extend(vec![EntryView { entry: entry(3, "", Some(1)), target: Some(entry(1, "twice", None)) }]);
        assert_eq!(line(&tail, 0).view.entry, entry(1, "twice", None));
        assert_eq!(line(&tail, 1).view.target, Some(entry(1, "twice", None)));
        // The JSON of the replaced entry was dropped with it.
        assert_eq!(line(&tail, 0).json(Side::First, |_| json("2")).get(), "2");
    }

    #[test]
    fn tail_is_bounded_in_bytes() {
        let mut tail = Tail::new(0);
        let long = "x".repeat(15_000);
        for seq in 1..=20 {
            tail.extend(vec![EntryView { entry: entry(seq, &long, None), target: None }]);
        }
        assert!(tail.bytes <= MAX_BYTES && tail.lines.len() == 1, "{} in {}", tail.bytes, tail.lines.len());
        assert_eq!(line(&tail, 19).view.entry.seq, 20);
    }

    #[test]
    fn tail_knows_which_entry_is_next() {
        let mut tail = Tail::new(3);
        tail.extend(vec![view(4), view(5)]);
        assert_eq!([4, 5, 6, 7].map(|seq| tail.is_next(seq)), [false, false, true, false]);
        assert_eq!([3, 4, 5, 6].map(|seq| tail.contains(seq)), [true, true, true, false]);
    }

    #[test]
    fn entries_after_a_gap_begin_a_new_tail() {
        let mut tail = Tail::new(3);
        tail.extend(vec![view(4), view(9), view(10)]);
        assert!(matches!(tail.after(7), Next::Older), "those before the gap are dropped");
        assert_eq!(line(&tail, 8).view.entry.seq, 9);
        assert_eq!(line(&tail, 9).view.entry.seq, 10);
        assert_eq!(tail.bytes, 2 * line(&tail, 8).size());
    }

    #[test]
    fn tail_holds_exactly_its_maximum_of_entries() {
        let mut tail = Tail::new(0);
        // As many as the tail holds are read, none of them is skipped.
        assert_eq!(tail.missing(32), Some(0));
        tail.extend((1..=32).map(view).collect());
        assert_eq!(line(&tail, 0).view.entry.seq, 1);
        assert_eq!(tail.missing(64), Some(32));
        assert_eq!(line(&tail, 0).view.entry.seq, 1, "they stay until others are read");
        tail.extend(vec![view(33)]);
        assert!(matches!(tail.after(0), Next::Older));
        assert_eq!(line(&tail, 1).view.entry.seq, 2);
        // One more than it holds.
        assert_eq!(tail.missing(66), Some(34));
    }

    #[test]
    fn bytes_of_replaced_and_dropped_entries_are_not_counted() {
        let mut tail = Tail::new(0);
        let long = "x".repeat(2_000);
        tail.extend(vec![EntryView { entry: entry(1, &long, None), target: None }, view(2)]);
        let edited = entry(1, "short", None);
        tail.extend(vec![EntryView { entry: entry(3, "", Some(1)), target: Some(edited) }]);
        let all = [0, 1, 2].map(|after| line(&tail, after).size());
        assert_eq!(tail.bytes, all.iter().sum::<usize>());
        tail.clear();
        assert_eq!(tail.bytes, 0);
    }

    #[test]
    fn entries_that_exactly_fill_the_tail_are_kept() {
        let mut tail = Tail::new(0);
        // An entry takes 512 bytes and three times its body; its text is a part of `{"text":"…"}`.
        let half = "x".repeat((MAX_BYTES / 2 - 512) / 3 - 11);
        let of = |seq, text: &str| EntryView { entry: entry(seq, text, None), target: None };
        tail.extend(vec![of(1, &half), of(2, &half)]);
        let size = line(&tail, 0).size();
        assert!(2 * size <= MAX_BYTES && 2 * size > MAX_BYTES - 6, "{size}");
        assert_eq!(tail.lines.len(), 2);
        tail.extend(vec![view(3)]);
        assert_eq!(tail.lines.len(), 2, "one more is too much");
        assert_eq!(tail.bytes, size + line(&tail, 2).size());
    }

    #[test]
    fn entry_that_is_larger_than_the_whole_tail_is_kept_alone() {
        let mut tail = Tail::new(0);
        let long = EntryView { entry: entry(2, &"x".repeat(MAX_BYTES), None), target: None };
        tail.extend(vec![view(1), long]);
        assert!(matches!(tail.after(0), Next::Older));
        assert_eq!(line(&tail, 1).view.entry.seq, 2);
        tail.extend(vec![view(3)]);
        assert_eq!(line(&tail, 2).view.entry.seq, 3);
        assert_eq!(tail.lines.len(), 1);
    }
}
