//! Every SOCKS5 message is the same in any pieces, takes no byte too much, and is read back.

use std::fmt::Debug;
use std::io;

use threadsocks::client::{ClientError, socks5};
use threadsocks::protocol::socks5::{
    AuthStatus, Credentials, Greeting, MethodSelection, Reply, Request, UdpHeader,
};
use threadsocks::protocol::{Command, Destination, Host, ProtocolError, ReadError};

use super::pieces::{Stream, cuttings};
use super::server::Server;

/// The oracle: the first byte says which message the others are.
pub fn holds(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 7 {
        0 => {
            let greeting = same(bytes, |stream| Greeting::read(stream));
            if let Some((greeting, taken)) = greeting {
                assert_eq!(greeting.encode(), bytes[..taken]);
                assert_eq!(taken, 2 + greeting.methods.len());
            }
        }
        1 => {
            let choice = same(bytes, |stream| MethodSelection::read(stream));
            if let Some((choice, taken)) = choice {
                assert_eq!(choice.encode(), bytes[..taken]);
            }
        }
        2 => {
            let login = same(bytes, |stream| Credentials::read(stream));
            if let Some((login, taken)) = login {
                assert_eq!(login.encode(), bytes[..taken]);
                assert_eq!(taken, 3 + login.user.len() + login.password.len());
            }
        }
        3 => {
            let admission = same(bytes, |stream| AuthStatus::read(stream));
            if let Some((admission, taken)) = admission {
                assert_eq!(taken, 2);
                assert_eq!(admission == AuthStatus::Accepted, bytes[1] == 0);
            }
        }
        4 => request(bytes),
        5 => {
            reply(bytes);
            through_the_client(bytes);
        }
        _ => datagram(bytes),
    }
}

/// A message read from any pieces, and the bytes it took; `None` if there is none.
fn same<T: Debug + PartialEq>(
    bytes: &[u8],
    read: fn(&mut Stream<'_>) -> Result<T, ReadError>,
) -> Option<(T, usize)> {
    let mut first: Option<(Result<T, Option<ProtocolError>>, usize)> = None;
    for pieces in cuttings(bytes) {
        let mut stream = Stream::new(pieces.clone());
        let result = read(&mut stream).map_err(|unread| match unread {
            ReadError::Protocol(why) => Some(why),
            ReadError::Incomplete(received, error) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert_eq!((received, stream.taken), (bytes.len(), bytes.len()));
                None
            }
        });
        // Of what is no message it does not matter how far it was read.
        let taken = if result.is_ok() { stream.taken } else { 0 };
        match &first {
            None => first = Some((result, taken)),
            Some(first) => assert_eq!(*first, (result, taken), "{pieces:?}"),
        }
    }
    let (result, taken) = first?;
    Some((result.ok()?, taken))
}

fn request(bytes: &[u8]) {
    let Some((request, taken)) = same(bytes, |stream| Request::read(stream)) else {
        return;
    };
    let command = match request.command {
        Command::Connect => 1,
        Command::Bind => 2,
        Command::Associate => 3,
    };
    assert_eq!(bytes[..3], [5, command, 0]);
    means(&request.target, &bytes[3..taken]);
    let encoded = request.encode();
    let again = Request::decode(&encoded).expect("well formed");
    assert_eq!(again, Some((request, encoded.len())));
}

fn reply(bytes: &[u8]) {
    let Some((reply, taken)) = same(bytes, |stream| Reply::read(stream)) else {
        return;
    };
    assert_eq!((bytes[0], bytes[2]), (5, 0));
    assert_eq!(reply.outcome.is_ok(), bytes[1] == 0);
    assert!(bytes[1] <= 8);
    means(&reply.bound, &bytes[3..taken]);
    let encoded = reply.encode();
    assert_eq!(encoded[1], bytes[1]);
    let again = Reply::decode(&encoded).expect("well formed");
    assert_eq!(again, Some((reply, encoded.len())));
}

/// The client gives the stream back where the reply ends, or says why not.
fn through_the_client(bytes: &[u8]) {
    let host = Host::from_name(b"a.org");
    let target = Destination { host, port: 80 };
    let said = [&[5, 0], bytes].concat();
    let meant = Reply::decode(bytes);
    for pieces in cuttings(&said) {
        let asked = socks5::connect(Server::new(pieces), None, &target);
        match (asked, &meant) {
            (Ok(server), Ok(Some((reply, length)))) => {
                assert_eq!(reply.outcome, Ok(()));
                assert_eq!(server.says.taken, 2 + length);
                let request = server.heard.strip_prefix(&[5, 1, 0]).expect("a greeting");
                let (request, _) = Request::decode(request).unwrap().expect("a request");
                assert_eq!(request.target, target);
            }
            (Err(ClientError::Refused(why)), Ok(Some((reply, _)))) => {
                assert_eq!(reply.outcome, Err(why));
            }
            (Err(ClientError::NoReply(ReadError::Protocol(why))), Err(meant)) => {
                assert_eq!(why, *meant);
            }
            (Err(ClientError::NoReply(ReadError::Incomplete(received, _))), Ok(None)) => {
                assert_eq!(received, bytes.len());
            }
            (asked, meant) => panic!("{:?} for {meant:?}", asked.err()),
        }
    }
}

fn datagram(bytes: &[u8]) {
    let Ok((header, data)) = UdpHeader::split(bytes) else {
        return;
    };
    let (head, rest) = bytes.split_at(bytes.len() - data.len());
    assert_eq!(rest, data);
    assert_eq!(head[..3], [0, 0, header.fragment]);
    means(&header.target, &head[3..]);
    let encoded = header.encode();
    assert_eq!(UdpHeader::split(&encoded), Ok((header, &[][..])));
}

/// What ATYP, address and port say, read from their end.
fn means(target: &Destination, bytes: &[u8]) {
    let (front, port) = bytes.split_at(bytes.len() - 2);
    assert_eq!(target.port.to_be_bytes(), port);
    let (kind, address) = front.split_first().expect("a kind");
    let host = match (kind, address.len()) {
        (1, 4) => {
            let octets: [u8; 4] = address.try_into().expect("four");
            Host::Address(octets.into())
        }
        (4, 16) => {
            let octets: [u8; 16] = address.try_into().expect("sixteen");
            Host::Address(octets.into())
        }
        (3, length) => {
            assert_eq!(usize::from(address[0]), length - 1);
            let name = &address[1..];
            let text = std::str::from_utf8(name).unwrap_or_default();
            match text.parse::<std::net::Ipv6Addr>() {
                Ok(v6) => Host::Address(v6.into()),
                Err(_) => Host::from_name(name),
            }
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(target.host, host);
}
