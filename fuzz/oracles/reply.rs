//! A reply is the same in any pieces, and our client believes exactly what it says.

use std::net::{Ipv4Addr, SocketAddrV4};

use threadsocks::client::{self, ClientError};
use threadsocks::protocol::socks4::{REPLY_LENGTH, Reply, Request};
use threadsocks::protocol::{Destination, Host, ProtocolError, ReadError, ReplyError};

use super::pieces::{Stream, cuttings};
use super::server::Server;

/// The oracle.
pub fn holds(bytes: &[u8]) {
    for pieces in cuttings(bytes) {
        let mut stream = Stream::new(pieces.clone());
        let reply = Reply::read(&mut stream);
        assert_eq!(stream.taken, bytes.len().min(REPLY_LENGTH), "{pieces:?}");
        believed(bytes, &reply);
        through_the_client(bytes, pieces);
    }
}

/// What the protocol sheet says of these bytes.
fn meaning(bytes: &[u8]) -> Result<Reply, Option<ProtocolError>> {
    let Some(&[version, code, p1, p0, a, b, c, d]) = bytes.first_chunk::<REPLY_LENGTH>() else {
        return Err(None);
    };
    let outcome = match (version, code) {
        (0, 90) => Ok(()),
        (0, 91) => Err(ReplyError::Rejected),
        (0, 92) => Err(ReplyError::IdentFailed),
        (0, 93) => Err(ReplyError::UserMismatch),
        (0, code) => return Err(Some(ProtocolError::ReplyCode(code))),
        (version, _) => return Err(Some(ProtocolError::Version(version))),
    };
    let port = u16::from(p1) << 8 | u16::from(p0);
    let address = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port);
    Ok(Reply { outcome, address })
}

fn believed(bytes: &[u8], reply: &Result<Reply, ReadError>) {
    match (meaning(bytes), reply) {
        (Ok(meant), Ok(reply)) => {
            assert_eq!(*reply, meant);
            assert_eq!(
                reply.encode(),
                bytes[..REPLY_LENGTH],
                "encode(read) differs"
            );
        }
        (Err(Some(meant)), Err(ReadError::Protocol(why))) => assert_eq!(*why, meant),
        (Err(None), Err(ReadError::Incomplete(received, _))) => assert_eq!(*received, bytes.len()),
        (meant, read) => panic!("{read:?} instead of {meant:?}"),
    }
}

/// The client gives the stream back where the reply ends, or says why not.
fn through_the_client(bytes: &[u8], pieces: Vec<&[u8]>) {
    let host = Host::from_name(b"a.org");
    let target = Destination { host, port: 80 };
    match (
        client::socks4::connect(Server::new(pieces.clone()), &target, b"me"),
        meaning(bytes),
    ) {
        (
            Ok(server),
            Ok(Reply {
                outcome: Ok(()), ..
            }),
        ) => {
            let (request, _) = Request::decode(&server.heard).unwrap().expect("a request");
            assert_eq!(
                (request.target(), &request.user[..]),
                (target.clone(), &b"me"[..])
            );
            assert_eq!(server.says.taken, REPLY_LENGTH);
        }
        (Err(ClientError::Refused(why)), Ok(reply)) => assert_eq!(Err(why), reply.outcome),
        (Err(ClientError::NoReply(unread)), Err(_)) => believed(bytes, &Err(unread)),
        (connected, meant) => panic!("{:?} for {meant:?}", connected.err()),
    }
    // BIND reads two, one behind the other.
    if let Ok(binding) = client::socks4::bind(Server::new(pieces), &target, b"") {
        assert_eq!(
            meaning(bytes),
            Ok(Reply {
                outcome: Ok(()),
                address: binding.address
            })
        );
        let second = &bytes[REPLY_LENGTH..];
        match (binding.wait(), meaning(second)) {
            (Ok((server, peer)), Ok(reply)) => {
                assert_eq!(
                    reply,
                    Reply {
                        outcome: Ok(()),
                        address: peer
                    }
                );
                assert_eq!(server.says.taken, 2 * REPLY_LENGTH);
            }
            (Err(ClientError::Refused(why)), Ok(reply)) => assert_eq!(Err(why), reply.outcome),
            (Err(ClientError::NoReply(unread)), Err(_)) => believed(second, &Err(unread)),
            (waited, meant) => panic!("{:?} for {meant:?}", waited.err()),
        }
    }
}
