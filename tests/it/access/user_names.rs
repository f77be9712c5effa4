//! User names of any bytes: in both files, in logins and requests, and in the output.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use threadsocks::client::{self, ClientError};
use threadsocks::protocol::ReplyError;
use threadsocks::protocol::socks5::Credentials;

use crate::support::endpoints::{Origin, dial};
use crate::support::proxy::{Proxy, binary};

/// Names, and how the output shows them: in quotes, in printable ASCII.
const NAMES: [(&[u8], &str); 9] = [
    (b"CORP\\user1", r#""CORP\\user1""#),
    (b"user@example.org", r#""user@example.org""#),
    (b"Jane Doe", r#""Jane Doe""#),
    ("j\u{fc}rgen".as_bytes(), r#""j\xc3\xbcrgen""#),
    (b"a,b", r#""a,b""#),
    (b"#1", r##""#1""##),
    (b"\"quoted\" ", r#""\"quoted\" ""#),
    (b"o'neil", r#""o'neil""#),
    (b"\xfc\xff\x1b[2J", r#""\xfc\xff\x1b[2J""#),
];

/// The line that `--new-user` prints for this user with the password `secret`.
fn new_user(name: &[u8]) -> Vec<u8> {
    let mut child = binary()
        .arg("--new-user")
        .arg(OsStr::from_bytes(name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("threadsocks starts");
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name:?}");
    output.stdout
}

#[test]
fn f20_a_user_of_any_name_can_log_in_and_is_shown_in_quotes() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let lines: Vec<Vec<u8>> = NAMES.iter().map(|(name, _)| new_user(name)).collect();
    fs::write(&users, lines.concat()).unwrap();
    // The form in which the output shows a name is also its form in rules.
    let rule = |(line, (_, shown)): (usize, &(&[u8], &str))| {
        format!("permit c - {} user={shown} auth\n", 10_000 + line)
    };
    let permits: String = NAMES.iter().enumerate().map(rule).collect();
    let shown: Vec<&str> = NAMES.iter().map(|(_, shown)| *shown).collect();
    let rules = format!("{permits}permit c - - - - user={} auth\n", shown.join(","));
    let proxy = Proxy::start(&rules, &["-v", "--users", users.to_str().unwrap()]);
    let origin = Origin::echo();
    for (name, shown) in NAMES {
        let connect = |name: &[u8]| {
            let (user, password) = (name.to_vec(), b"secret".to_vec());
            let credentials = Credentials { user, password };
            client::socks5::connect(
                dial(proxy.address()),
                Some(&credentials),
                &origin.destination(),
            )
        };
        drop(connect(name).expect(shown));
        proxy.stderr_line(&format!(" user={shown} login=accepted rule=10 "));
    }
    let output = binary()
        .args(["--check", "--config"])
        .arg(proxy.config())
        .arg("--users")
        .arg(&users)
        .output()
        .unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    // The rules show quotes only where they are needed.
    let list = r#"user=CORP\user1,user@example.org,"Jane Doe","j\xc3\xbcrgen","a,b","#;
    assert!(report.contains(list), "{report}");
    assert!(report.contains("users: 9 users"), "{report}");
    for (line, (_, shown)) in NAMES.iter().enumerate() {
        let query = format!("c 10.0.0.5 1.2.3.4 {} login={shown}", 10_000 + line);
        let output = binary()
            .args(["--explain", &query, "--config"])
            .arg(proxy.config())
            .output()
            .unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        let verdict = format!("permit: CONNECT from 10.0.0.5 as {shown}, logged in, to ");
        assert!(report.starts_with(&verdict), "{report}");
        assert!(report.contains(&format!("socks.conf:{}: permit", line + 1)));
    }
    proxy.finish();
}

#[test]
fn f19_f21_rules_match_the_user_id_of_a_socks4_request_with_any_bytes() {
    let origin = Origin::echo();
    let rules = "permit c - user=\"bob smith\",j\u{fc}rgen,\"a#\\\"b\\\"\"  # \"a comment\n";
    let proxy = Proxy::start(rules, &["-v"]);
    for (user, expected) in [
        (&b"bob smith"[..], true),
        ("j\u{fc}rgen".as_bytes(), true),
        (b"a#\"b\"", true),
        (b"bob", false),
        (b"bob  smith", false),
        (b"\"bob smith\"", false),
        (b"j\xfcrgen", false),
        (b"a", false),
    ] {
        let answer = client::socks4::connect(dial(proxy.address()), &origin.destination(), user);
        match answer {
            Ok(_) => assert!(expected, "{user:?}"),
            Err(ClientError::Refused(ReplyError::Rejected)) => assert!(!expected, "{user:?}"),
            Err(other) => panic!("{other}"),
        }
    }
    proxy.stderr_line(" user=\"a#\\\"b\\\"\" rule=1 ");
    // An unclosed quote is an error of its line, and the rules in force stay.
    fs::write(proxy.config(), "permit c -\npermit c - user=\"bob smith\n").unwrap();
    let answer = client::socks4::connect(dial(proxy.address()), &origin.destination(), b"x");
    assert!(answer.is_err());
    proxy.stderr_line("socks.conf:2: a quote is not closed");
    proxy.finish();
}
