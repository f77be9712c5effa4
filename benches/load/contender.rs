//! The contenders: the servers that the benchmark compares, by name.

use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// A direct connection without a proxy: the upper limit of the machine.
    Direct,
    /// This build of threadsocks.
    Threadsocks,
    /// Another build of threadsocks, given by `--before`.
    OtherBuild,
    /// The baseline: two threads per connection and `std::io::copy`.
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

    /// The version of the installed Debian package, or of this crate; empty if
    /// unknown.
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
