//! Store writes that are not committed yet.
//!
//! Owns: one sorted map per store, and the way back to the state before the record at hand.
//! Invariant: [`Overlay::rollback`] leaves exactly what stood at the last [`Overlay::keep`].
//! Absent: disk. `store.rs` writes an overlay after its transaction committed.

use std::collections::BTreeMap;

/// A value to be, or `None` for a deletion.
pub type Staged = Option<Vec<u8>>;

/// The uncommitted writes of one task.
#[derive(Default)]
pub struct Overlay {
    stores: Vec<BTreeMap<Vec<u8>, Staged>>,
    /// What each write of the record at hand replaced, oldest first.
    undo: Vec<(usize, Vec<u8>, Option<Staged>)>,
    bytes: usize,
}

impl Overlay {
    pub fn new(stores: usize) -> Overlay {
        Overlay {
            stores: vec![BTreeMap::new(); stores],
            undo: Vec::new(),
            bytes: 0,
        }
    }

    pub fn put(&mut self, store: usize, key: Vec<u8>, value: Staged) {
        self.bytes += size(&key, &value);
        let old = self.stores[store].insert(key.clone(), value);
        if let Some(old) = &old {
            self.bytes -= size(&key, old);
        }
        self.undo.push((store, key, old));
    }

    /// `None` when the overlay says nothing about the key; `Some(None)` when it is deleted.
    pub fn get(&self, store: usize, key: &[u8]) -> Option<&Staged> {
        self.stores[store].get(key)
    }

    /// The staged writes of one store, sorted by key.
    pub fn store(&self, store: usize) -> &BTreeMap<Vec<u8>, Staged> {
        &self.stores[store]
    }

    /// The record at hand is done: its writes stay.
    pub fn keep(&mut self) {
        self.undo.clear();
    }

    /// The record at hand failed: its writes are taken back.
    pub fn rollback(&mut self) {
        while let Some((store, key, old)) = self.undo.pop() {
            if let Some(new) = self.stores[store].remove(&key) {
                self.bytes -= size(&key, &new);
            }
            if let Some(old) = old {
                self.bytes += size(&key, &old);
                self.stores[store].insert(key, old);
            }
        }
    }

    /// Whether anything was written since the last [`Overlay::keep`].
    pub fn is_touched(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Keys and values held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.stores.iter().all(BTreeMap::is_empty)
    }

    pub fn clear(&mut self) {
        self.stores.iter_mut().for_each(BTreeMap::clear);
        self.undo.clear();
        self.bytes = 0;
    }
}

fn size(key: &[u8], value: &Staged) -> usize {
    key.len() + value.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_record_leaves_no_trace() {
        let mut overlay = Overlay::new(2);
        overlay.put(0, b"a".to_vec(), Some(b"1".to_vec()));
        overlay.put(1, b"b".to_vec(), Some(b"22".to_vec()));
        overlay.keep();
        let bytes = overlay.bytes();

        overlay.put(0, b"a".to_vec(), None);
        overlay.put(0, b"a".to_vec(), Some(b"333".to_vec()));
        overlay.put(0, b"new".to_vec(), Some(b"x".to_vec()));
        overlay.rollback();

        assert_eq!(overlay.get(0, b"a"), Some(&Some(b"1".to_vec())));
        assert_eq!(overlay.get(0, b"new"), None);
        assert_eq!(overlay.get(1, b"b"), Some(&Some(b"22".to_vec())));
        assert_eq!(overlay.bytes(), bytes);
    }
}
