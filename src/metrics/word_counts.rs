//! A count for each of some words.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count for each word of a list. All of them exist from the start.
#[derive(Debug)]
pub(super) struct WordCounts {
    words: &'static [&'static str],
    /// Relaxed: mere counts, from which no thread concludes anything about other data.
    counts: Box<[AtomicU64]>,
}

impl WordCounts {
    /// For these words. One that occurs twice has one count.
    pub(super) fn new(words: &'static [&'static str]) -> WordCounts {
        WordCounts {
            words,
            counts: words.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts this word, which is in the list.
    pub(super) fn add(&self, word: &str) {
        let mut entries = self.words.iter().zip(&self.counts);
        if let Some((_, count)) = entries.find(|(it, _)| **it == word) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each word, once, with its count.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let entries = self.words.iter().zip(&self.counts).enumerate();
        entries.filter_map(|(index, (word, count))| {
            let is_first = self.words.iter().position(|it| it == word) == Some(index);
            is_first.then(|| (*word, count.load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l20_a_word_that_occurs_twice_has_one_count() {
        let counts = WordCounts::new(&["a", "b", "a"]);
        counts.add("a");
        counts.add("a");
        counts.add("other");
        assert!(counts.each().eq([("a", 2), ("b", 0)]));
    }
}
