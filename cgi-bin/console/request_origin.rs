//! Protection against cross-site request forgery: finds out whether the user started a request.
//!
//! A link or an image on another site can make a browser request a page of this
//! console with the access rights of its user. Such a request gets the filled-in
//! form, and no session starts before the user presses the button.

use std::env;

/// The request headers that tell what caused the request.
#[derive(Debug, Default)]
pub(crate) struct RequestOrigin {
    /// `Sec-Fetch-Site` (Fetch Metadata). Browsers send it over https and to loopback
    /// addresses.
    fetch_site: String,
    /// `Sec-Purpose`: not empty if the browser prefetches or prerenders the page.
    purpose: String,
    user_agent: String,
    referer: String,
    host: String,
}

impl RequestOrigin {
    /// Reads the headers from the environment variables of CGI (RFC 3875, section
    /// 4.1.18).
    pub(crate) fn from_environment() -> RequestOrigin {
        let header = |name| {
            let value = env::var_os(name).unwrap_or_default();
            value.to_string_lossy().into_owned()
        };
        RequestOrigin {
            fetch_site: header("HTTP_SEC_FETCH_SITE"),
            purpose: header("HTTP_SEC_PURPOSE"),
            user_agent: header("HTTP_USER_AGENT"),
            referer: header("HTTP_REFERER"),
            host: header("HTTP_HOST"),
        }
    }

    /// Reports whether the user has started the request, so that sessions may run.
    ///
    /// Over plain http in a network, browsers send no `Sec-Fetch-Site`. There only
    /// the `Referer` tells the origin: the form of this console sends it, and another
    /// site cannot forge it. Other programs, such as curl, are run by their user, so
    /// they need no check.
    pub(crate) fn is_user_initiated(&self) -> bool {
        if !self.purpose.is_empty() {
            return false;
        }
        match self.fetch_site.as_str() {
            "same-origin" | "none" => true,
            "" => !self.user_agent.starts_with("Mozilla/") || self.referer_is_same_origin(),
            _ => false,
        }
    }

    /// Compares host and port of the `Referer` with the `Host` header.
    fn referer_is_same_origin(&self) -> bool {
        let after_scheme = self.referer.split_once("://").map(|(_, rest)| rest);
        let referer_origin = after_scheme.and_then(|rest| rest.split('/').next());
        !self.host.is_empty() && referer_origin == Some(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64)";

    #[test]
    fn only_requests_started_by_the_user_run() {
        for (fetch_site, purpose, user_agent, referer, runs) in [
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
            let origin = RequestOrigin {
                fetch_site: fetch_site.to_owned(),
                purpose: purpose.to_owned(),
                user_agent: user_agent.to_owned(),
                referer: referer.to_owned(),
                host: "here:80".to_owned(),
            };
            assert_eq!(origin.is_user_initiated(), runs, "{origin:?}");
        }
    }
}
