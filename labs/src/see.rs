//! L0: a server with four clients; the answers of the student are compared with its table of
//! threads.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use crate::mend::Verdict;
use crate::server::Server;

/// The calls, as an answer names them.
const CALLS: [&str; 7] = [
    "poll",
    "futex",
    "signal",
    "read client",
    "read remote",
    "write client",
    "write remote",
];

/// Tables that are compared until two in a row are equal.
const MAX_TABLES: usize = 50;

/// A server with four clients, each of which has brought its threads to a certain call.
struct Scene {
    server: Server,
    remote: SocketAddr,
    /// Both ends of the clients and remotes stay open.
    _open: Vec<TcpStream>,
}

/// Name of a thread, and the call in which it is.
type Table = BTreeMap<String, String>;

impl Scene {
    fn start() -> Result<Scene, String> {
        // The tests have built the server already, and name it.
        let mut server = match env::var_os("LABS_SERVER") {
            Some(program) => Command::new(program),
            None => {
                let mut cargo = Command::new("cargo");
                cargo.args(["run", "--quiet", "--bin", "threadsocks", "--"]);
                cargo
            }
        };
        server.args(["--bind", "127.0.0.1", "--log", "none", "0"]);
        let server = Server::start(server)?;
        let open = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let remote = listener.local_addr()?;
            let idle = connect(&server, &listener)?;
            let half_closed = connect(&server, &listener)?;
            half_closed.0.shutdown(Shutdown::Write)?;
            // After EOF at the remote the thread of this direction has nothing more to do.
            (&half_closed.1).read_exact(&mut [0; 1]).unwrap_err();
            let silent = TcpStream::connect(server.address)?;
            let unread = connect(&server, &listener)?;
            let sender = unread.1.try_clone()?;
            thread::spawn(move || {
                // Ends with an error when the server is killed.
                while (&sender).write_all(&[0; 4096]).is_ok() {}
            });
            let pairs = [idle, half_closed, unread];
            let mut all: Vec<TcpStream> = pairs.into_iter().flat_map(|it| [it.0, it.1]).collect();
            all.push(silent);
            Ok((remote, all))
        };
        let (remote, open) = open().map_err(|error: io::Error| format!("a client: {error}"))?;
        Ok(Scene {
            server,
            remote,
            _open: open,
        })
    }

    /// The table of threads, from what the server prints at SIGUSR1.
    fn table(&mut self) -> Result<Table, String> {
        // The shell has a kill of its own; the program is in a package that may be missing.
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -USR1 $0", &self.server.id().to_string()]);
        kill.status().map_err(|error| format!("sh: {error}"))?;
        let lines = self.server.lines.by_ref().map_while(Result::ok);
        let mut rows = lines.skip_while(|line| !line.ends_with(" threads"));
        let count = rows
            .next()
            .and_then(|line| line.split(' ').next()?.parse().ok());
        let count: usize = count.ok_or("the server prints no table of threads")?;
        let mut table = Table::new();
        // The first line has the headings.
        for line in rows.skip(1).take(count) {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            let waits_for: Vec<&str> = words.skip(1).collect();
            // The first makes the table, and the second is about to end.
            if !["status", "idle"].contains(&&*name) {
                table.insert(name, call(&waits_for.join(" "), self.remote));
            }
        }
        Ok(table)
    }

    /// The same, when it no longer changes.
    fn steady_table(&mut self) -> Result<Table, String> {
        let mut last = self.table()?;
        for _ in 0..MAX_TABLES {
            let next = self.table()?;
            if next == last && next.values().all(|call| CALLS.contains(&&**call)) {
                return Ok(next);
            }
            last = next;
        }
        Err(format!("the threads do not come to rest: {last:?}"))
    }
}

/// A client that is connected to a remote, through the server by SOCKS4; both ends.
fn connect(server: &Server, listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let mut client = TcpStream::connect(server.address)?;
    let port = listener.local_addr()?.port().to_be_bytes();
    client.write_all(&[4, 1, port[0], port[1], 127, 0, 0, 1, 0])?;
    client.read_exact(&mut [0; 8])?;
    Ok((client, listener.accept()?.0))
}

/// The call that the server's words stand for, or these words.
fn call(words: &str, remote: SocketAddr) -> String {
    let end = match words.contains(&remote.to_string()) {
        true => "remote",
        false => "client",
    };
    let found = match words {
        _ if words.contains("(poll)") => "poll",
        _ if words.contains("(futex)") => "futex",
        "for a signal" => "signal",
        _ if words.starts_with("to read 1") => return format!("read {end}"),
        _ if words.starts_with("to write to 1") => return format!("write {end}"),
        _ => words,
    };
    found.to_owned()
}

/// Starts the scene and keeps it until the user presses Enter.
pub(crate) fn show() -> Result<Verdict, String> {
    let scene = Scene::start()?;
    println!(
        "server with four clients: process {}, port {}",
        scene.server.id(),
        scene.server.address.port()
    );
    println!("remote of the clients: {}", scene.remote);
    println!(
        "in another terminal: ps -T -o tid,comm,wchan -p {}",
        scene.server.id()
    );
    println!("press Enter to end it");
    let _ = io::stdin().read_line(&mut String::new());
    Ok(Verdict::Passed)
}

/// Compares the answers in this file with the table of a server.
pub(crate) fn judge(file: &str) -> Result<Verdict, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let mut answers = parse(&text)?;
    let table = Scene::start()?.steady_table()?;
    let (mut right, all) = (0, table.len());
    for (name, call) in table {
        match answers.remove(&name) {
            Some(answer) if answer == call => right += 1,
            Some(answer) => println!("{name}: not in \"{answer}\""),
            None => println!("{name}: no answer"),
        }
    }
    for name in answers.keys() {
        println!("{name}: there is no such thread");
    }
    println!("{right} of {all} threads are right");
    match right == all && answers.is_empty() {
        true => Ok(Verdict::Passed),
        false => Ok(Verdict::Failed),
    }
}

/// Lines such as `accept = accept`; `#` begins a comment.
fn parse(text: &str) -> Result<Table, String> {
    let mut answers = Table::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, call) = line
            .split_once('=')
            .ok_or(format!("{line}: not \"name = call\""))?;
        let (name, call) = (name.trim().to_owned(), call.trim().to_owned());
        if !call.is_empty() && !CALLS.contains(&&*call) {
            return Err(format!(
                "{call}: no such call; there are: {}",
                CALLS.join(", ")
            ));
        }
        answers.insert(name, call);
    }
    Ok(answers)
}
