//! The metrics of a server, as Prometheus reads them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::endpoints::{dial, read_all, write};
use super::proxy::Proxy;

/// Options that serve the metrics on a free port.
pub(crate) const METRICS: [&str; 2] = ["--metrics", "127.0.0.1:0"];

/// The value of each series, by its name with its labels.
pub(crate) type Series = BTreeMap<String, f64>;

impl Proxy {
    /// Where this server serves its metrics.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        let line = self.stderr_line("metrics at http://");
        let (_, address) = line.split_once("http://").unwrap();
        let address = address.strip_suffix("/metrics").expect("the path");
        address.parse().expect("an address")
    }

    /// The page of metrics.
    pub(crate) fn metrics_page(&self) -> String {
        let client = dial(self.metrics_address());
        write(&client, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = String::from_utf8(read_all(&client)).unwrap();
        let (head, page) = reply.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        page.to_owned()
    }

    /// The metrics.
    pub(crate) fn metrics(&self) -> Series {
        parse(&self.metrics_page())
    }
}

/// All series of a page. Fails if one occurs twice.
pub(crate) fn parse(page: &str) -> Series {
    let mut series = Series::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let before = series.insert(name.to_owned(), value.parse().expect("a number"));
        assert_eq!(before, None, "{name} twice");
    }
    series
}
