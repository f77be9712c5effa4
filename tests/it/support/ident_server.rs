//! An IDENT server (RFC 1413) whose answers a test scripts.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use threadsocks::protocol::ident::PORT;

use crate::support::endpoints::{with_timeout, write};

/// One query to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentQuery {
    /// The address of the socket that sent the query.
    pub(crate) from: SocketAddr,
    /// The address of this machine that received the query.
    pub(crate) at: IpAddr,
    /// The line without CR LF.
    pub(crate) query: String,
}

/// The server, on port 113 of all addresses. Needs a network namespace of the test's own.
pub(crate) struct Identd(Arc<State>);

#[derive(Default)]
struct State {
    queries: Mutex<Vec<IdentQuery>>,
    /// The threads that run the script, one for each query.
    scripts: Mutex<Vec<JoinHandle<()>>>,
}

impl Identd {
    /// Runs this script for every query, with the connection and the line without
    /// CR LF. Each query has a thread of its own. A panic of a script fails the test
    /// when the server is dropped.
    pub(crate) fn start(script: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> Identd {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("port 113");
        let state = Arc::<State>::default();
        let script = Arc::new(script);
        thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for (stream, from) in std::iter::from_fn(|| listener.accept().ok()) {
                    let (shared, script) = (Arc::clone(&state), Arc::clone(&script));
                    let thread = thread::spawn(move || {
                        let stream = with_timeout(stream);
                        let query = read_line(&stream);
                        shared.queries.lock().unwrap().push(IdentQuery {
                            from,
                            at: stream.local_addr().expect("an address").ip(),
                            query: query.clone(),
                        });
                        script(stream, &query);
                    });
                    state.scripts.lock().unwrap().push(thread);
                }
            }
        });
        Identd(state)
    }

    /// Answers each query with its own line, this text, such as
    /// `: USERID : UNIX : alice`, and CR LF.
    pub(crate) fn replying(rest: &str) -> Identd {
        let rest = rest.to_owned();
        Identd::start(move |stream, query| {
            write(&stream, format!("{query}{rest}\r\n").as_bytes());
        })
    }

    /// All queries so far.
    pub(crate) fn queries(&self) -> Vec<IdentQuery> {
        self.0.queries.lock().unwrap().clone()
    }
}

/// Reads one line, and returns it without CR LF.
fn read_line(stream: &TcpStream) -> String {
    let mut query = String::new();
    let result = BufReader::new(stream).read_line(&mut query);
    result.expect("a line");
    query
        .strip_suffix("\r\n")
        .expect("a complete line")
        .to_owned()
}

impl Drop for Identd {
    fn drop(&mut self) {
        let scripts = std::mem::take(&mut *self.0.scripts.lock().unwrap());
        for script in scripts {
            if !thread::panicking() {
                script.join().expect("a script without a panic");
            }
        }
    }
}
