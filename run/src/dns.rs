//! DNS queries that become answers: for resolvers that ask a name server themselves, such as Go's.

use std::net::{IpAddr, Ipv4Addr};

use threadsocks::protocol::HostName;

/// The longest datagram that is answered: a query has one name of 255 bytes.
pub(crate) const MAX_QUERY: usize = 512;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const CLASS_INTERNET: u16 = 1;
/// Seconds for which a program may keep an answer. The addresses stay valid for the whole run,
/// but for the rare case that all were given out.
const TIME_TO_LIVE: u32 = 60;

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    /// The addresses of a name.
    Addresses(String, u16),
    /// The name of an IPv4 address.
    Name(Ipv4Addr),
    /// Something to which the answer is empty.
    Other,
}

/// Answers a query. `addresses` finds those of a name; `None`: there is no such name.
/// `name_of` finds the name of an address. `None`: the datagram is no query.
pub(crate) fn answer(
    query: &[u8],
    addresses: impl FnOnce(&str) -> Option<Vec<IpAddr>>,
    name_of: impl FnOnce(Ipv4Addr) -> Option<HostName>,
) -> Option<Vec<u8>> {
    let (question, length) = decode(query)?;
    let (found, records) = match question {
        Question::Addresses(name, wanted) => match addresses(&name) {
            Some(addresses) => (true, records_of(&addresses, wanted)),
            None => (false, Vec::new()),
        },
        Question::Name(address) => match name_of(address) {
            Some(name) => (true, vec![record(TYPE_PTR, &encode_name(name.as_str()))]),
            None => (false, Vec::new()),
        },
        Question::Other => (true, Vec::new()),
    };
    let (id, flags) = query.split_at_checked(2)?;
    // An answer, by a server that can look up on; with the wish of the client (RD).
    let wish = flags.first()? & 0x01;
    let error = if found { 0 } else { 3 };
    let head = [
        0x80 | wish,
        0x80 | error,
        0,
        1,
        0,
        records.len() as u8,
        0,
        0,
        0,
        0,
    ];
    let asked = query.get(12..length)?;
    Some([id, &head, asked, &records.concat()].concat())
}

fn records_of(addresses: &[IpAddr], wanted: u16) -> Vec<Vec<u8>> {
    let record = |address: &IpAddr| match (address, wanted) {
        (IpAddr::V4(address), TYPE_A) => Some(record(TYPE_A, &address.octets())),
        (IpAddr::V6(address), TYPE_AAAA) => Some(record(TYPE_AAAA, &address.octets())),
        _ => None,
    };
    // All fit into one datagram.
    addresses.iter().filter_map(record).take(8).collect()
}

/// A record about the name in the question, to which it points.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let pointer = [0xc0, 12];
    let numbers = [kind.to_be_bytes(), CLASS_INTERNET.to_be_bytes()].concat();
    let length = (data.len() as u16).to_be_bytes();
    [
        &pointer[..],
        &numbers,
        &TIME_TO_LIVE.to_be_bytes(),
        &length,
        data,
    ]
    .concat()
}

/// The question of a query, and where it ends. `None`: this is no query with one question.
fn decode(query: &[u8]) -> Option<(Question, usize)> {
    let (head, mut rest) = query.split_first_chunk::<12>()?;
    // A query of the usual kind (QR and OPCODE are 0), with one question.
    if head[2] & 0xf8 != 0 || head[4..6] != [0, 1] {
        return None;
    }
    let mut labels: Vec<&[u8]> = Vec::new();
    loop {
        let (length, after) = rest.split_first()?;
        match *length {
            0 => {
                rest = after;
                break;
            }
            1..=63 => {
                let (label, after) = after.split_at_checked(usize::from(*length))?;
                labels.push(label);
                rest = after;
            }
            // A pointer, to which nothing in a question can point.
            _ => return None,
        }
    }
    let (kind, rest) = rest.split_first_chunk()?;
    let (class, rest) = rest.split_first_chunk()?;
    let [kind, class] = [*kind, *class].map(u16::from_be_bytes);
    let length = query.len() - rest.len();
    let name = String::from_utf8(labels.join(&b"."[..])).ok()?;
    let question = match kind {
        TYPE_A | TYPE_AAAA if class == CLASS_INTERNET => Question::Addresses(name, kind),
        TYPE_PTR => reversed(&name).map_or(Question::Other, Question::Name),
        _ => Question::Other,
    };
    Some((question, length))
}

/// The address in `4.3.2.1.in-addr.arpa`.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let numbers = name.to_ascii_lowercase();
    let numbers = numbers.strip_suffix(".in-addr.arpa")?;
    let mut parts: Vec<&str> = numbers.split('.').collect();
    parts.reverse();
    parts.join(".").parse().ok()
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let head = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let tail = [kind.to_be_bytes(), [0, 1]].concat();
        [&head[..], &encode_name(name), &tail].concat()
    }

    fn answered(query: &[u8]) -> Option<Vec<u8>> {
        let known = |name: &str| {
            let is_known = name == "a.example";
            is_known.then(|| vec![IpAddr::from([198, 18, 0, 1])])
        };
        answer(query, known, |_| None)
    }

    #[test]
    fn a_name_has_an_ipv4_address_and_no_ipv6_address() {
        let asked = query("a.example", TYPE_A);
        let reply = answered(&asked).unwrap();
        assert_eq!(reply[..12], [7, 9, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(reply.ends_with(&[0, 4, 198, 18, 0, 1]));
        let reply = answered(&query("a.example", TYPE_AAAA)).unwrap();
        assert_eq!(reply[..12], [7, 9, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        let reply = answered(&query("b.example", TYPE_A)).unwrap();
        assert_eq!(reply[3], 0x83, "no such name");
        let reply = answered(&query("1.0.18.198.in-addr.arpa", TYPE_PTR)).unwrap();
        assert_eq!(reply[3], 0x83);
    }

    #[test]
    fn no_prefix_of_a_query_and_no_pointer_makes_the_decoder_panic() {
        let whole = query("a.example", TYPE_A);
        for length in 0..whole.len() {
            assert_eq!(answered(&whole[..length]), None, "{length}");
        }
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(answered(&pointer), None);
        let mut reply = whole;
        reply[2] |= 0x80;
        assert_eq!(answered(&reply), None);
    }
}
