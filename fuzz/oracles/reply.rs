//! A SOCKS4 reply is read the same from any chunks, and the client library reports its code.

use std::net::{Ipv4Addr, SocketAddrV4};

use threadsocks::client::{self, ClientError};
use threadsocks::protocol::socks4::{REPLY_LENGTH, Reply, Request};
use threadsocks::protocol::{Destination, Host, ProtocolError, ReadError, ReplyError};

use super::chunks::{ChunkedStream, chunkings};
use super::scripted_server::ScriptedServer;

/// Compares `Reply::read` and the client library with the model, for all chunkings.
pub fn check(bytes: &[u8]) {
    for chunks in chunkings(bytes) {
        let mut stream = ChunkedStream::new(chunks.clone());
        let reply = Reply::read(&mut stream);
        assert_eq!(stream.consumed, bytes.len().min(REPLY_LENGTH), "{chunks:?}");
        check_read(bytes, &reply);
        check_client(bytes, chunks);
    }
}

/// The reply by SOCKS4.protocol; `Err(None)` if bytes are missing.
fn model(bytes: &[u8]) -> Result<Reply, Option<ProtocolError>> {
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

fn check_read(bytes: &[u8], reply: &Result<Reply, ReadError>) {
    match (model(bytes), reply) {
        (Ok(expected), Ok(reply)) => {
            assert_eq!(*reply, expected);
            assert_eq!(
                reply.encode(),
                bytes[..REPLY_LENGTH],
                "encode(read) differs"
            );
        }
        (Err(Some(expected)), Err(ReadError::Protocol(error))) => assert_eq!(*error, expected),
        (Err(None), Err(ReadError::Incomplete(received, _))) => assert_eq!(*received, bytes.len()),
        (expected, result) => panic!("{result:?}, expected {expected:?}"),
    }
}

/// The client library returns the stream at the end of the reply, or the error of the reply.
fn check_client(bytes: &[u8], chunks: Vec<&[u8]>) {
    let host = Host::from_name(b"a.org");
    let destination = Destination { host, port: 80 };
    match (
        client::socks4::connect(ScriptedServer::new(chunks.clone()), &destination, b"me"),
        model(bytes),
    ) {
        (
            Ok(server),
            Ok(Reply {
                outcome: Ok(()), ..
            }),
        ) => {
            let (request, _) = Request::decode(&server.received)
                .unwrap()
                .expect("a request");
            assert_eq!(
                (request.destination(), &request.user[..]),
                (destination.clone(), &b"me"[..])
            );
            assert_eq!(server.output.consumed, REPLY_LENGTH);
        }
        (Err(ClientError::Refused(error)), Ok(reply)) => assert_eq!(Err(error), reply.outcome),
        (Err(ClientError::NoReply(error)), Err(_)) => check_read(bytes, &Err(error)),
        (result, expected) => panic!("{:?}, expected {expected:?}", result.err()),
    }
    // BIND reads two replies, one after the other.
    if let Ok(binding) = client::socks4::bind(ScriptedServer::new(chunks), &destination, b"") {
        assert_eq!(
            model(bytes),
            Ok(Reply {
                outcome: Ok(()),
                address: binding.address
            })
        );
        let second = &bytes[REPLY_LENGTH..];
        match (binding.wait(), model(second)) {
            (Ok((server, peer)), Ok(reply)) => {
                assert_eq!(
                    reply,
                    Reply {
                        outcome: Ok(()),
                        address: peer
                    }
                );
                assert_eq!(server.output.consumed, 2 * REPLY_LENGTH);
            }
            (Err(ClientError::Refused(error)), Ok(reply)) => assert_eq!(Err(error), reply.outcome),
            (Err(ClientError::NoReply(error)), Err(_)) => check_read(second, &Err(error)),
            (result, expected) => panic!("{:?}, expected {expected:?}", result.err()),
        }
    }
}
