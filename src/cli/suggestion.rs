//! What a user may have meant by an argument that does not exist.

use super::option_table;

/// Options that other SOCKS servers have, and what to write here.
const OF_OTHER_SERVERS: &[(&str, &str)] = &[
    ("i", "write --bind ADDR for the address for clients"),
    ("l", "write --bind ADDR for the address for clients"),
    ("f", "write --config FILE for the rules file"),
    (
        "u",
        "write --users FILE for the users; --new-user NAME adds one",
    ),
    (
        "P",
        "write --users FILE for the users; --new-user NAME adds one",
    ),
    ("d", IN_FOREGROUND),
    ("D", IN_FOREGROUND),
    ("daemon", IN_FOREGROUND),
];

const IN_FOREGROUND: &str =
    "the server runs in the foreground; systemd or a shell (&) runs it in the background";

/// Least similarity of two names (Jaro-Winkler), of at most 1: "user" and "users" have 0.96, "prot"
/// and "port" 0.92, "timeout" and "udp-timeout" 0.88, "nonsense" and "enforce" 0.6.
const SIMILAR: f64 = 0.8;

/// A clause that says what to write instead of this option, which does not exist. The option is
/// given without its hyphens.
pub(super) fn instead_of_option(name: &str) -> Option<String> {
    let of_other_server = OF_OTHER_SERVERS.iter().find(|(other, _)| *other == name);
    if let Some((_, advice)) = of_other_server {
        return Some((*advice).to_owned());
    }
    similar(name).map(|option| format!("did you mean --{option}?"))
}

/// A clause that says what to write instead of this word, which is no port.
pub(super) fn instead_of_word(word: &str) -> Option<String> {
    if ["start", "run", "serve", "server"].contains(&word) {
        return Some("the server starts without a word before the PORT".to_owned());
    }
    let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase());
    let option = similar(word).filter(|_| is_word);
    option.map(|option| format!("did you mean --{option}?"))
}

/// The option whose name is the most similar one.
fn similar(name: &str) -> Option<&'static str> {
    let rated = option_table::all().map(|option| (strsim::jaro_winkler(option.long, name), option));
    let (similarity, option) = rated.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (similarity >= SIMILAR).then_some(option.long)
}
