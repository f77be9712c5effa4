//! The contenders by name.

use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// No proxy at all: what the machine can do.
    Direct,
    /// The server this is all about.
    Threadsocks,
    /// Another build of it.
    OtherBuild,
    /// Two threads a connection and `std::io::copy`.
    Plain,
    Microsocks,
    Dante,
}

impl Contender {
    pub(crate) const ALL: [Contender; 6] = [
        Contender::Direct,
        Contender::Threadsocks,
        Contender::OtherBuild,
        Contender::Plain,
        Contender::Microsocks,
        Contender::Dante,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Direct => "direct",
            Contender::Threadsocks => "threadsocks",
            Contender::OtherBuild => "before",
            Contender::Plain => "plain",
            Contender::Microsocks => "microsocks",
            Contender::Dante => "dante",
        }
    }

    /// Which version runs here, as Debian knows it.
    pub(crate) fn version(self) -> String {
        let package = match self {
            Contender::Threadsocks => return env!("CARGO_PKG_VERSION").to_owned(),
            Contender::Direct | Contender::OtherBuild | Contender::Plain => return String::new(),
            Contender::Microsocks => "microsocks",
            Contender::Dante => "dante-server",
        };
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${Version}", package]);
        match query.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(_) => String::new(),
        }
    }
}
