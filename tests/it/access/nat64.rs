//! IPv6 addresses that contain an IPv4 address: the rules judge the one of a NAT64 address, and refuse other forms.
//!
//! In place of a gateway, the addresses themselves are on loopback.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;

use threadsocks::auth::users_file_line;
use threadsocks::client::ClientError;
use threadsocks::client::socks5::{self, Association};
use threadsocks::protocol::socks5::Credentials;
use threadsocks::protocol::{Destination, ReplyError};

use crate::support::dns_server::{NameServer, addresses};
use crate::support::endpoints::{
    Origin, by_address, by_name, dial, dial_from, read_all, read_exactly, read_until_reset, write,
};
use crate::support::netns::{Network, in_own_network};
use crate::support::proxy::{Proxy, binary};
use crate::support::wait::TIMEOUT;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Denies this machine and one IPv4 network; permits all other destinations.
const RULES: &str = "deny - 127.0.0.0/8\ndeny - 10.1.0.0/16\npermit - -\n";

/// An origin at this address, which the machine gets for it.
fn origin_at(network: &Network, address: &str) -> Origin {
    network.ip(&format!("addr add {address}/128 dev lo nodad"));
    let address: Ipv6Addr = address.parse().expect("an address");
    Origin::start_at(address.into(), drop)
}

/// The outcome of a CONNECT, and the address that the screen message shows.
fn connect(proxy: &Proxy, destination: &Destination) -> (Result<(), ReplyError>, String) {
    let client = dial(proxy.address());
    let own = client.local_addr().unwrap();
    let outcome = match socks5::connect(client, None, destination) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    (outcome, proxy.screen_message_for(own).destination)
}

#[test]
fn x11_a_nat64_address_is_judged_as_ipv4_and_dialled_as_it_is() {
    in_own_network(|network| {
        let [public, denied, loopback] =
            ["64:ff9b::a09:909", "64:ff9b::a01:203", "64:ff9b::7f00:1"];
        let [to_public, to_denied, to_loopback] =
            [public, denied, loopback].map(|address| origin_at(network, address).destination());
        // What DNS64 gives for names without an IPv6 address (RFC 6147).
        let _names = NameServer::start(move |query| match query.name.as_str() {
            "public.test" => addresses(&[public]),
            "denied.test" => addresses(&[denied]),
            _ => addresses(&[loopback]),
        });
        let proxy = Proxy::start(RULES, &[]);
        for (destination, outcome, shown) in [
            (to_public.clone(), Ok(()), public),
            (to_denied, Err(ReplyError::NotAllowed), denied),
            (to_loopback, Err(ReplyError::NotAllowed), loopback),
            (by_name("public.test", to_public.port), Ok(()), public),
            (
                by_name("denied.test", 80),
                Err(ReplyError::NotAllowed),
                denied,
            ),
            (
                by_name("loopback.test", 80),
                Err(ReplyError::NotAllowed),
                loopback,
            ),
        ] {
            let expected = (outcome, shown.to_owned());
            assert_eq!(connect(&proxy, &destination), expected, "{destination}");
        }
        proxy.finish();
    });
}

#[test]
fn x12_a_networks_own_nat64_prefix_is_judged_as_ipv4_too() {
    in_own_network(|network| {
        let denied = origin_at(network, "2001:db8:64::a01:203").destination();
        let local = origin_at(network, "64:ff9b:1::a01:203").destination();
        let refused = |error| Err(error);
        for (options, own, of_rfc_8215) in [
            (
                &["--nat64", "2001:db8:64::/96", "--nat64", "64:ff9b:1::/96"][..],
                refused(ReplyError::NotAllowed),
                refused(ReplyError::NotAllowed),
            ),
            // Without the option the first is any address, and the second is refused.
            (&[], Ok(()), refused(ReplyError::Rejected)),
        ] {
            let proxy = Proxy::start(RULES, options);
            assert_eq!(connect(&proxy, &denied).0, own);
            assert_eq!(connect(&proxy, &local).0, of_rfc_8215);
            proxy.finish();
        }
    });
}

#[test]
fn x13_other_ipv6_forms_of_ipv4_are_refused() {
    in_own_network(|network| {
        let forms = [
            "::ffff:0:a09:909",
            "fe80::5efe:a09:909",
            "2001:db8::200:5efe:a09:909",
            "2002:a09:909::1",
        ];
        let proxy = Proxy::start("permit - -\n", &["--bind", "::"]);
        for form in forms {
            // An address of the machine, so that a connection would not fail.
            network.ip(&format!("addr add {form}/128 dev lo nodad"));
            let address: Ipv6Addr = form.parse().unwrap();
            let destination = by_address((address, 80).into());
            let refused = Err(ReplyError::Rejected);
            assert_eq!(connect(&proxy, &destination).0, refused, "{form}");
            let client = dial((LOCALHOST, proxy.port()).into());
            let bind = socks5::bind(client, None, &destination).map(|_| ());
            assert!(matches!(bind, Err(ClientError::Refused(_))), "{bind:?}");
        }
        // A peer that comes from such an address is not accepted either.
        let any_peer = by_address((Ipv6Addr::UNSPECIFIED, 0).into());
        let binding = socks5::bind(dial((LOCALHOST, proxy.port()).into()), None, &any_peer);
        let binding = binding.expect("listening");
        let from: Ipv6Addr = forms[2].parse().unwrap();
        let peer = dial_from((from, 0).into(), (from, binding.address.port).into());
        let refused = binding.wait().map(|_| ());
        assert!(
            matches!(refused, Err(ClientError::Refused(_))),
            "{refused:?}"
        );
        assert_eq!(read_all(&peer), b"");
        proxy.finish();
    });
}

#[test]
fn x11_a_bind_peer_with_a_nat64_address_is_judged_as_ipv4() {
    in_own_network(|network| {
        for address in ["64:ff9b::a09:909", "64:ff9b::a01:203"] {
            network.ip(&format!("addr add {address}/128 dev lo nodad"));
        }
        let proxy = Proxy::start(RULES, &["--bind", "::"]);
        for (from, is_accepted) in [("64:ff9b::a09:909", true), ("64:ff9b::a01:203", false)] {
            let any_peer = by_address((Ipv6Addr::UNSPECIFIED, 0).into());
            let client = dial((LOCALHOST, proxy.port()).into());
            let binding = socks5::bind(client, None, &any_peer).expect("listening");
            let from: Ipv6Addr = from.parse().unwrap();
            let _peer = dial_from((from, 0).into(), (from, binding.address.port).into());
            assert_eq!(binding.wait().is_ok(), is_accepted, "{from}");
        }
        proxy.finish();
    });
}

/// A UDP socket at this address, which the machine gets for it.
fn udp_origin_at(network: &Network, address: &str) -> UdpSocket {
    network.ip(&format!("addr add {address}/128 dev lo nodad"));
    let address: Ipv6Addr = address.parse().expect("an address");
    let socket = UdpSocket::bind((address, 0)).expect("a port");
    socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    socket
}

#[test]
fn x11_datagrams_to_nat64_addresses_are_judged_as_ipv4() {
    in_own_network(|network| {
        let public = udp_origin_at(network, "64:ff9b::a09:909");
        let denied = udp_origin_at(network, "64:ff9b::a01:203");
        let translated = udp_origin_at(network, "::ffff:0:a09:909");
        let proxy = Proxy::start(RULES, &["-v"]);
        let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let from = socket.local_addr().unwrap();
        let control = dial(proxy.address());
        let association: Association<_> =
            socks5::associate(control, None, LOCALHOST.into(), from).expect("granted");
        let address_of = |origin: &UdpSocket| by_address(origin.local_addr().unwrap());
        for origin in [&denied, &translated, &public] {
            association
                .send(&socket, b"question", &address_of(origin))
                .unwrap();
        }
        // UDP on loopback keeps the order: the first two were dropped before.
        let mut buffer = [0; 100];
        let (count, server): (usize, SocketAddr) = public.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"question");
        public.send_to(b"answer", server).unwrap();
        let received = association.receive(&socket, &mut buffer);
        // The client learns the address to which it has sent.
        assert_eq!(received.unwrap(), (address_of(&public), &b"answer"[..]));
        drop(association);
        proxy.stderr_line("denied=1 dropped=1");
        proxy.finish();
    });
}

#[test]
fn x11_enforce_and_explain_judge_nat64_addresses_as_ipv4() {
    in_own_network(|network| {
        network.ip("addr add 64:ff9b::a09:909/128 dev lo nodad");
        let address: Ipv6Addr = "64:ff9b::a09:909".parse().unwrap();
        let origin = Origin::start_at(address.into(), |stream| {
            drop(read_until_reset(&stream));
        });
        let proxy = Proxy::start(RULES, &["--enforce"]);
        let client = socks5::connect(dial(proxy.address()), None, &origin.destination());
        let (client, _) = client.expect("granted");
        std::fs::write(proxy.config(), "deny - 10.9.9.9\npermit - -\n").unwrap();
        assert_eq!(read_until_reset(&client), b"");
        proxy.stderr_line("no longer permitted: rule on line 1 denies it");
        let config = proxy.config();
        let explained = binary()
            .args(["--explain", "c 127.0.0.1 64:ff9b::10.9.9.9 80", "--config"])
            .arg(&config)
            .output()
            .expect("the program starts");
        let explained = String::from_utf8(explained.stdout).unwrap();
        let expected = "deny: CONNECT from 127.0.0.1 to [64:ff9b::a09:909]:80 \
                        (judged as 10.9.9.9), by ";
        assert!(explained.starts_with(expected), "{explained}");
        proxy.finish();
    });
}

#[test]
fn x11_x12_the_address_of_a_client_is_judged_as_ipv4_unless_it_is_local() {
    in_own_network(|network| {
        network.ip("-6 route add local 64:ff9b::/96 dev lo");
        network.ip("-6 route add local 2001:db8:64::/96 dev lo");
        network.set("../ipv6/ip_nonlocal_bind", "1");
        let options = ["--bind", "::", "--nat64", "2001:db8:64::/96"];
        let proxy = Proxy::start("deny - 203.0.113.5 - - -\npermit - - - - -\n", &options);
        let origin = Origin::echo().destination();
        let connect_from = |proxy: &Proxy, from: &str| {
            let from: Ipv6Addr = from.parse().unwrap();
            let client = dial_from((from, 0).into(), (from, proxy.port()).into());
            socks5::connect(client, None, &origin).is_ok()
        };
        for (from, is_permitted) in [
            ("64:ff9b::203.0.113.5", false),
            ("2001:db8:64::203.0.113.5", false),
            ("64:ff9b::203.0.113.6", true),
            ("2001:db8:64::203.0.113.6", true),
        ] {
            assert_eq!(connect_from(&proxy, from), is_permitted, "{from}");
        }
        proxy.finish();
        let rules = "permit - 203.0.113.6 - - -\npermit - loopback - - -\n\
                     permit - metadata - - -\npermit - linklocal - - -\n";
        let proxy = Proxy::start(rules, &options);
        for (from, is_permitted) in [
            ("64:ff9b::203.0.113.6", true),
            ("2001:db8:64::203.0.113.6", true),
            ("64:ff9b::127.0.0.1", false),
            ("2001:db8:64::127.0.0.1", false),
            ("64:ff9b::169.254.169.254", false),
        ] {
            assert_eq!(connect_from(&proxy, from), is_permitted, "{from}");
        }
        proxy.finish();
    });
}

#[test]
fn x11_x12_rules_with_nat64_addresses_are_for_the_ipv4_addresses_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    let check = |text: &str, options: &[&str]| {
        std::fs::write(&rules, text).unwrap();
        let mut command = binary();
        let command = command.args(["--check", "-c"]).arg(&rules).args(options);
        let output = command.output().expect("the program starts");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let text = "permit c 64:ff9b::a00:5 - 64:ff9b::10.1.0.0/112 -\n\
                permit c 2001:db8:64::10.0.0.5\npermit c 2001:db8::/32\n";
    let report = check(text, &[]);
    assert!(
        report.contains("1: permit c 10.0.0.5 - 10.1.0.0/16 -\n"),
        "{report}"
    );
    assert!(
        report.contains("2: permit c - - 2001:db8:64::a00:5 -\n"),
        "{report}"
    );
    let own = ["--nat64", "2001:db8:64::/96"];
    let report = check(text, &own);
    let error = "rules:2: addresses with a prefix of --nat64 are judged as the IPv4 addresses in";
    assert!(report.contains(error), "{report}");
    for (column, is_refused) in [
        ("2001:db8:64::/96 - -", true),
        ("- - 2001:db8:64::/112", true),
        ("- - 2001:db8:64::/95", false),
        ("- - 2001:db8:65::/96", false),
    ] {
        let report = check(&format!("permit c {column}\n"), &own);
        assert_eq!(report.contains("--nat64"), is_refused, "{report}");
    }
    // A changed file is refused as well.
    let proxy = Proxy::start("permit c 127.\n", &own);
    std::fs::write(proxy.config(), text).unwrap();
    proxy.signal(nix::sys::signal::Signal::SIGHUP);
    proxy.stderr_line("socks.conf:2: addresses with a prefix of --nat64");
    proxy.finish();
}

/// Clients with the same NAT64 prefix, as behind a gateway that translates IPv4 clients.
const TRANSLATED: [&str; 3] = [
    "64:ff9b::cb00:7101",
    "64:ff9b::cb00:7102",
    "2001:db8:64::cb00:7103",
];

/// Starts a server for [`TRANSLATED`] clients, which log in as one of these users. Returns a
/// function that connects from one of these addresses.
fn server_of_translated(
    network: &Network,
    folder: &Path,
    options: &[&str],
) -> (Proxy, impl Fn(&str) -> TcpStream) {
    for client in TRANSLATED {
        network.ip(&format!("addr add {client}/128 dev lo nodad"));
    }
    let users = folder.join("users");
    fs::write(&users, users_file_line("bob", b"secret").unwrap()).unwrap();
    let all = ["-b", "::", "--nat64", "2001:db8:64::/96", "--users"];
    let all = [&all[..], &[users.to_str().unwrap()], options].concat();
    let proxy = Proxy::start("permit - -\n", &all);
    let server = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), proxy.port());
    let dial = move |client: &str| dial_from(SocketAddr::new(client.parse().unwrap(), 0), server);
    (proxy, dial)
}

/// Greets the server, which requires a login.
fn greet(client: &TcpStream) {
    write(client, &[5, 1, 2]);
    assert_eq!(read_exactly(client, 2), [5, 2]);
}

fn send_login(client: &TcpStream, user: &str, password: &str) {
    let (user, password) = (user.into(), password.into());
    write(client, &Credentials { user, password }.encode());
}

#[test]
fn s54_clients_behind_nat64_are_counted_by_their_ipv4_addresses() {
    in_own_network(|network| {
        let folder = tempfile::tempdir().unwrap();
        let (proxy, dial) =
            server_of_translated(network, folder.path(), &["--max-per-client", "1"]);
        let sessions = TRANSLATED.map(|client| {
            let session = dial(client);
            greet(&session);
            session
        });
        // A second session of the first client.
        assert_eq!(read_all(&dial(TRANSLATED[0]))[..2], [0, 91]);
        proxy.stderr_line("--max-per-client 1");
        drop(sessions);
        proxy.finish();
    });
}

/// Of twelve guesses at one address, six wait. The user does not wait for them at another address.
#[test]
fn s54_a_guesser_behind_nat64_does_not_delay_others() {
    in_own_network(|network| {
        let folder = tempfile::tempdir().unwrap();
        let (proxy, dial) = server_of_translated(network, folder.path(), &[]);
        let guesses: Vec<TcpStream> = (0..12).map(|_| dial(TRANSLATED[0])).collect();
        for guess in &guesses {
            greet(guess);
            send_login(guess, "bob", "wrong");
        }
        let user = dial(TRANSLATED[1]);
        greet(&user);
        send_login(&user, "bob", "secret");
        assert_eq!(read_exactly(&user, 2), [1, 0]);
        let is_unanswered = |guess: &&TcpStream| {
            guess.set_nonblocking(true).unwrap();
            let peeked = guess.peek(&mut [0]);
            peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        // Six are answered at once, and then one every two seconds.
        let unanswered = guesses.iter().filter(is_unanswered).count();
        assert!(unanswered >= 3, "{unanswered}");
        drop((guesses, user));
        proxy.finish();
    });
}
