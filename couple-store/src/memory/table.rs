//! Map that can undo the writes since the end of the last commit.

use std::{collections::BTreeMap, ops::RangeBounds};

#[derive(Clone)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    undo: Vec<(K, Option<V>)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), undo: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }
    pub(super) fn has(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }
    pub(super) fn put(&mut self, key: K, row: V) {
        let before = self.rows.insert(key.clone(), row);
        self.undo.push((key, before));
    }
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let before = self.rows.remove(key)?;
        self.undo.push((key.clone(), Some(before.clone())));
        Some(before)
    }
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter()
    }
    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.rows.values()
    }
    pub(super) fn range(&self, keys: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(keys)
    }
    /// Removes up to `cap` rows that match, in the order of `age`.
    pub(super) fn purge<A: Ord>(
        &mut self,
        cap: u32,
        matches: impl Fn(&V) -> bool,
        age: impl Fn(&V) -> A,
    ) -> Vec<V> {
        let mut keys: Vec<(A, K)> =
            self.iter().filter(|(_, row)| matches(row)).map(|(key, row)| (age(row), key.clone())).collect();
        keys.sort();
        keys.iter().take(cap as usize).filter_map(|(_, key)| self.remove(key)).collect()
    }
    pub(super) fn end(&mut self, keep: bool) {
        if keep {
            self.undo.clear();
            return;
        }
        for (key, before) in self.undo.drain(..).rev() {
            match before {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}
