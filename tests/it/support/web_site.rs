//! HTTP origins that remember who came for what.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::endpoints::with_timeout;

/// Path, content type and content.
pub(crate) type Page = (&'static str, &'static str, &'static str);

/// A web server for some pages, with one connection for each request.
pub(crate) struct WebSite {
    address: SocketAddr,
    record: Arc<RequestRecord>,
}

#[derive(Default)]
struct RequestRecord {
    connections: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

impl WebSite {
    /// Serves on a free port of this address. All of 127.0.0.0/8 is this
    /// machine, so one machine can be several sites.
    pub(crate) fn start_at(address: IpAddr, pages: &'static [Page]) -> WebSite {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(RequestRecord::default());
        thread::spawn({
            let record = Arc::clone(&record);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    record.connections.fetch_add(1, Ordering::SeqCst);
                    let record = Arc::clone(&record);
                    thread::spawn(move || serve(&with_timeout(stream), pages, &record));
                }
            }
        });
        WebSite { address, record }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its front page by address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// What it was asked for, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.record.paths.lock().unwrap().clone()
    }
}

/// Answers one request. A browser also opens connections on which nothing comes.
fn serve(mut stream: &TcpStream, pages: &[Page], record: &RequestRecord) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    // To the end of the head: closing before would break the connection.
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else {
        return;
    };
    record.paths.lock().unwrap().push(path.to_owned());
    let page = pages.iter().find(|(page_path, ..)| *page_path == path);
    let (status, content_type, content) = match page {
        Some((_, content_type, content)) => ("200 OK", *content_type, *content),
        None => ("404 Not Found", "text/plain", "no such page\n"),
    };
    let length = content.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{content}"
    );
    // Whoever left has his reasons; the test sees what did not arrive.
    let _ = stream.write_all(response.as_bytes());
}
