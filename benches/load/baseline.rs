//! The baseline, contender `plain`: a SOCKS4 relay with two threads per connection and `std::io::copy`.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use threadsocks::protocol::socks4::{Reply, Request};

/// Serves until stdin reports EOF: the parent process holds the other end of that
/// pipe, so the relay ends with its parent.
pub(crate) fn serve(port: u16) {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("listen on the given port");
    for client in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || {
            // The load generator reports a failed connection at its own end.
            let _ = relay(&client);
        });
    }
}

fn relay(client: &TcpStream) -> io::Result<()> {
    // Dropping the `BufReader` loses no byte: the load generator sends nothing
    // between its request and the reply.
    let request = Request::read(&mut BufReader::with_capacity(64, client));
    let request = request.map_err(|reason| io::Error::other(reason.to_string()))?;
    let remote = TcpStream::connect(request.address)?;
    client.set_nodelay(true)?;
    remote.set_nodelay(true)?;
    let granted = Reply {
        outcome: Ok(()),
        address: request.address,
    };
    { client }.write_all(&granted.encode())?;
    thread::scope(|scope| {
        scope.spawn(|| copy(&remote, client));
        copy(client, &remote);
    });
    Ok(())
}

/// Copies until EOF and passes it on as a FIN. After an error it shuts down both
/// sockets, which ends the copy in the other direction.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}
