//! The lines of a rules file as text: the columns and options of each rule.

use super::super::quotes::closing_quote;

/// One line of the file: the four columns of the long form, and the options.
pub struct Line<'a> {
    pub number: usize,
    pub action: &'a str,
    pub modes: &'a str,
    pub columns: [&'a str; 4],
    options: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// The value of `user=` or `time=`.
    pub fn option(&self, key: &str) -> Option<&'a str> {
        let values = self.options.iter().filter_map(|it| it.split_once('='));
        let mut found = values.filter(|(name, _)| name.eq_ignore_ascii_case(key));
        found.next().map(|(_, value)| value)
    }

    pub fn has_flag(&self, option: &str) -> bool {
        let mut options = self.options.iter();
        options.any(|it| it.eq_ignore_ascii_case(option))
    }
}

/// The words of a line without its comment. Blanks and `#` in quotes belong to a word. Outside
/// quotes no valid line has a `#` in a word, so the first one begins the comment.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut begin, mut at) = (0, 0);
    let bytes = line.as_bytes();
    while at < bytes.len() && bytes[at] != b'#' {
        if bytes[at].is_ascii_whitespace() {
            words.push(&line[begin..at]);
            begin = at + 1;
        }
        let quoted = (bytes[at] == b'"').then(|| closing_quote(&bytes[at..]));
        at += quoted.flatten().unwrap_or(0) + 1;
    }
    words.push(&line[begin..at]);
    words.retain(|word| !word.is_empty());
    words
}

/// The rules of a valid file, without empty lines and comments.
pub fn rule_lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split('\n').enumerate().filter_map(|(index, line)| {
        let words = words(line);
        let is_option = |word: &&str| {
            let word = word.to_ascii_lowercase();
            word.contains('=') || ["ident", "auth", "local"].contains(&word.as_str())
        };
        let (columns, options): (Vec<&str>, Vec<&str>) =
            words.get(2..)?.iter().partition(|it| !is_option(it));
        let columns = match *columns.as_slice() {
            [to] => ["-", "-", to, "-"],
            [to, port] => ["-", "-", to, port],
            [from, from_port, to] => [from, from_port, to, "-"],
            [from, from_port, to, port] => [from, from_port, to, port],
            _ => return None,
        };
        Some(Line {
            number: index + 1,
            action: words[0],
            modes: words[1],
            columns,
            options,
        })
    })
}
