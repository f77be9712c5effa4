//! L3: does `examples/shell_server` keep its limit on clients, whatever ends a session?

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::mend::Verdict;
use crate::server::{Server, TIMEOUT};

/// The limit that the judge asks for.
const LIMIT: usize = 3;

/// Clients that come at the same time.
const SIMULTANEOUS_CLIENTS: usize = 40;

/// What ends a session.
const ENDS: [&str; 4] = ["exit", "EOF", "reset", "panic"];

/// Starts the example of the student and judges it.
pub(crate) fn judge() -> Result<Verdict, String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--example", "shell_server", "--"]);
    cargo.args(["--max-clients", &LIMIT.to_string(), "0"]);
    let server = Server::start(cargo)?;
    match check(&server) {
        Ok(()) => {
            println!("passed: at most {LIMIT} clients, and every slot comes back");
            Ok(Verdict::Passed)
        }
        Err(error) => {
            println!("failed: {error}");
            Ok(Verdict::Failed)
        }
    }
}

fn check(server: &Server) -> Result<(), String> {
    let mut served = full(server, "at the start")?;
    for end in ENDS {
        for _ in 0..LIMIT {
            finish(served.remove(0), end)?;
            let next = wait_for_slot(server);
            served.push(next.ok_or(format!("no slot is free after a session ended by {end}"))?);
        }
        if is_served(&server.connect()?) {
            return Err(format!(
                "after {LIMIT} sessions ended by {end}, {} clients are served",
                LIMIT + 1
            ));
        }
    }
    println!(
        "{LIMIT} clients are served, and the next one after each end: {}",
        ENDS.join(", ")
    );
    drop(served);
    let first = wait_for_slot(server).ok_or("no slot is free after all clients have left")?;
    finish(first, "exit")?;
    check_simultaneous_clients(server)
}

/// As many clients as the limit permits; the next one is not served.
fn full(server: &Server, when: &str) -> Result<Vec<TcpStream>, String> {
    let mut served = Vec::new();
    for number in 1..=LIMIT {
        let client = server.connect()?;
        if !is_served(&client) {
            return Err(format!("{when}, client {number} of {LIMIT} gets no prompt"));
        }
        served.push(client);
    }
    if is_served(&server.connect()?) {
        return Err(format!(
            "{when}, client {} is served, and the limit is {LIMIT}",
            LIMIT + 1
        ));
    }
    Ok(served)
}

/// Many clients at once: those that are served stay until all have their answer.
fn check_simultaneous_clients(server: &Server) -> Result<(), String> {
    let clients: Vec<TcpStream> = (0..SIMULTANEOUS_CLIENTS)
        .map(|_| server.connect())
        .collect::<Result<_, _>>()?;
    let served = thread::scope(|scope| {
        let ask = |client| scope.spawn(move || is_served(client));
        let threads: Vec<_> = clients.iter().map(ask).collect();
        threads
            .into_iter()
            .filter_map(|it| it.join().ok())
            .filter(|it| *it)
            .count()
    });
    println!("{SIMULTANEOUS_CLIENTS} clients at once: {served} are served");
    match served > LIMIT {
        true => Err(format!(
            "{served} clients are served, and the limit is {LIMIT}"
        )),
        false => Ok(()),
    }
}

/// Does the client get a prompt? False if its connection ends before one.
fn is_served(mut client: &TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"% ") {
        match client.read(&mut byte) {
            Ok(1) => seen.extend(byte),
            _ => return false,
        }
    }
    true
}

/// Tries until a client is served: the server notices the end of a session a little later.
fn wait_for_slot(server: &Server) -> Option<TcpStream> {
    let began = Instant::now();
    while began.elapsed() < TIMEOUT {
        let client = server.connect().ok()?;
        if is_served(&client) {
            return Some(client);
        }
    }
    None
}

/// Ends the session of this client.
fn finish(mut client: TcpStream, end: &str) -> Result<(), String> {
    let done = match end {
        "EOF" => client.shutdown(Shutdown::Write),
        // A socket that is closed with unread bytes sends a reset.
        "reset" => client
            .write_all(b"ls\n")
            .and_then(|()| client.peek(&mut [0]).map(drop)),
        word => client.write_all(format!("{word}\n").as_bytes()),
    };
    done.map_err(|error| format!("a client that ends by {end}: {error}"))
}
