//! The memory that the content of a file may need, and whether so much is left.
//!
//! A small file can need thirty times its size. While it is parsed, the content in force stays
//! in memory. Without this check the kernel would kill the server at a reload.

use super::content::Content;

/// Says what is left, as a clause, if the process cannot get so many bytes of memory now.
pub type MemoryCheck = fn(u64) -> Result<(), String>;

/// A check without a limit.
pub(super) const NO_LIMIT: MemoryCheck = |_| Ok(());

/// What the contents of one file use of memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryUse {
    in_force: u64,
    /// The most of two contents together. The allocator keeps it, or returns it to the system.
    peak: u64,
}

impl MemoryUse {
    /// Is enough left to parse a text that may need so much, while the content in force stays?
    /// Memory that was freed after an earlier change is used again.
    pub(super) fn check(self, text: &[u8], needed: u64, check: MemoryCheck) -> Result<(), String> {
        let more = (self.in_force + needed).saturating_sub(self.peak);
        if more == 0 {
            return Ok(());
        }
        check(more).map_err(|left| {
            format!(
                "its {} bytes may need {} MiB of memory more, and {left}; make the file smaller, \
                 or allow more memory and load the file again (SIGHUP, or a new start)",
                text.len(),
                more.div_ceil(1 << 20)
            )
        })
    }

    /// After the content in force was replaced by one that may need so much.
    pub(super) fn replaced_by(self, needed: u64) -> MemoryUse {
        MemoryUse {
            in_force: needed,
            peak: self.peak.max(self.in_force + needed),
        }
    }
}

/// The most memory in bytes that this text and its content need.
pub(super) fn needed<T: Content>(text: &[u8]) -> u64 {
    let is_entry = |line: &&[u8]| {
        let line = line.trim_ascii_start();
        !line.is_empty() && !line.starts_with(b"#")
    };
    let entries = text.split(|&byte| byte == b'\n').filter(is_entry).count();
    let items = text.iter().filter(|&&byte| byte == b',').count();
    let [text, entries, items] = [text.len(), entries, items].map(|count| count as u64);
    text + entries * T::MEMORY_PER_ENTRY + items * T::MEMORY_PER_ITEM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    #[test]
    fn s47_memory_that_was_used_once_is_used_again() {
        // What the check is asked for; none if it is not asked.
        let more = |memory: MemoryUse, needed| {
            let check = |more: u64| Err(format!("{more} left"));
            let error = memory.check(b"", needed, check).err()?;
            let (_, left) = error.split_once("and ")?;
            left.split_once(" left")?.0.parse::<u64>().ok()
        };
        assert_eq!(more(MemoryUse::default(), 100), Some(100));
        let first = MemoryUse::default().replaced_by(100);
        assert_eq!((more(first, 100), more(first, 150)), (Some(100), Some(150)));
        let second = first.replaced_by(100);
        assert_eq!((more(second, 100), more(second, 101)), (None, Some(1)));
        let smaller = second.replaced_by(50);
        assert_eq!((more(smaller, 150), more(smaller, 160)), (None, Some(10)));
    }

    #[test]
    fn s47_entries_and_items_count_and_comments_only_as_text() {
        let rule = Rules::MEMORY_PER_ENTRY;
        let user = Rules::MEMORY_PER_ITEM;
        for (text, expected) in [
            (&b""[..], 0),
            (b"# a comment\n\n \n", 0),
            (b"deny - -\npermit - -", 2 * rule),
            (b"permit - - user=a,b,c\n", rule + 2 * user),
        ] {
            assert_eq!(needed::<Rules>(text), expected + text.len() as u64);
        }
    }
}
