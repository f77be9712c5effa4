//! User names in quotes, found by searching the text for the second quote.

/// The bytes that the quoted text at the beginning stands for, and the length of that text.
/// The text is valid.
pub(crate) fn unquoted(text: &[u8]) -> (Vec<u8>, usize) {
    let end = closing_quote(text).expect("a second quote");
    let mut bytes = Vec::new();
    let mut at = 1;
    while at < end {
        let length = match &text[at..] {
            [b'\\', b'x', high, low, ..] => {
                let digits = String::from_utf8(vec![*high, *low]).expect("two digits");
                bytes.push(u8::from_str_radix(&digits, 16).expect("a number"));
                4
            }
            [b'\\', escaped, ..] => {
                bytes.push(*escaped);
                2
            }
            rest => {
                bytes.push(rest[0]);
                1
            }
        };
        at += length;
    }
    (bytes, end + 1)
}

/// The place of the quote that closes the one at the beginning: the next with an even number
/// of backslashes before it.
pub(crate) fn closing_quote(text: &[u8]) -> Option<usize> {
    (1..text.len()).find(|&at| {
        let before = text[1..at].iter().rev();
        text[at] == b'"' && before.take_while(|&&byte| byte == b'\\').count() % 2 == 0
    })
}

/// The names of a valid list.
pub(crate) fn names(list: &str) -> Vec<Vec<u8>> {
    let mut rest = list.as_bytes();
    let mut names = Vec::new();
    loop {
        let (name, length) = match rest.first() {
            Some(b'"') => unquoted(rest),
            _ => {
                let end = rest.iter().position(|&byte| byte == b',');
                let end = end.unwrap_or(rest.len());
                (rest[..end].to_vec(), end)
            }
        };
        names.push(name);
        match rest.get(length + 1..) {
            Some(next) => rest = next,
            None => return names,
        }
    }
}
