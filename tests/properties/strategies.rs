//! Strategies for input that is mostly valid, and sometimes slightly invalid.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Union;

type Words = &'static [&'static str];

/// Arbitrary bytes, fewer than 200.
pub(crate) fn bytes() -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), 0..200).boxed()
}

/// In one of four cases, one byte is inserted, removed or replaced.
pub(crate) fn mutated(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = prop_oneof![
        3 => Just(None),
        1 => any::<(Index, Option<u8>, bool)>().prop_map(Some),
    ];
    (valid, change).prop_map(|(mut bytes, change)| {
        if let Some((at, byte, replaces)) = change
            && !bytes.is_empty()
        {
            let at = at.index(bytes.len());
            bytes.splice(at..at + usize::from(replaces), byte);
        }
        bytes
    })
}

/// One of the words, or in one of five cases a value of the other strategy.
fn word(words: Words, other: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    prop_oneof![4 => select(words).prop_map(str::to_owned), 1 => other].boxed()
}

/// Fewer than `max_parts` parts, one after the other. Each part has a weight.
fn sequence(parts: Vec<(u32, BoxedStrategy<Vec<u8>>)>, max_parts: usize) -> BoxedStrategy<Vec<u8>> {
    let parts = vec(Union::new_weighted(parts), 0..max_parts);
    parts.prop_map(|parts| parts.concat()).boxed()
}

fn texts(words: Words) -> BoxedStrategy<Vec<u8>> {
    select(words)
        .prop_map(|word| word.as_bytes().to_vec())
        .boxed()
}

/// A host field: names, addresses, and numbers that inet_aton(3) accepts.
pub(crate) fn host_name() -> BoxedStrategy<Vec<u8>> {
    let label = word(
        &[
            "a", "org", "example", "1", "0x7f", "0", "010", "127", "256", "-a", "a_b", "*", "0X1",
        ],
        "[a-zA-Z0-9_-]{1,70}",
    );
    let labels = vec(label, 1..9).prop_map(|labels| labels.join("."));
    let dotted = (labels, select(&["", "", ".", ".."][..]));
    dotted
        .prop_map(|(labels, dot)| format!("{labels}{dot}").into_bytes())
        .boxed()
}

fn field(limit: usize) -> BoxedStrategy<Vec<u8>> {
    let length = prop_oneof![4 => 0..20_usize, 1 => limit - 2..limit + 3];
    (length, any::<u8>())
        .prop_map(|(length, byte)| vec![byte.max(1); length])
        .boxed()
}

/// A SOCKS4 request, and early data of the client.
pub(crate) fn request() -> BoxedStrategy<Vec<u8>> {
    let head = (
        select(&[4, 4, 4, 4, 5, 0][..]),
        select(&[1, 1, 2, 0, 3][..]),
        any::<[u8; 2]>(),
    );
    let ip = prop_oneof![
        any::<[u8; 4]>(),
        any::<u8>().prop_map(|last| [0, 0, 0, last]),
        select(&[[0, 0, 0, 0], [0, 0, 1, 0], [127, 0, 0, 1]][..]),
    ];
    let name = prop_oneof![2 => host_name(), 1 => field(255)];
    (head, ip, field(512), name, bytes())
        .prop_map(|((version, command, port), ip, user, name, early)| {
            let head = [version, command, port[0], port[1]];
            [&head[..], &ip, &user, &[0], &name, &[0], &early].concat()
        })
        .boxed()
}

/// Up to three SOCKS4 replies.
pub(crate) fn replies() -> BoxedStrategy<Vec<u8>> {
    let version = select(&[0, 0, 0, 0, 4][..]);
    let reply = (
        version,
        select(&[90, 90, 90, 91, 92, 93, 89, 94][..]),
        any::<[u8; 6]>(),
    );
    let replies = vec(reply, 0..4);
    replies
        .prop_map(|replies| {
            let bytes = replies
                .into_iter()
                .map(|(version, code, rest)| [&[version, code][..], &rest].concat());
            bytes.collect::<Vec<_>>().concat()
        })
        .boxed()
}

/// Replies of an ident server. Most of them have the ports that the oracle asks for.
pub(crate) fn ident_replies() -> BoxedStrategy<Vec<u8>> {
    let ports: Words = &[
        "6193,1080",
        "6193 , 1080",
        " 6193\t, 1080 ",
        "6193,1081",
        "1080,6193",
        "6193",
    ];
    let kinds: Words = &[
        "USERID : UNIX :",
        "userid:OTHER,UTF-8:",
        "USERID :",
        "ERROR :",
        "Error:",
        "HELLO :",
    ];
    let value = prop_oneof![
        4 => select(&["alice", " a b:c ", "NO-USER", "", " ", "\u{e9}\u{7f}"][..])
            .prop_map(str::to_owned),
        1 => (900..1100_usize).prop_map(|count| "u".repeat(count)),
    ];
    let end = select(&["\r\n", "\r\n", "\n", "\r", "", "\r\n6193,1080:ERROR:X\r\n"][..]);
    let line = (select(ports), select(kinds), value, end);
    line.prop_map(|(ports, kind, value, end)| format!("{ports}:{kind}{value}{end}").into_bytes())
        .boxed()
}

/// A header of the PROXY protocol, and what follows it.
pub(crate) fn proxy_header() -> BoxedStrategy<Vec<u8>> {
    let protocols: Words = &["TCP4", "TCP4", "TCP6", "TCP6", "UNKNOWN", "UDP4"];
    let addresses: Words = &[
        "192.0.2.1",
        "1.2.3.04",
        "::1",
        "2001:db8::1",
        "::ffff:1.2.3.4",
    ];
    let ports: Words = &["0", "1080", "65535", "65536", "080", "+80"];
    let end = select(&["\r\n", "\r\n", "\n", "\r", ""][..]);
    let address = || select(addresses);
    let line = (
        select(protocols),
        address(),
        address(),
        select(ports),
        select(ports),
        end,
    );
    let line = line.prop_map(|(protocol, source, destination, port, other, end)| {
        format!("PROXY {protocol} {source} {destination} {port} {other}{end}").into_bytes()
    });
    let command = select(&[0x21, 0x21, 0x21, 0x20, 0x22, 0x11][..]);
    let family = select(&[0x11, 0x11, 0x21, 0x21, 0, 0x12, 0x22, 0x31, 0x41, 0x13][..]);
    let body = prop_oneof![
        2 => vec(any::<u8>(), 12),
        2 => vec(any::<u8>(), 36),
        2 => vec(any::<u8>(), 0..60),
        1 => vec(any::<u8>(), 216..300),
        1 => (4100..4320_usize).prop_map(|length| vec![7; length]),
    ];
    let binary = (command, family, body).prop_map(|(command, family, body)| {
        let [high, low] = (body.len() as u16).to_be_bytes();
        let head = [command, family, high, low];
        [b"\r\n\r\n\0\r\nQUIT\n", &head[..], &body].concat()
    });
    (prop_oneof![line, binary], bytes())
        .prop_map(|(header, rest)| [header, rest].concat())
        .boxed()
}

/// A SOCKS5 message after the byte that selects its kind in the oracle.
pub(crate) fn socks5() -> BoxedStrategy<Vec<u8>> {
    let field = prop_oneof![
        4 => vec(any::<u8>(), 0..9),
        1 => vec(any::<u8>(), 250..256),
        3 => select(&["a.org", "A.ORG.", "127.1", "10.0.0.1", "::1", "[::1]", ""][..])
            .prop_map(|name| name.as_bytes().to_vec()),
    ];
    let field = field.prop_map(|bytes| [&[bytes.len() as u8], &bytes[..]].concat());
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| [&[1], &ip[..]].concat()),
        any::<[u8; 16]>().prop_map(|ip| [&[4], &ip[..]].concat()),
        field.clone().prop_map(|name| [&[3], &name[..]].concat()),
        any::<[u8; 3]>().prop_map(|odd| odd.to_vec()),
    ];
    let head = select(
        &[
            [5, 1, 0],
            [5, 2, 0],
            [5, 3, 0],
            [5, 0, 0],
            [5, 8, 0],
            [5, 9, 0],
            [0, 0, 0],
            [0, 0, 7],
            [4, 1, 0],
        ][..],
    );
    let request = (head, address, any::<[u8; 2]>())
        .prop_map(|(head, address, port)| [&head[..], &address, &port].concat());
    let version = select(&[5, 5, 1, 1, 4][..]);
    let credentials = (version, field.clone(), field)
        .prop_map(|(version, user, password)| [&[version], &user[..], &password].concat());
    let message =
        prop_oneof![3 => request, 2 => credentials, 1 => any::<[u8; 2]>().prop_map(Vec::from)];
    let tail = vec(any::<u8>(), 0..4);
    (0..7_u8, message, tail)
        .prop_map(|(kind, message, tail)| [&[kind], &message[..], &tail].concat())
        .boxed()
}

fn address() -> BoxedStrategy<String> {
    let v4 = any::<[u8; 4]>().prop_map(|ip| ip.map(|octet| octet.to_string()));
    let ranges = (any::<u32>(), 0..33_u32).prop_map(|(ip, bits)| {
        let kept = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        format!("{}/{bits}", std::net::Ipv4Addr::from_bits(ip & kept))
    });
    let ranges6 = (any::<u128>(), 0..129_u32).prop_map(|(ip, bits)| {
        let kept = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        format!("{}/{bits}", std::net::Ipv6Addr::from_bits(ip & kept))
    });
    let octet = prop_oneof![2 => any::<u8>().prop_map(|it| it.to_string()), 1 => Just("*".to_owned()), 1 => Just("-".to_owned())];
    let patterns = vec(octet, 2..5).prop_map(|octets| octets.join("."));
    prop_oneof![
        6 => select(ADDRESSES).prop_map(str::to_owned),
        1 => v4.clone().prop_map(|ip| ip.join(".")),
        1 => (v4, 1..4_usize).prop_map(|(ip, parts)| format!("{}.", ip[..parts].join("."))),
        2 => patterns,
        1 => ranges,
        1 => ranges6,
    ]
    .boxed()
}

/// Words that stand for addresses.
const ADDRESSES: Words = &[
    "-",
    "*",
    "-",
    "10.0.0.0/8",
    "10.0.0.1",
    "10.0.0.0",
    "10.0.0.0/32",
    "140.113.",
    "140.113.*.*",
    "140.-",
    "*.*.99.0",
    "::1",
    "::",
    "::ffff:10.0.0.1",
    "::ffff:10.0.0.0/104",
    "64:ff9b::10.0.0.1",
    "64:ff9b::/96",
    "64:ff9b::/64",
    "loopback",
    "LinkLocal",
    "private",
    "metadata",
];

fn port_list() -> BoxedStrategy<String> {
    let range = any::<(u16, u16)>().prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let part = prop_oneof![any::<u16>().prop_map(|port| port.to_string()), range];
    let list = vec(part, 1..4).prop_map(|parts| parts.join(","));
    prop_oneof![3 => Just("-".to_owned()), 1 => Just("80".to_owned()), 1 => list].boxed()
}

/// Options of a rule, in two orders.
fn options() -> BoxedStrategy<String> {
    let users: Words = &[
        "",
        "",
        " user=alice",
        " USER=Bob,alice",
        " user=a,b,c",
        " user=\"Jane Doe\",bob",
        " User=\"# \\\" \\\\\",\"\\xfc,\"",
        " user=j\u{fc}rgen,o'neil,A\\B",
    ];
    let times: Words = &[
        "",
        "",
        "",
        " time=mon-fri/08:00-18:00",
        " TIME=sat-mon/22:00-6:00",
        " time=0:00-24:00",
        " time=mon,wed/8:00-8:01,12:00-13:00,sun/23:59-00:01",
    ];
    let idents: Words = &[
        "",
        "",
        "",
        " ident",
        " IDENT",
        " auth",
        " Auth",
        " ident auth",
    ];
    let options = (select(users), select(times), select(idents), any::<bool>());
    options
        .prop_map(|(user, time, ident, reversed)| match reversed {
            true => format!("{ident}{time}{user}"),
            false => format!("{user}{time}{ident}"),
        })
        .boxed()
}

/// Lines of `socks.conf`, with an occasional invalid line.
pub(crate) fn rules() -> BoxedStrategy<Vec<u8>> {
    let action = select(&["permit", "permit", "deny", "Deny", "Permit"][..]);
    let mode = select(&["c", "b", "cb", "-", "*", "u", "C", "Bc"][..]);
    let names: Words = &[
        "a.org",
        "*.org",
        "*.a.org",
        "A.ORG.",
        "localhost",
        "*.x",
        "1x",
        "4chan.org",
        "10.example",
        "*.metadata",
        "*.localhost",
    ];
    let to = prop_oneof![2 => address(), 1 => select(names).prop_map(str::to_owned)].boxed();
    let columns = prop_oneof![
        to.clone(),
        (to.clone(), port_list()).prop_map(|(to, port)| format!("{to}  {port}")),
        (address(), port_list(), to.clone()).prop_map(|(a, b, c)| format!("{a} {b}\t{c}")),
        (address(), port_list(), to, port_list())
            .prop_map(|(a, b, c, d)| format!("{a} {b} {c} {d}")),
    ];
    let has_name = |columns: &str| columns.split_whitespace().any(|word| names.contains(&word));
    let rule = (action, mode, columns, options(), any::<bool>());
    let rule = rule.prop_map(move |(a, b, c, options, is_local)| match a {
        "deny" | "Deny" => format!(
            "{a} {b} {c}{}",
            options
                .to_lowercase()
                .replace(" ident", "")
                .replace(" auth", "")
        ),
        _ if is_local && has_name(&c) => format!("{a} {b} {c} Local{options}"),
        _ => format!("{a} {b} {c}{options}"),
    });
    let invalid: Words = &[
        "permit",
        "allow c -",
        "permit x -",
        "deny c 1.2.3",
        "deny c 10.0.0.1-5",
        "deny c 1_2",
        "deny c loopback.",
        "deny c any",
        "permit c - ident=",
        "deny c - ident",
        "deny c - auth",
        "deny c a.org local",
        "permit c - local",
        "permit c - user=",
        "permit c - user=\"a b",
        "permit c - user=\"a\\b\"",
        "permit c - user=a\"b\"",
        "permit c - time=mon",
        "permit c - ident -",
        "\u{e4}",
    ];
    let line = prop_oneof![
        40 => rule,
        4 => select(&["", "# all", "\t", "\r"][..]).prop_map(str::to_owned),
        1 => select(invalid).prop_map(str::to_owned),
    ];
    let end = select(&["\n", "\n", "\r\n", " # why\n", "\n\n"][..]);
    let lines = vec((line, end), 0..8);
    lines
        .prop_map(|lines| {
            lines
                .into_iter()
                .map(|(line, end)| line + end)
                .collect::<String>()
                .into_bytes()
        })
        .boxed()
}

/// Lines of a users file, with an occasional invalid line.
pub(crate) fn users() -> BoxedStrategy<Vec<u8>> {
    let name = word(
        &[
            "alice",
            "bob",
            "a#b",
            "-",
            "Jane Doe",
            "j\u{fc}rgen",
            "\"# x\"",
            "\"\\xfc\"",
            "CORP\\tom",
            "\"a",
            "b ",
        ],
        "[!-~]{1,20}",
    );
    let name = prop_oneof![8 => name, 1 => (250..260_usize).prop_map(|count| "n".repeat(count))];
    let params: Words = &[
        "m=8,t=1,p=1",
        "m=19456,t=2,p=1",
        "m=19456,t=2,p=1",
        "m=262144,t=4,p=4",
        "m=262145,t=1,p=1",
        "m=8,t=131073,p=1",
        "m=7,t=1,p=1",
        "m=8,t=1,p=1,data=QUJD",
        "t=1,m=8,p=1",
    ];
    let kinds: Words = &[
        "$argon2id$v=19",
        "$argon2id$v=19",
        "$argon2id$v=19",
        "$argon2i$v=19",
        "$argon2id$v=16",
        "",
    ];
    let salts: Words = &["c29tZXNhbHQ", "c29tZXNhbHQ", "c2E", "c29tZXNhbHR"];
    let outputs: Words = &[
        "AAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAE",
    ];
    let hash = (
        select(kinds),
        select(params),
        select(salts),
        select(outputs),
    );
    let hash =
        hash.prop_map(|(kind, params, salt, output)| format!("{kind}${params}${salt}${output}"));
    let valid =
        Just("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let hash = prop_oneof![6 => valid, 1 => hash];
    let user = (name, hash).prop_map(|(name, hash)| format!("{name}:{hash}"));
    let other: Words = &["", "# all", "\t", "#a:b", "alice", ":", "\u{e4}:x"];
    let line = prop_oneof![6 => user, 1 => select(other).prop_map(str::to_owned)];
    let end = select(&["\n", "\n", "\r\n", " \n", "\n\n"][..]);
    vec((line, end), 0..6)
        .prop_map(|lines| {
            let lines = lines.into_iter().map(|(line, end)| line + end);
            lines.collect::<String>().into_bytes()
        })
        .boxed()
}

/// A query string of the console.
pub(crate) fn query() -> BoxedStrategy<Vec<u8>> {
    let key = word(
        &[
            "h0", "h1", "p1", "f1", "sh1", "sp1", "h5", "sh4", "sp", "sh", "format", "edit", "h4",
            "p0", "f", "batch", "shells", "again", "once", "runs", "run", "stop",
        ],
        "[hpfs0-6%=]{0,4}",
    );
    let part = prop_oneof![
        8 => select(&["a", "text", "json", "2", ",", ":", "+", "%0d%0a", "[::1]:7", "%41", "%zz", "%", "%e4%bd%a0", "%ff", "%26", "=", "<", "\"", " "][..])
            .prop_map(str::to_owned),
        1 => (990..1010_usize).prop_map(|count| "x".repeat(count)),
        1 => (300..400_usize).prop_map(|count| "%e4%bd%a0".repeat(count)),
        1 => any::<char>().prop_map(String::from),
    ];
    let value = vec(part, 0..5).prop_map(|parts| parts.concat());
    let pairs = vec((key, value), 0..8);
    pairs
        .prop_map(|pairs| {
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"));
            pairs.collect::<Vec<_>>().join("&").into_bytes()
        })
        .boxed()
}

/// Telnet commands (RFC 854), and incomplete UTF-8.
const RAW_BYTES: &[&[u8]] = &[
    b"\xff",
    b"\xff\xfb\x01",
    b"\xff\xfa\x18",
    b"\xff\xf0",
    b"\xff\xff",
    b"\xe4\xbd",
    b"\xf0\x9f",
];

/// Output of a shell: text, prompts, escape sequences, telnet commands and invalid bytes.
pub(crate) fn shell_output() -> BoxedStrategy<Vec<u8>> {
    let marks = &[
        "% ", "\n% ", "%", " ", "\n", "\r\n", "\r", "\t", "50% off", "ls\n", "\0", "\x07",
    ];
    let escapes = &[
        "\x1b[",
        "\x1b[31m",
        "\x1b[1;38;5;9m",
        "\x1b[0m",
        "\x1b]0;",
        "\x07",
        "\x1b\\",
        "\x1bP",
        "\x1b(B",
        "\x1b",
        ";",
        "m",
        "\x18",
        "\u{9b}",
        "\x7f",
        "\x1b_",
    ];
    let characters = &[
        "<b>",
        "&amp;",
        "\"",
        "'",
        "</script>",
        "\u{e9}",
        "\u{4f60}",
        "\u{1f600}",
        "\u{2028}",
    ];
    let raw: BoxedStrategy<Vec<u8>> = prop_oneof![
        select(RAW_BYTES).prop_map(<[u8]>::to_vec),
        any::<u8>().prop_map(|byte| vec![byte]),
        (500..520_usize).prop_map(|count| [&b"\xff\xfa"[..], &vec![b'x'; count]].concat()),
    ]
    .boxed();
    sequence(
        vec![
            (4, texts(marks)),
            (3, texts(escapes)),
            (2, texts(characters)),
            (2, raw),
        ],
        24,
    )
}
