//! Every SOCKS5 message is read the same from any chunks, and encodes to the same bytes.

use std::fmt::Debug;
use std::io;

use threadsocks::client::{ClientError, socks5};
use threadsocks::protocol::socks5::{
    AuthStatus, Credentials, Greeting, MethodSelection, Reply, Request, UdpHeader,
};
use threadsocks::protocol::{Command, Destination, Host, ProtocolError, ReadError};

use super::chunks::{ChunkedStream, chunkings};
use super::request::host_of_name_field;
use super::scripted_server::ScriptedServer;

/// Reads one of seven messages. The first byte selects the message; the others are its bytes.
pub fn check(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 7 {
        0 => {
            let greeting = read_consistently(bytes, |stream| Greeting::read(stream));
            if let Some((greeting, length)) = greeting {
                assert_eq!(greeting.encode(), bytes[..length]);
                assert_eq!(length, 2 + greeting.methods.len());
            }
        }
        1 => {
            let selection = read_consistently(bytes, |stream| MethodSelection::read(stream));
            if let Some((selection, length)) = selection {
                assert_eq!(selection.encode(), bytes[..length]);
            }
        }
        2 => {
            let credentials = read_consistently(bytes, |stream| Credentials::read(stream));
            if let Some((credentials, length)) = credentials {
                assert_eq!(credentials.encode(), bytes[..length]);
                assert_eq!(
                    length,
                    3 + credentials.user.len() + credentials.password.len()
                );
            }
        }
        3 => {
            let status = read_consistently(bytes, |stream| AuthStatus::read(stream));
            if let Some((status, length)) = status {
                assert_eq!(length, 2);
                assert_eq!(status == AuthStatus::Accepted, bytes[1] == 0);
            }
        }
        4 => check_request(bytes),
        5 => {
            check_reply(bytes);
            check_client(bytes);
        }
        _ => check_datagram(bytes),
    }
}

/// Reads a message from all chunkings: the message and its length in bytes, or `None` if the
/// bytes are no message. All chunkings must have the same result.
fn read_consistently<T: Debug + PartialEq>(
    bytes: &[u8],
    read: fn(&mut ChunkedStream<'_>) -> Result<T, ReadError>,
) -> Option<(T, usize)> {
    let mut first: Option<(Result<T, Option<ProtocolError>>, usize)> = None;
    for chunks in chunkings(bytes) {
        let mut stream = ChunkedStream::new(chunks.clone());
        let result = read(&mut stream).map_err(|error| match error {
            ReadError::Protocol(error) => Some(error),
            ReadError::Incomplete(received, source) => {
                assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
                assert_eq!((received, stream.consumed), (bytes.len(), bytes.len()));
                None
            }
        });
        // After an error, the number of consumed bytes may depend on the chunks.
        let length = if result.is_ok() { stream.consumed } else { 0 };
        match &first {
            None => first = Some((result, length)),
            Some(first) => assert_eq!(*first, (result, length), "{chunks:?}"),
        }
    }
    let (result, length) = first?;
    Some((result.ok()?, length))
}

fn check_request(bytes: &[u8]) {
    let Some((request, length)) = read_consistently(bytes, |stream| Request::read(stream)) else {
        return;
    };
    let command = match request.command {
        Command::Connect => 1,
        Command::Bind => 2,
        Command::Associate => 3,
    };
    assert_eq!(bytes[..3], [5, command, 0]);
    check_destination(&request.destination, &bytes[3..length]);
    let encoded = request.encode();
    let again = Request::decode(&encoded).expect("a valid encoding");
    assert_eq!(again, Some((request, encoded.len())));
}

fn check_reply(bytes: &[u8]) {
    let Some((reply, length)) = read_consistently(bytes, |stream| Reply::read(stream)) else {
        return;
    };
    assert_eq!((bytes[0], bytes[2]), (5, 0));
    assert_eq!(reply.outcome.is_ok(), bytes[1] == 0);
    assert!(bytes[1] <= 8);
    check_destination(&reply.bound, &bytes[3..length]);
    let encoded = reply.encode();
    assert_eq!(encoded[1], bytes[1]);
    let again = Reply::decode(&encoded).expect("a valid encoding");
    assert_eq!(again, Some((reply, encoded.len())));
}

/// The client library returns the stream at the end of the reply, or the error of the reply.
fn check_client(bytes: &[u8]) {
    let host = Host::from_name(b"a.org");
    let destination = Destination { host, port: 80 };
    let output = [&[5, 0], bytes].concat();
    let expected = Reply::decode(bytes);
    for chunks in chunkings(&output) {
        let result = socks5::connect(ScriptedServer::new(chunks), None, &destination);
        match (result, &expected) {
            (Ok((server, bound)), Ok(Some((reply, length)))) => {
                assert_eq!(bound, reply.bound);
                assert_eq!(reply.outcome, Ok(()));
                assert_eq!(server.output.consumed, 2 + length);
                let request = server
                    .received
                    .strip_prefix(&[5, 1, 0])
                    .expect("a greeting");
                let (request, _) = Request::decode(request).unwrap().expect("a request");
                assert_eq!(request.destination, destination);
            }
            (Err(ClientError::Refused(error)), Ok(Some((reply, _)))) => {
                assert_eq!(reply.outcome, Err(error));
            }
            (Err(ClientError::NoReply(ReadError::Protocol(error))), Err(expected)) => {
                assert_eq!(error, *expected);
            }
            (Err(ClientError::NoReply(ReadError::Incomplete(received, _))), Ok(None)) => {
                assert_eq!(received, bytes.len());
            }
            (result, expected) => panic!("{:?}, expected {expected:?}", result.err()),
        }
    }
}

fn check_datagram(bytes: &[u8]) {
    let Ok((header, data)) = UdpHeader::split(bytes) else {
        return;
    };
    let (head, rest) = bytes.split_at(bytes.len() - data.len());
    assert_eq!(rest, data);
    assert_eq!(head[..3], [0, 0, header.fragment]);
    check_destination(&header.destination, &head[3..]);
    let encoded = header.encode();
    assert_eq!(UdpHeader::split(&encoded), Ok((header, &[][..])));
}

/// ATYP, address and port (RFC 1928, section 5), read from the end of the bytes.
fn check_destination(destination: &Destination, bytes: &[u8]) {
    let (rest, port) = bytes.split_at(bytes.len() - 2);
    assert_eq!(destination.port.to_be_bytes(), port);
    let (address_type, address) = rest.split_first().expect("an address type");
    let host = match (address_type, address.len()) {
        (1, 4) => {
            let octets: [u8; 4] = address.try_into().expect("four bytes");
            Host::Address(octets.into())
        }
        (4, 16) => {
            let octets: [u8; 16] = address.try_into().expect("sixteen bytes");
            Host::Address(octets.into())
        }
        (3, length) => {
            assert_eq!(usize::from(address[0]), length - 1);
            host_of_name_field(&address[1..])
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(destination.host, host);
}
