//! The lines of a rules file as text: the columns and options of each rule.

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

/// The rules of a valid file, without empty lines and comments.
pub fn rule_lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split('\n').enumerate().filter_map(|(index, line)| {
        let code = line.split_once('#').map_or(line, |(code, _)| code);
        let words: Vec<&str> = code.split_ascii_whitespace().collect();
        let is_option = |word: &&str| {
            let word = word.to_ascii_lowercase();
            word.contains('=') || ["ident", "auth"].contains(&word.as_str())
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
