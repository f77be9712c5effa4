//! Characters that show a line in an editor or a terminal otherwise than the server reads it.

/// What follows from such a character, and what to do.
const BREAKS_OR_REORDERS: &str = "so other programs can show the line as several lines, or in \
                                  another order than the server reads it; delete the character, or \
                                  write its bytes as \\xHH in a name in double quotes";

/// Characters that are not shown, the `Default_Ignorable_Code_Point` of Unicode 16. RFC 8264
/// (section 9.13) excludes them from identifiers.
const INVISIBLE: &[(char, char)] = &[
    ('\u{AD}', '\u{AD}'),
    ('\u{34F}', '\u{34F}'),
    ('\u{61C}', '\u{61C}'),
    ('\u{115F}', '\u{1160}'),
    ('\u{17B4}', '\u{17B5}'),
    ('\u{180B}', '\u{180F}'),
    ('\u{200B}', '\u{200F}'),
    ('\u{202A}', '\u{202E}'),
    ('\u{2060}', '\u{206F}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{FE00}', '\u{FE0F}'),
    ('\u{FEFF}', '\u{FEFF}'),
    ('\u{FFA0}', '\u{FFA0}'),
    ('\u{FFF0}', '\u{FFF8}'),
    ('\u{1BCA0}', '\u{1BCA3}'),
    ('\u{1D173}', '\u{1D17A}'),
    ('\u{E0000}', '\u{E0FFF}'),
];

/// Checks that other programs show a whole line, with its comment, as the server reads it: in
/// one line and in this order. A carriage return or form feed at the beginning or end of the
/// line is a blank: files with CRLF are valid.
///
/// A line that is not UTF-8 may be a comment in another encoding, and its parts that are UTF-8
/// are checked. C1 controls are not: their two bytes can be text there.
///
/// # Errors
///
/// A sentence without a part of the line, except the character.
pub fn check_line(line: &[u8]) -> Result<(), String> {
    let line = line.trim_ascii();
    let is_utf8 = std::str::from_utf8(line).is_ok();
    let is_invalid =
        |it: &char| breaks_or_reorders(*it) && (is_utf8 || !('\u{80}'..='\u{9F}').contains(it));
    let mut chunks = line.utf8_chunks();
    match chunks.find_map(|chunk| chunk.valid().chars().find(is_invalid)) {
        None => Ok(()),
        Some('\r') => Err(
            "the line contains the control character \\x0d, so other programs can show it as two \
             lines; end each line with LF or CRLF"
                .to_owned(),
        ),
        Some(found) if found.is_ascii() => Err(format!(
            "the line contains the control character \\x{:02x}, {BREAKS_OR_REORDERS}",
            u32::from(found)
        )),
        Some(found) => Err(format!(
            "the line contains {}, {BREAKS_OR_REORDERS}",
            code_point(found)
        )),
    }
}

/// Checks that all characters of a line's words are visible. A comment may have characters that
/// are not: some languages and emoji need them, and the server does not read it.
///
/// # Errors
///
/// As [`check_line`].
pub fn check_words(words: &str) -> Result<(), String> {
    match words.chars().find(|it| is_invisible(*it)) {
        None => Ok(()),
        Some(found) => {
            let mut buffer = [0; 4];
            let bytes = found.encode_utf8(&mut buffer).bytes();
            let escaped: String = bytes.map(|byte| format!("\\x{byte:02x}")).collect();
            Err(format!(
                "the line contains {}, which is not visible; delete it, or write {escaped} in a \
                 name in double quotes",
                code_point(found)
            ))
        }
    }
}

/// Can a name in a file have this character without an escape?
pub fn is_shown(character: char) -> bool {
    !breaks_or_reorders(character) && !is_invisible(character) && character != '\t'
}

/// Can another program end the line at this character, or move the text around it? Control
/// characters move the cursor of a terminal. Compilers refuse the same embeddings, overrides
/// and isolates of bidirectional text (CVE-2021-42574). The marks U+061C, U+200E and U+200F
/// belong to text in Arabic and Hebrew, and order no more than the letters do.
fn breaks_or_reorders(it: char) -> bool {
    let is_line_separator = matches!(it, '\u{2028}' | '\u{2029}');
    let is_bidirectional = matches!(it, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    it.is_control() && it != '\t' || is_line_separator || is_bidirectional
}

fn is_invisible(it: char) -> bool {
    let is_within = |(first, last): &(char, char)| (*first..=*last).contains(&it);
    !it.is_ascii() && INVISIBLE.iter().any(is_within)
}

/// As Unicode writes it: U+202E.
fn code_point(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f31_f33_no_control_character_is_within_a_line() {
        for byte in 0..=0x7F {
            let is_invalid = byte < b' ' && byte != b'\t' || byte == 0x7F;
            for line in [b"# a%b", b"a % b", b"\"a%b\""] {
                let line = line.map(|it| if it == b'%' { byte } else { it });
                assert_eq!(check_line(&line).is_err(), is_invalid, "{byte}");
            }
        }
        for line in ["", "a\r", "a\r\r", "a\r \t", "\r", "\ra", "\x0c"] {
            assert_eq!(check_line(line.as_bytes()), Ok(()), "{line:?}");
        }
        let reason = check_line(b"# a\rdeny - -").unwrap_err();
        assert!(reason.contains("character \\x0d,"), "{reason}");
    }

    #[test]
    fn f33_no_character_that_ends_or_reorders_lines_is_within_a_line() {
        let bidirectional = ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}');
        let separators = ['\u{2028}', '\u{2029}']
            .into_iter()
            .chain('\u{80}'..='\u{9F}');
        for character in bidirectional.chain(separators) {
            for line in [
                format!("# a{character}b"),
                format!("a \"{character}\""),
                character.to_string(),
            ] {
                let reason = check_line(line.as_bytes()).expect_err(&line);
                let expected = format!("contains {},", code_point(character));
                assert!(reason.contains(&expected), "{reason}");
                assert!(reason.is_ascii());
                // The same among bytes that are not UTF-8.
                let line = [line.as_bytes(), b" \xE9"].concat();
                let is_c1 = character <= '\u{9F}';
                assert_eq!(check_line(&line).is_ok(), is_c1, "{line:?}");
            }
            assert!(!is_shown(character));
        }
        assert_eq!(code_point('\u{85}'), "U+0085");
        assert_eq!(code_point('\u{E0001}'), "U+E0001");
    }

    #[test]
    fn f33_comments_of_all_languages_are_valid() {
        for line in [
            "# caf\u{E9}, \u{5E9}\u{5DC}\u{5D5}\u{5DD}\u{200F}!, \u{645}\u{6CC}\u{200C}\u{62E}\u{648}",
            "# \u{915}\u{94D}\u{200D}\u{937} \u{1F469}\u{200D}\u{1F4BB} \u{2764}\u{FE0F} a\u{A0}b",
            "# \u{E01}\u{200B}\u{E02} \u{FEFF} \u{AD}",
            "# a\tb",
        ] {
            assert_eq!(check_line(line.as_bytes()), Ok(()), "{line}");
        }
        // In ISO 8859-1, Windows-1251 and Shift JIS.
        for line in [
            &b"# caf\xE9"[..],
            b"# \xC2\x85 \xE9",
            b"# \x83\x65\x83\x58\x83\x67",
        ] {
            assert_eq!(check_line(line), Ok(()), "{line:?}");
        }
    }

    #[test]
    fn f34_characters_that_are_not_shown_are_no_part_of_words() {
        for (character, escaped) in [
            (
                '\u{200B}',
                "U+200B, which is not visible; delete it, or write \\xe2\\x80\\x8b in",
            ),
            (
                '\u{AD}',
                "U+00AD, which is not visible; delete it, or write \\xc2\\xad in",
            ),
            ('\u{FEFF}', "U+FEFF, which"),
            ('\u{200D}', "U+200D, which"),
            ('\u{2060}', "U+2060, which"),
            ('\u{E0061}', "U+E0061, which"),
        ] {
            let reason = check_words(&format!("a{character}b")).unwrap_err();
            assert!(reason.contains(escaped), "{reason}");
            assert!(!is_shown(character));
        }
        assert_eq!(check_words("permit c - user=j\u{FC}rgen,\u{5D0}"), Ok(()));
        assert!(('\0'..=' ').all(|it| is_shown(it) == (it == ' ')));
        assert!(('!'..='~').chain('\u{A0}'..='\u{AC}').all(is_shown));
    }
}
