//! Protection against DNS rebinding: the host names under which this console answers.
//!
//! A foreign site can let its own name resolve to the address of this web server. Then a
//! browser takes the pages of both for one site. But the browser still sends the foreign
//! name as `Host`. An address or `localhost` cannot be such a name.

use threadsocks::protocol::Host;

/// The names of the administrator, from `CONSOLE_HOST`.
#[derive(Debug, Default)]
pub(crate) struct OwnNames(Vec<Host>);

impl OwnNames {
    /// Parses a comma-separated list of host names without ports. Empty entries are
    /// ignored.
    ///
    /// # Errors
    ///
    /// The first invalid entry.
    pub(crate) fn parse(list: &str) -> Result<OwnNames, String> {
        let entries = list.split(',').map(str::trim);
        let names = entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| match canonical(entry) {
                Host::Invalid(_) => Err(entry.to_owned()),
                host => Ok(host),
            });
        Ok(OwnNames(names.collect::<Result<_, _>>()?))
    }

    /// Reports whether the console answers a request with this `Host` header. Only
    /// programs and some web servers for tests send or pass on none.
    pub(crate) fn permit(&self, header: &str) -> bool {
        let host = match header.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => header,
        };
        match canonical(host) {
            _ if header.is_empty() => true,
            Host::Address(_) => true,
            Host::Name(name) if name.as_str() == "localhost" => true,
            host @ Host::Name(_) => self.0.contains(&host),
            Host::Invalid(_) => false,
        }
    }
}

/// The host in lower case, without the final dot of an absolute name.
fn canonical(host: &str) -> Host {
    Host::from_name_field(host.strip_suffix('.').unwrap_or(host).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w27_only_addresses_localhost_and_own_names_are_permitted() {
        let names = OwnNames::parse("console.example.edu, Lab.,").unwrap();
        for (header, permitted) in [
            ("", true),
            ("127.0.0.1", true),
            ("127.0.0.1:8080", true),
            ("192.0.2.1:80", true),
            ("[::1]:8080", true),
            ("[2001:db8::1]", true),
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("localhost.:8080", true),
            ("console.example.edu", true),
            ("Console.Example.edu.:443", true),
            ("lab:8080", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("a.console.example.edu", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("127.1", false),
            ("[::1].evil.example", false),
            ("localhost, evil.example", false),
            (":80", false),
        ] {
            assert_eq!(names.permit(header), permitted, "{header}");
        }
        assert!(!OwnNames::default().permit("lab"));
    }

    #[test]
    fn w27_an_invalid_name_is_reported() {
        for entry in ["a:80", "*.example", "a b", "127.1"] {
            let list = format!("b, {entry}");
            assert_eq!(OwnNames::parse(&list).unwrap_err(), entry);
        }
    }
}
