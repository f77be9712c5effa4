//! An identd that says what the test wishes.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use threadsocks::wire::ident::PORT;

use crate::ends::{patient, write};

/// What it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) from: SocketAddr,
    /// The line, without its end.
    pub(crate) query: String,
}

/// The identd; only in a network of the test's own.
pub(crate) struct Identd {
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Identd {
    /// Handles every query by this script: the connection, and the line without
    /// its end. Each has a thread of its own.
    pub(crate) fn with(script: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> Identd {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("the port of identd");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let script = Arc::new(script);
        thread::spawn({
            let asked = Arc::clone(&asked);
            move || {
                for (stream, from) in std::iter::from_fn(|| listener.accept().ok()) {
                    let (asked, script) = (Arc::clone(&asked), Arc::clone(&script));
                    thread::spawn(move || {
                        let stream = patient(stream);
                        let mut query = String::new();
                        let heard = BufReader::new(&stream).read_line(&mut query);
                        heard.expect("a line");
                        let query = query.strip_suffix("\r\n").expect("a whole line");
                        let query = query.to_owned();
                        asked.lock().unwrap().push(Asked {
                            from,
                            query: query.clone(),
                        });
                        script(stream, &query);
                    });
                }
            }
        });
        Identd { asked }
    }

    /// Answers the ports of the query and then this, such as
    /// `: USERID : UNIX : alice`, and an end of line.
    pub(crate) fn says(rest: &str) -> Identd {
        let rest = rest.to_owned();
        Identd::with(move |stream, query| {
            write(&stream, format!("{query}{rest}\r\n").as_bytes());
        })
    }

    /// Everything it has been asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}
