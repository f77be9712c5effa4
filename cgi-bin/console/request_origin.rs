//! Finds out whether the user asked for a run, or whether a browser only loads a page.
//!
//! Two things must not start a run. A page of another site can make a browser send a
//! request with the access rights of its user (cross-site request forgery). And a
//! browser repeats a GET request by itself: for Back, reload, a restored tab, and when
//! it saves the page. Such requests get the form, filled in.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The request headers that tell what caused the request.
#[derive(Debug, Default)]
pub(crate) struct RequestOrigin {
    /// `Sec-Fetch-Site` (Fetch Metadata). Browsers send these headers over https and to
    /// loopback addresses.
    fetch_site: String,
    /// `Sec-Fetch-User`: `?1` if the user has clicked a link or pressed a button.
    fetch_user: String,
    /// `Sec-Fetch-Dest`: what the browser does with the response.
    fetch_dest: String,
    /// `Sec-Purpose`: not empty if the browser prefetches or prerenders the page.
    purpose: String,
    /// A browser sends `Cache-Control` when it reloads a page.
    cache_control: String,
    user_agent: String,
    /// The origin of the page that sent a form. Every browser sends it with POST.
    origin: String,
    referer: String,
    host: String,
    /// The port of the web server, for web servers that pass on no `Host`.
    server_port: String,
}

impl RequestOrigin {
    /// Reads the headers from the environment variables of CGI (RFC 3875, section
    /// 4.1.18).
    pub(crate) fn from_environment() -> RequestOrigin {
        let variable = |name| {
            let value = env::var_os(name).unwrap_or_default();
            value.to_string_lossy().into_owned()
        };
        RequestOrigin {
            fetch_site: variable("HTTP_SEC_FETCH_SITE"),
            fetch_user: variable("HTTP_SEC_FETCH_USER"),
            fetch_dest: variable("HTTP_SEC_FETCH_DEST"),
            purpose: variable("HTTP_SEC_PURPOSE"),
            cache_control: variable("HTTP_CACHE_CONTROL"),
            user_agent: variable("HTTP_USER_AGENT"),
            origin: variable("HTTP_ORIGIN"),
            referer: variable("HTTP_REFERER"),
            host: variable("HTTP_HOST"),
            server_port: variable("SERVER_PORT"),
        }
    }

    /// Reports whether a program that is not a browser sent the request, for example
    /// curl. Its user has started it, and it repeats nothing by itself.
    pub(crate) fn is_program(&self) -> bool {
        let fetch_metadata = [&self.fetch_site, &self.fetch_user, &self.fetch_dest];
        !self.user_agent.starts_with("Mozilla/")
            && self.purpose.is_empty()
            && fetch_metadata.iter().all(|header| header.is_empty())
            && self.names_no_other_site()
    }

    /// Reports whether a GET request with rows may start a run: the user has clicked a
    /// link or a button on a page of the same site.
    ///
    /// Only Fetch Metadata tells that. Back, a restored tab and a saved page lack
    /// `Sec-Fetch-User`. A reload in Chromium has it, and `Cache-Control` as well.
    pub(crate) fn is_click_on_same_site(&self) -> bool {
        let is_reload = ["max-age=0", "no-cache"]
            .iter()
            .any(|directive| self.cache_control.contains(directive));
        matches!(self.fetch_site.as_str(), "same-origin" | "same-site")
            && self.fetch_user == "?1"
            && self.fetch_dest == "document"
            && self.purpose.is_empty()
            && !is_reload
    }

    /// Reports whether a POST request comes from the form of this console.
    ///
    /// Over plain http in a network, browsers send no Fetch Metadata. There `Origin`
    /// tells the site of the form, and another site cannot forge it.
    pub(crate) fn is_own_form(&self) -> bool {
        match self.fetch_site.as_str() {
            "same-origin" => true,
            "" if self.origin.is_empty() => self.is_own_origin(&self.referer),
            "" => self.is_own_origin(&self.origin),
            _ => false,
        }
    }

    /// Reports whether neither `Origin` nor `Referer` names another site.
    fn names_no_other_site(&self) -> bool {
        [&self.origin, &self.referer]
            .iter()
            .all(|url| url.is_empty() || self.is_own_origin(url))
    }

    /// Compares host and port of a URL with the `Host` header.
    fn is_own_origin(&self, url: &str) -> bool {
        let after_scheme = url.split_once("://").map(|(_, rest)| rest);
        let Some(authority) = after_scheme.and_then(|rest| rest.split('/').next()) else {
            return false;
        };
        match self.host.is_empty() {
            true => self.is_loopback_server(authority),
            false => {
                let with_port = format!("{}:{}", self.host, self.server_port);
                // nginx of Debian passes on the `Host` without its port.
                [&self.host, &with_port]
                    .iter()
                    .any(|own| authority.eq_ignore_ascii_case(own))
            }
        }
    }

    /// Reports whether this is the web server itself at a loopback address. No other
    /// server has the same address and port.
    fn is_loopback_server(&self, authority: &str) -> bool {
        let Some((host, port)) = authority.rsplit_once(':') else {
            return false;
        };
        let is_loopback = host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: Ipv4Addr| address.is_loopback())
            || host == format!("[{}]", Ipv6Addr::LOCALHOST);
        is_loopback && port == self.server_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64)";

    fn browser() -> RequestOrigin {
        RequestOrigin {
            user_agent: BROWSER.to_owned(),
            host: "here:80".to_owned(),
            server_port: "8080".to_owned(),
            ..RequestOrigin::default()
        }
    }

    #[test]
    fn w24_only_a_click_on_the_same_site_starts_a_run_by_get() {
        for (site, user, dest, cache_control, purpose, runs) in [
            ("same-origin", "?1", "document", "", "", true),
            ("same-site", "?1", "document", "", "", true),
            // Back, a restored tab, a saved page.
            ("same-origin", "", "document", "", "", false),
            // A reload, and a reload past the cache.
            ("same-origin", "?1", "document", "max-age=0", "", false),
            ("same-origin", "?1", "document", "no-cache", "", false),
            // A typed URL or a bookmark; a link on another site.
            ("none", "?1", "document", "", "", false),
            ("cross-site", "?1", "document", "", "", false),
            // An image, a frame, a script.
            ("same-origin", "?1", "image", "", "", false),
            ("same-origin", "?1", "iframe", "", "", false),
            ("same-origin", "", "empty", "", "", false),
            ("same-origin", "?1", "document", "", "prefetch", false),
            // Plain http.
            ("", "", "", "", "", false),
        ] {
            let origin = RequestOrigin {
                fetch_site: site.to_owned(),
                fetch_user: user.to_owned(),
                fetch_dest: dest.to_owned(),
                cache_control: cache_control.to_owned(),
                purpose: purpose.to_owned(),
                referer: "http://here:80/".to_owned(),
                ..browser()
            };
            assert_eq!(origin.is_click_on_same_site(), runs, "{origin:?}");
            assert!(!origin.is_program(), "{origin:?}");
        }
    }

    #[test]
    fn w26_only_requests_without_a_sign_of_a_browser_come_from_a_program() {
        for (user_agent, site, referer, is_program) in [
            ("curl/8.0", "", "", true),
            ("", "", "", true),
            ("curl/8.0", "", "http://here:80/x", true),
            ("curl/8.0", "", "http://elsewhere/", false),
            ("", "", "http://here:80.evil.example/", false),
            ("curl/8.0", "none", "", false),
            (BROWSER, "", "", false),
            (BROWSER, "", "http://here:80/", false),
        ] {
            let origin = RequestOrigin {
                user_agent: user_agent.to_owned(),
                fetch_site: site.to_owned(),
                referer: referer.to_owned(),
                ..browser()
            };
            assert_eq!(origin.is_program(), is_program, "{origin:?}");
        }
    }

    #[test]
    fn w24_only_the_own_form_may_post() {
        for (site, origin, referer, is_own) in [
            ("same-origin", "http://here:80", "", true),
            ("same-site", "http://here:80", "http://here:80/", false),
            ("cross-site", "", "", false),
            ("none", "http://here:80", "", false),
            // Plain http.
            ("", "http://here:80", "", true),
            ("", "http://HERE:80", "", true),
            ("", "http://here:8080", "", false),
            ("", "http://evil.example", "http://here:80/", false),
            ("", "null", "http://here:80/", false),
            ("", "", "http://here:80/cgi-bin/console.cgi?x", true),
            ("", "", "http://evil.example/http://here:80/", false),
            ("", "", "http://here:80.evil.example/", false),
            ("", "", "", false),
        ] {
            let request = RequestOrigin {
                fetch_site: site.to_owned(),
                origin: origin.to_owned(),
                referer: referer.to_owned(),
                ..browser()
            };
            assert_eq!(request.is_own_form(), is_own, "{request:?}");
        }
    }

    #[test]
    fn w24_a_host_without_its_port_is_the_own_one_at_the_port_of_the_server() {
        for (origin, is_own) in [
            ("http://here", true),
            ("http://here:8080", true),
            ("http://here:8081", false),
            ("http://here.evil.example:8080", false),
        ] {
            let request = RequestOrigin {
                host: "here".to_owned(),
                origin: origin.to_owned(),
                ..browser()
            };
            assert_eq!(request.is_own_form(), is_own, "{request:?}");
        }
    }

    #[test]
    fn w24_without_a_host_only_a_loopback_server_is_the_own_one() {
        for (referer, is_own) in [
            ("http://127.0.0.1:8080/cgi-bin/console.cgi", true),
            ("http://localhost:8080/", true),
            ("http://[::1]:8080/", true),
            ("http://127.0.0.1:8081/", false),
            ("http://127.0.0.1/", false),
            ("http://rebound.example:8080/", false),
            ("http://192.0.2.1:8080/", false),
        ] {
            let request = RequestOrigin {
                host: String::new(),
                referer: referer.to_owned(),
                ..browser()
            };
            assert_eq!(request.is_own_form(), is_own, "{request:?}");
        }
    }
}
