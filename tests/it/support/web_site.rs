//! HTTP servers that record the requests they receive.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::endpoints::with_timeout;

/// Path, content type and content of a page.
pub(crate) type Page = (&'static str, &'static str, &'static str);

/// A web server for a fixed list of pages. It answers one request per connection.
pub(crate) struct WebSite {
    address: SocketAddr,
    record: Arc<RequestRecord>,
}

/// The connections and requests of a server, written by its threads and read by the test.
#[derive(Default)]
struct RequestRecord {
    connections: AtomicUsize,
    /// The requested paths; the mutex guards only this list.
    paths: Mutex<Vec<String>>,
}

impl WebSite {
    /// Starts a server on a free port of this address. Since all addresses of 127.0.0.0/8 are
    /// local, one machine can have several sites.
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

    /// The URL of the path `/`, with the address as the host.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The number of accepted connections.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// The requested paths, in the order of the requests.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.record.paths.lock().unwrap().clone()
    }
}

/// Answers one request. A browser may also open connections without sending a request.
fn serve(mut stream: &TcpStream, pages: &[Page], record: &RequestRecord) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    // Reads all headers: close(2) with unread data would send RST.
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
    // A write fails if the client has disconnected. The test then misses the content.
    let _ = stream.write_all(response.as_bytes());
}
