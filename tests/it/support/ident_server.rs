//! An identd that says what the test wishes.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use threadsocks::protocol::ident::PORT;

use crate::support::endpoints::{with_timeout, write};

/// What it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentQuery {
    /// Who asks.
    pub(crate) from: SocketAddr,
    /// Which address of this machine is asked.
    pub(crate) at: IpAddr,
    /// The line, without its end.
    pub(crate) query: String,
}

/// The identd; only in a network of the test's own.
pub(crate) struct Identd(Arc<State>);

#[derive(Default)]
struct State {
    queries: Mutex<Vec<IdentQuery>>,
    /// The threads that run the script, one for each query.
    scripts: Mutex<Vec<JoinHandle<()>>>,
}

impl Identd {
    /// Handles every query by this script: the connection, and the line without
    /// its end. Each has a thread of its own; what fails there fails the test.
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

    /// Answers the ports of the query and then this, such as
    /// `: USERID : UNIX : alice`, and an end of line.
    pub(crate) fn replying(rest: &str) -> Identd {
        let rest = rest.to_owned();
        Identd::start(move |stream, query| {
            write(&stream, format!("{query}{rest}\r\n").as_bytes());
        })
    }

    /// Everything it has been asked.
    pub(crate) fn queries(&self) -> Vec<IdentQuery> {
        self.0.queries.lock().unwrap().clone()
    }
}

/// The line of a query.
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
