//! The baseline: a relay of two threads a connection that does nothing but `std::io::copy`.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use threadsocks::protocol::socks4::{Reply, Request};

/// Serves until whoever started it has gone.
pub(crate) fn serve(port: u16) {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    for client in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || {
            // A client that breaks its connection is none of our business.
            let _ = relay(&client);
        });
    }
}

fn relay(client: &TcpStream) -> io::Result<()> {
    // A client of ours sends nothing after the request before it is granted.
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

/// Everything from one to the other, and the end of it.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}
