//! Whether somebody asked for this page, or another site made a browser ask.
//!
//! Running something on a mere visit is dangerous: who may use this console is
//! one thing, who may use its users' browsers another. So what another page
//! leads to is shown as a form first, and a button must be pressed.

use std::env;

/// What the browser tells of itself and of where it comes from.
#[derive(Debug, Default)]
pub(crate) struct Visitor {
    /// `Sec-Fetch-Site`, which browsers send over https and on loopback.
    site: String,
    /// `Sec-Purpose`: it only loads ahead what somebody may want to see.
    purpose: String,
    agent: String,
    referer: String,
    host: String,
}

impl Visitor {
    /// Reads the headers, as CGI passes them on (RFC 3875, section 4.1.18).
    pub(crate) fn from_environment() -> Visitor {
        let header = |name| {
            let value = env::var_os(name).unwrap_or_default();
            value.to_string_lossy().into_owned()
        };
        Visitor {
            site: header("HTTP_SEC_FETCH_SITE"),
            purpose: header("HTTP_SEC_PURPOSE"),
            agent: header("HTTP_USER_AGENT"),
            referer: header("HTTP_REFERER"),
            host: header("HTTP_HOST"),
        }
    }

    /// May something run on this visit?
    ///
    /// Over plain http in a network, browsers do not say where they come from
    /// but by the referer, which our own form sends and which no other site can
    /// forge. Other programs, as curl, do what their user says.
    pub(crate) fn asks_for_it(&self) -> bool {
        if !self.purpose.is_empty() {
            return false;
        }
        match self.site.as_str() {
            "same-origin" | "none" => true,
            "" => !self.agent.starts_with("Mozilla/") || self.comes_from_here(),
            _ => false,
        }
    }

    fn comes_from_here(&self) -> bool {
        let behind_scheme = self.referer.split_once("://").map(|(_, rest)| rest);
        let origin = behind_scheme.and_then(|rest| rest.split('/').next());
        !self.host.is_empty() && origin == Some(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64)";

    #[test]
    fn only_what_somebody_wanted_runs() {
        for (site, purpose, agent, referer, runs) in [
            ("same-origin", "", BROWSER, "", true),
            ("none", "", BROWSER, "", true),
            ("same-site", "", BROWSER, "", false),
            ("cross-site", "", BROWSER, "http://here:80/", false),
            ("none", "prefetch;prerender", BROWSER, "", false),
            ("", "", "curl/8.0", "", true),
            ("", "", "", "", true),
            ("", "", BROWSER, "", false),
            (
                "",
                "",
                BROWSER,
                "http://here:80/cgi-bin/console.cgi?x",
                true,
            ),
            ("", "", BROWSER, "http://here:80", true),
            ("", "", BROWSER, "http://here:8080/", false),
            ("", "", BROWSER, "http://here:80.evil.example/", false),
            (
                "",
                "",
                BROWSER,
                "http://evil.example/http://here:80/",
                false,
            ),
        ] {
            let visitor = Visitor {
                site: site.to_owned(),
                purpose: purpose.to_owned(),
                agent: agent.to_owned(),
                referer: referer.to_owned(),
                host: "here:80".to_owned(),
            };
            assert_eq!(visitor.asks_for_it(), runs, "{visitor:?}");
        }
    }
}
