//! A word for each value of a type, for programs that read the log or the metrics.

/// Makes a method `word` from an exhaustive match, and a list of all its words. So a value cannot
/// be without its word, and a word cannot be missing in the list.
macro_rules! words {
    (
        $(#[$about:meta])*
        $type:ty {
            $($pattern:pat $(if $guard:expr)? => $word:literal,)+
        }
    ) => {
        impl $type {
            /// All words, in the order of the match. One may occur twice.
            pub(crate) const WORDS: &'static [&'static str] = &[$($word),+];

            $(#[$about])*
            pub fn word(&self) -> &'static str {
                match self {
                    $($pattern $(if $guard)? => $word,)+
                }
            }
        }
    };
}

pub(crate) use words;
