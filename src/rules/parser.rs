//! Parses the text of `socks.conf` into rules, or a list of syntax errors.
//!
//! ```text
//! permit|deny  MODE  [SRC-IP SRC-PORT]  DST-IP  [DST-PORT]  [OPTION...]   # comment
//! ```
//!
//! The number of columns after the mode decides what they are. One column is the destination
//! address. Two columns are destination address and port. Three columns are source address,
//! source port and destination address. Four columns are all of them. Options are `user=`,
//! `time=`, `ident`, `auth` and `local`.

use super::addresses::is_any;
use super::columns::{parse_commands, parse_destination, parse_ports, parse_source, parse_users};
use super::evaluate::Rules;
use super::matchers::UserSet;
use super::quote::{quote, quote_bytes};
use super::rule::Rule;
use super::schedule::Schedule;
use super::words::{split_words, without_comment};
use crate::config::{Content, MAX_ERRORS, SyntaxError, WatchedFile, check_line, check_words};

/// Parses the bytes of a rules file. The file may contain comments, empty lines, tabs, CRLF
/// and a byte order mark; the final newline may be missing.
///
/// # Errors
///
/// The first [`MAX_ERRORS`] invalid lines. Then no rule of the file counts: without the
/// invalid lines the others could permit too much.
pub fn parse(text: &[u8]) -> Result<Rules, Vec<SyntaxError>> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line_number = index + 1;
        match parse_line(line_number, line) {
            Ok(rule) => rules.extend(rule),
            Err(reason) => errors.push(SyntaxError {
                line: line_number,
                reason,
            }),
        }
        if errors.len() == MAX_ERRORS {
            break;
        }
    }
    if errors.is_empty() {
        Ok(Rules::new(rules))
    } else {
        Err(errors)
    }
}

/// The rules file, read again after each change.
pub type RulesFile = WatchedFile<Rules>;

impl Content for Rules {
    const NAME: &'static str = "rules";
    // A rule with a short name has 176.
    const MEMORY_PER_ENTRY: u64 = 200;
    // A user name of one byte has 56, and so do no ports.
    const MEMORY_PER_ITEM: u64 = 60;

    fn entries(&self) -> usize {
        self.len()
    }

    fn parse(text: &[u8]) -> Result<Rules, Vec<SyntaxError>> {
        parse(text)
    }
}

/// Parses one line: a rule, or `None` if the line is empty or a comment.
fn parse_line(line_number: usize, line: &[u8]) -> Result<Option<Rule>, String> {
    check_line(line)?;
    // The comment is removed before the check for UTF-8: it may be in any encoding.
    let code = without_comment(line)?;
    let Ok(code) = std::str::from_utf8(code) else {
        return Err(format!(
            "{} is not UTF-8 text; only a comment may have another encoding",
            quote_bytes(code)
        ));
    };
    check_words(code)?;
    let words = split_words(code).map_err(|error| error.to_string())?;
    let mut words = words.into_iter();
    let Some(action) = words.next() else {
        return Ok(None);
    };
    let permits = if action.eq_ignore_ascii_case("permit") {
        true
    } else if action.eq_ignore_ascii_case("deny") {
        false
    } else {
        return Err(format!(
            "a rule begins with permit or deny, not with {}",
            quote(action)
        ));
    };
    let commands = parse_commands(words.next())?;
    let words: Vec<&str> = words.collect();
    let options_begin = words.iter().position(|word| is_option(word));
    let (columns, options) = words.split_at(options_begin.unwrap_or(words.len()));
    let [source, source_ports, destination, destination_ports] = split_columns(columns)?;
    let Options {
        users,
        schedule,
        ident,
        auth,
        local,
    } = parse_options(options)?;
    let of_permits = [(ident, "ident"), (auth, "auth"), (local, "local")];
    if let Some((_, option)) = of_permits.iter().find(|(is_set, _)| *is_set)
        && !permits
    {
        return Err(format!(
            "{} is allowed only in permit rules; leave it out",
            option
        ));
    }
    let destination = parse_destination(destination)?;
    if local && !destination.is_name() {
        return Err(
            "local is allowed only if the destination is a name: a rule with addresses permits \
             local ones anyway; leave it out"
                .to_owned(),
        );
    }
    Ok(Some(Rule {
        line: line_number,
        permits,
        commands,
        source: parse_source(source)?,
        source_ports: parse_ports(source_ports)?,
        destination,
        destination_ports: parse_ports(destination_ports)?,
        users: users.unwrap_or(UserSet::Any),
        schedule: schedule.unwrap_or(Schedule::Always),
        ident,
        auth,
        local,
    }))
}

/// The options of a rule, each at most once.
#[derive(Default)]
struct Options {
    users: Option<UserSet>,
    schedule: Option<Schedule>,
    ident: bool,
    auth: bool,
    local: bool,
}

/// The source with its ports and the destination with its ports: what is left out, is any.
fn split_columns<'a>(columns: &[&'a str]) -> Result<[&'a str; 4], String> {
    match *columns {
        [destination] => Ok(["-", "-", destination, "-"]),
        [destination, ports] => Ok(["-", "-", destination, ports]),
        [source, destination, port] if are_ports(port) && !are_ports(destination) => Err(format!(
            "three columns are SRC-IP SRC-PORT DST-IP; for a client, a destination and its \
                 port write four: {source} - {destination} {port}"
        )),
        [source, source_ports, destination] => Ok([source, source_ports, destination, "-"]),
        [source, source_ports, destination, ports] => {
            Ok([source, source_ports, destination, ports])
        }
        [] => Err("the destination is missing; write - for any".to_owned()),
        [_, _, _, _, fifth, ..] => Err(format!(
            "{} is one column too many; the longest form is \
                 SRC-IP SRC-PORT DST-IP DST-PORT",
            quote(fifth)
        )),
    }
}

/// Is the word a list of ports, and not the word for any?
fn are_ports(word: &str) -> bool {
    !is_any(word) && parse_ports(word).is_ok()
}

/// Is the word an option? These words are reserved: a host name cannot contain `=`, and a
/// host called `ident`, `auth` or `local` cannot be a destination.
fn is_option(word: &str) -> bool {
    let is = |option: &str| word.eq_ignore_ascii_case(option);
    is("ident") || is("auth") || is("local") || word.contains('=')
}

fn parse_options(words: &[&str]) -> Result<Options, String> {
    let mut options = Options::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let is_new = match key.to_ascii_lowercase().as_str() {
            "user" => options.users.replace(parse_users(value)?).is_none(),
            "time" => {
                let schedule = Schedule::parse(value);
                let schedule =
                    schedule.map_err(|reason| format!("time={} {reason}", quote(value)))?;
                options.schedule.replace(schedule).is_none()
            }
            "ident" if key == *word => !std::mem::replace(&mut options.ident, true),
            "auth" if key == *word => !std::mem::replace(&mut options.auth, true),
            "local" if key == *word => !std::mem::replace(&mut options.local, true),
            _ if is_option(word) => {
                return Err(format!(
                    "{} is not an option; the options are user=, time=, ident, auth and local",
                    quote(word)
                ));
            }
            _ => {
                return Err(format!(
                    "{} is after an option; write all columns before the options",
                    quote(word)
                ));
            }
        };
        if !is_new {
            return Err(format!(
                "{} repeats an option; write each option once",
                quote(word)
            ));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of a text in their long form.
    fn long_form(line: &str) -> String {
        match parse(line.as_bytes()) {
            Ok(rules) => {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                rules.join("; ")
            }
            Err(errors) => panic!("{line}: {errors:?}"),
        }
    }

    #[test]
    fn f06_f13_every_valid_form_is_parsed() {
        for (line, expected) in [
            // From the course for which this server was written.
            ("permit c - - - -", "permit c - - - -"),
            ("permit b - - - -", "permit b - - - -"),
            (
                "permit c - - 140.113. - # [NCTU only]",
                "permit c - - 140.113.0.0/16 -",
            ),
            ("permit c 140.113.*.*", "permit c - - 140.113.0.0/16 -"),
            ("permit b *.*.*.*", "permit b - - 0.0.0.0/0 -"),
            // Columns: one, two, three, four.
            ("deny c 1.2.3.4", "deny   c - - 1.2.3.4 -"),
            ("deny c 1.2.3.4 80", "deny   c - - 1.2.3.4 80"),
            ("deny c 10. 5 1.2.3.4", "deny   c 10.0.0.0/8 5 1.2.3.4 -"),
            (
                "deny c 10. 5 1.2.3.4 80",
                "deny   c 10.0.0.0/8 5 1.2.3.4 80",
            ),
            // Commands.
            ("permit cb -", "permit cb - - - -"),
            ("permit BC -", "permit cb - - - -"),
            ("permit u -", "permit u - - - -"),
            ("permit cbu -", "permit - - - - -"),
            ("permit * *", "permit - - - - -"),
            ("PERMIT - -", "permit - - - - -"),
            // Names.
            (
                "permit c WWW.Example.org.",
                "permit c - - www.example.org -",
            ),
            ("permit c *.example.org 80", "permit c - - *.example.org 80"),
            ("permit c localhost", "permit c - - localhost -"),
            // Ports.
            (
                "permit c - 80,443,8000-8999",
                "permit c - - - 80,443,8000-8999",
            ),
            ("permit c - 0-65535", "permit c - - - 0-65535"),
            ("permit c - 7-7", "permit c - - - 7"),
            // Options.
            (
                "permit c - user=alice,Bob.2",
                "permit c - - - - user=alice,Bob.2",
            ),
            (
                "permit c - time=MON-fri/8:00-18:00",
                "permit c - - - - time=mon-fri/08:00-18:00",
            ),
            ("permit c - 80 IDENT", "permit c - - - 80 ident"),
            ("permit c - 80 Auth", "permit c - - - 80 auth"),
            (
                "permit c - auth ident user=a",
                "permit c - - - - user=a ident auth",
            ),
            (
                "permit c 10. - a.org 80 ident TIME=22:00-06:00 User=u",
                "permit c 10.0.0.0/8 - a.org 80 user=u time=mon-sun/22:00-06:00 ident",
            ),
            ("deny - - user==", "deny   - - - - - user=="),
            (
                "permit c *.a.org 80 Local auth",
                "permit c - - *.a.org 80 auth local",
            ),
            ("permit c localhost local", "permit c - - localhost - local"),
            ("permit c *.local", "permit c - - *.local -"),
            // Layout.
            ("", ""),
            ("# permit c -", ""),
            ("   \t  ", ""),
            ("\tpermit\tc\t-\r", "permit c - - - -"),
            ("permit c -\t#comment", "permit c - - - -"),
            ("permit c - \r\r", "permit c - - - -"),
            ("\x0c", ""),
            ("\u{FEFF}permit c -", "permit c - - - -"),
            (
                "permit c 1.\r\n\r\ndeny b 2.\r\n",
                "permit c - - 1.0.0.0/8 -; deny   b - - 2.0.0.0/8 -",
            ),
        ] {
            assert_eq!(long_form(line), expected, "{line}");
        }
    }

    #[test]
    fn f19_names_of_users_are_parsed_with_quotes_and_without() {
        for (line, expected) in [
            (
                "permit c - user=\"bob smith\" # x",
                "permit c - - - - user=\"bob smith\"",
            ),
            (
                "permit c - user=\"Jane Doe\",bob,\"#1\" auth",
                "permit c - - - - user=\"Jane Doe\",bob,\"#1\" auth",
            ),
            (
                "permit c - user=\"bob\",j\u{fc}rgen,\"j\u{fc}\"",
                "permit c - - - - user=bob,\"j\\xc3\\xbcrgen\",\"j\\xc3\\xbc\"",
            ),
            (
                "deny c - user=CORP\\tom,o'neil,\"'x\",\"*\",\"-\",\"a,b\"",
                "deny   c - - - - user=CORP\\tom,o'neil,\"'x\",\"*\",\"-\",\"a,b\"",
            ),
            (
                "deny c - USER=\"a \\\"b\\\" \\\\ \\xFF\"",
                "deny   c - - - - user=\"a \\\"b\\\" \\\\ \\xff\"",
            ),
        ] {
            assert_eq!(long_form(line), expected, "{line}");
            assert_eq!(long_form(expected), expected, "{line}");
        }
    }

    #[test]
    fn f06_every_form_of_an_address_is_parsed() {
        for (line, expected) in [
            ("permit c 1.", "permit c - - 1.0.0.0/8 -"),
            ("permit c 1.2.3.", "permit c - - 1.2.3.0/24 -"),
            ("permit c 1.2.3.*", "permit c - - 1.2.3.0/24 -"),
            ("permit c 1.*.*.*", "permit c - - 1.0.0.0/8 -"),
            ("permit c 10.0.0.0/8", "permit c - - 10.0.0.0/8 -"),
            ("permit c 1.2.3.4/32", "permit c - - 1.2.3.4 -"),
            ("permit c 0.0.0.0/0", "permit c - - 0.0.0.0/0 -"),
            ("permit c ::1", "permit c - - ::1 -"),
            ("permit c ::/0", "permit c - - ::/0 -"),
            ("permit c 2001:db8::/32", "permit c - - 2001:db8::/32 -"),
            ("permit c ::ffff:1.2.3.4", "permit c - - 1.2.3.4 -"),
            ("deny c ::ffff:a00:0/104", "deny   c - - 10.0.0.0/8 -"),
            ("deny c ::ffff:0:0/96", "deny   c - - 0.0.0.0/0 -"),
            ("permit c ::fffe:0:0/95", "permit c - - ::fffe:0:0/95 -"),
            ("permit b *.*.99.0", "permit b - - *.*.99.0 -"),
            (
                "permit - - - 140.113.-.- -",
                "permit - - - 140.113.0.0/16 -",
            ),
            (
                "permit c 140.113.* - 140.*",
                "permit c 140.113.0.0/16 - 140.0.0.0/8 -",
            ),
            ("permit c ::1/128", "permit c - - ::1 -"),
            ("deny c 1.2.3.0/32", "deny   c - - 1.2.3.0/32 -"),
            ("deny c 1.2.3.0", "deny   c - - 1.2.3.0 -"),
            ("deny c 2001:db8::/128", "deny   c - - 2001:db8::/128 -"),
            ("deny c 2001:db8::", "deny   c - - 2001:db8:: -"),
            ("deny - LOOPBACK", "deny   - - - loopback -"),
            (
                "permit c private - linkLocal 1-9",
                "permit c private - linklocal 1-9",
            ),
            ("deny c *.metadata", "deny   c - - *.metadata -"),
        ] {
            assert_eq!(long_form(line), expected, "{line}");
        }
    }

    #[test]
    fn the_long_form_of_a_rule_is_parsed_as_the_same_rule() {
        for line in [
            "permit c 10. 1-5 *.a.org 80,90-99",
            "deny - ::1 - 2001:db8::/32 -",
            "permit c - time=sat-mon/8:00-9:00,23:00-1:00 ident user=b,a",
        ] {
            let shown = long_form(line);
            assert_eq!(long_form(&shown), shown);
        }
    }

    #[test]
    fn f06_every_invalid_form_is_refused_with_a_reason() {
        for (line, reason) in [
            ("allow c -", "permit or deny"),
            ("permit", "mode is missing"),
            ("permit c", "destination is missing"),
            ("permit x -", "not a mode"),
            ("permit c- -", "not a mode"),
            ("permit 140.113.", "not a mode"),
            ("permit c - - - - -", "too many"),
            ("permit c - 65536", "not a port list"),
            ("permit c - -5", "not a port list"),
            ("permit c - 5-", "not a port list"),
            ("permit c - +5", "not a port list"),
            ("permit c - 80,", "not a port list"),
            ("permit c - http", "not a port list"),
            ("permit c - 1-2-3", "not a port list"),
            ("permit c - 9-8", "ends before it begins"),
            ("deny c - auth", "auth is allowed only in permit"),
            ("permit c - auth Auth", "write each option once"),
            ("permit c - auth 80", "columns before the options"),
            ("permit c - auth=x", "not an option"),
            ("permit c - ident=yes", "not an option"),
            ("deny c - ident", "ident is allowed only in permit"),
            ("permit c - ident ident", "write each option once"),
            ("permit c - user=a user=b", "write each option once"),
            ("permit c - group=wheel", "not an option"),
            ("permit c ident", "destination is missing"),
            ("permit c - ident 80", "columns before the options"),
            ("permit c user=a -", "destination is missing"),
            ("permit c - user=", "not a list of users"),
            ("permit c - user=a,,b", "not a list of users"),
            ("permit c - user=a\u{7f}", "control character \\x7f, so"),
            ("permit c - user=a\"b\"", "quotes around the whole name"),
            ("permit c - user=\"a\"b", "a comma between two names"),
            ("permit c - user=\"a\" \"b\"", "after an option"),
            ("permit c - user=\"\"", "not a list of users"),
            ("permit c - user=\"a\",", "not a list of users"),
            ("permit c - user=\"CORP\\tom\"", "a backslash is written as"),
            ("permit c - user=\"a\\x00\"", "without NUL"),
            ("permit c - user=\"a\\x0a\"", "line ends"),
            ("permit c - user='bob'", "write double quotes"),
            ("permit c \"a.org\"", "not a destination"),
            ("permit c - \"user\"=a", "not an option"),
            ("permit c - user=*", "leave user= out"),
            ("permit c - time=", "not a time of the week"),
            ("permit c - time=mon", "names days without hours"),
            ("permit c - time=8:00-8:00", "write 00:00-24:00"),
            ("permit c - time=8-18", "not a time of the week"),
            ("permit c \u{0}", "\\x00"),
            ("permit c \u{1}", "\\x01"),
            ("permit c \u{1b}[2J", "\\x1b"),
        ] {
            check_refused(line, reason);
        }
    }

    #[test]
    fn f31_nothing_in_a_line_hides_the_rest_of_it() {
        const COMMENT: &str = "write a blank before a comment";
        for (line, reason) in [
            ("permit - 10.0.0.1#5", COMMENT),
            ("permit c - user=alice#auth", COMMENT),
            ("permit c - user=a#b auth", COMMENT),
            ("permit c - user=\"a\"# auth", COMMENT),
            ("permit c - user=\"a\",#b auth", COMMENT),
            ("permit c -# comment", COMMENT),
            ("permit c - 80# comment", COMMENT),
            ("permit# c -", COMMENT),
            ("\u{FEFF}\u{FEFF}# permit c -", COMMENT),
            ("\u{FEFF}\u{FEFF}deny c -", "U+FEFF"),
            ("permit c -\u{a0}# comment", COMMENT),
            (
                "permit c - user=a\u{a0}auth",
                "quotes around the whole name",
            ),
            (
                "permit c - user=a\u{2003}auth",
                "quotes around the whole name",
            ),
            ("permit c - user=\"a\"auth", "a comma between two names"),
            ("# all\rpermit c 10.\rdeny c -", "\\x0d"),
            ("permit c - # all\rdeny c 10.", "\\x0d"),
            ("permit c -\rdeny c 10.", "\\x0d"),
            ("# all\u{0} but", "\\x00"),
            ("# all\u{b}deny c 10.", "\\x0b"),
            ("# all\u{c}deny c 10.", "\\x0c"),
            ("#\0 \0a\0l\0l\0", "\\x00"),
            ("permit c - user=\"a\u{b}\"", "\\x0b"),
            ("# a\u{8}\u{8}b", "\\x08"),
            ("# all\u{2028}deny c 10.", "U+2028"),
            ("# all\u{2029}deny c 10.", "U+2029"),
            ("# all\u{85}deny c 10.", "U+0085"),
            ("permit c - # \u{202E}.01 c ynedg", "U+202E"),
            ("permit c - user=\"\u{2067}a\"", "U+2067"),
            ("permit c - user=bo\u{200B}b", "U+200B"),
            ("permit c - user=\"bo\u{200D}b\" # b", "U+200D"),
            ("de\u{AD}ny c -", "U+00AD"),
            ("permit c a\u{2060}.org", "U+2060"),
            ("permit c - // comment", "not a port list"),
            ("permit c - ; comment", "not a port list"),
            ("permit c - 80 // comment", "not an address range"),
            ("permit c - auth // comment", "after an option"),
            ("permit c 10.0.0.1;", "is not an address"),
            ("permit c - 80;", "not a port list"),
            ("; comment", "begins with permit or deny"),
            ("// comment", "begins with permit or deny"),
            ("permit c - \\", "not a port list"),
            ("\"permit\" c -", "begins with permit or deny"),
            ("permit c \"\"-", "not a destination"),
        ] {
            check_refused(line, reason);
        }
    }

    #[test]
    fn f06_every_invalid_address_is_refused_with_a_reason() {
        for (line, reason) in [
            ("permit c 256.1.1.1", "is not an address"),
            ("permit c 1.2.3", "is not an address"),
            ("permit c 140.113", "is not an address"),
            ("permit c 01.2.3.4", "is not an address"),
            ("permit c -1.2.3.4", "is not an address"),
            ("permit c 1*.2.3.4", "is not an address"),
            ("permit c 14?.1.1.1", "is not an address"),
            ("permit c 1.2.3.4.", "is not an address"),
            ("permit c .", "not a destination"),
            ("permit c ..", "not a destination"),
            ("permit c a..b", "not a destination"),
            ("permit c *.", "not a destination"),
            ("permit c a.*.org", "not a destination"),
            ("permit c http://a.org", "write the host alone"),
            ("permit c 1.2.3.4/33", "not an address range"),
            ("permit c 1.2.3.4/", "not an address range"),
            ("permit c 1.2.3.4/+8", "not an address range"),
            ("permit c ::/129", "not an address range"),
            ("permit c 10./8", "not an address range"),
            ("permit c 10.0.0.5/8", "write 10.0.0.0/8"),
            ("permit c 2001:db8::1/32", "write 2001:db8::/32"),
            ("permit c a.org - -", "not a source"),
            ("permit c 10.0.0.1-5 - -", "write a range as"),
            ("permit c localhost - -", "loopback"),
            ("deny c any", "write - for any address"),
            ("deny c ALL.", "write - for any address"),
            ("deny c link-local", "write linklocal"),
            ("deny c privat", "the words for networks are"),
            ("deny c private4", "the words for networks are"),
            ("deny c Loopbacks", "the words for networks are"),
            ("deny c rfc1918", "write private"),
            ("deny c ipv6", "write ::/0"),
            ("deny c Loopback.", "a word for networks"),
            ("deny c metadata.", "a word for networks"),
            ("permit c ident.", "it is an option"),
            ("permit c auth.", "it is an option"),
            ("permit c local.", "it is an option"),
            ("permit c local", "destination is missing"),
            ("permit c - local", "only if the destination is a name"),
            ("permit c 10. local", "only if the destination is a name"),
            (
                "permit c loopback local",
                "only if the destination is a name",
            ),
            ("deny c a.org local", "local is allowed only in permit"),
            ("permit c a.org local=yes", "not an option"),
            ("permit c a.org local LOCAL", "write each option once"),
            ("permit c *.org - -", "not a source"),
        ] {
            check_refused(line, reason);
        }
    }

    /// Checks that the line is an error with this reason, in printable ASCII.
    fn check_refused(line: &str, reason: &str) {
        let errors = parse(line.as_bytes()).expect_err(line);
        let [error] = errors.as_slice() else {
            panic!("{line}: {errors:?}")
        };
        assert_eq!(error.line, 1);
        assert!(error.reason.contains(reason), "{line}: {error}");
        assert!(
            error
                .reason
                .bytes()
                .all(|byte| (0x20..0x7F).contains(&byte))
        );
    }

    #[test]
    fn f06_bytes_that_are_not_utf8_are_refused_outside_comments() {
        assert!(parse(b"permit c \xff\xfe").is_err());
        assert_eq!(
            parse(b"permit c - # \xa4\xa4\xa4\xe5").map(|rules| rules.len()),
            Ok(1)
        );
        let long = [b"permit c ".as_slice(), &[b'x'; 1_000_000]].concat();
        let errors = parse(&long).expect_err("the name is too long");
        assert!(errors[0].reason.len() < 300);
    }

    #[test]
    fn f21_an_unclosed_quote_is_an_error_of_its_line_only() {
        let text = "permit c - user=\"bob smith\npermit b - # \"\n\ndeny c - user=\"a\\\"\n";
        let errors = parse(text.as_bytes()).expect_err("two quotes are not closed");
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 4]);
        assert!(errors[0].reason.contains("a quote is not closed"));
    }

    #[test]
    fn m06_a_port_in_the_third_column_leads_to_the_form_with_four() {
        let four = "write four: 127.0.0.1 - example.org 80,443";
        let errors = parse(b"permit c 127.0.0.1 example.org 80,443\n").expect_err("three columns");
        assert!(errors[0].reason.contains(four), "{}", errors[0]);
        for line in [
            "permit c 10. 1-9 example.org",
            "permit c 10. - -",
            "permit c 10. 80 -",
        ] {
            assert!(parse(line.as_bytes()).is_ok(), "{line}");
        }
    }

    #[test]
    fn f06_every_syntax_error_is_reported_with_its_line() {
        let errors = parse(b"permit c -\nfoo\n\n# fine\npermit\n").expect_err("two invalid lines");
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [2, 5]);
        let errors = parse(&b"foo\n".repeat(1_000_000)).expect_err("invalid lines");
        assert_eq!(errors.len(), MAX_ERRORS);
    }
}
