//! The HTTP of the metrics: the head of a request, and the replies (RFC 9112).

/// The largest head of a request in bytes.
pub(crate) const MAX_HEAD: usize = 8 << 10;

/// Is the head complete? It ends with an empty line.
pub(crate) fn is_complete(head: &[u8]) -> bool {
    let has_end = |end: &[u8]| head.windows(end.len()).any(|it| it == end);
    // RFC 9112, section 2.2: a line may also end without CR.
    has_end(b"\n\r\n") || has_end(b"\n\n")
}

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The metrics.
    Page {
        /// Only the head: the request is HEAD.
        head_only: bool,
    },
    /// This is no HTTP/1 request.
    BadRequest,
    /// There is nothing at this path.
    NotFound,
    /// The metrics can only be read.
    MethodNotAllowed,
    /// The head of the request exceeds [`MAX_HEAD`].
    HeadTooLarge,
}

impl Reply {
    /// The reply to a request with this complete head.
    pub(crate) fn to(head: &[u8]) -> Reply {
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
        let (method, target) = match [words.next(), words.next(), words.next(), words.next()] {
            [Some(method), Some(target), Some(version), None]
                if version.starts_with(b"HTTP/1.") =>
            {
                (method, target)
            }
            _ => return Reply::BadRequest,
        };
        let path = target.split(|&byte| byte == b'?').next();
        match method {
            _ if path != Some(b"/metrics") => Reply::NotFound,
            b"GET" => Reply::Page { head_only: false },
            b"HEAD" => Reply::Page { head_only: true },
            _ => Reply::MethodNotAllowed,
        }
    }

    /// The bytes of the reply. `page` makes the metrics, if they are wanted.
    pub(crate) fn encode(self, page: impl FnOnce() -> String) -> Vec<u8> {
        let (status, body) = match self {
            Reply::Page { .. } => ("200 OK", page()),
            Reply::BadRequest => ("400 Bad Request", sentence("This is no HTTP/1 request.")),
            Reply::NotFound => ("404 Not Found", sentence("The metrics are at /metrics.")),
            Reply::MethodNotAllowed => (
                "405 Method Not Allowed",
                sentence("The metrics can only be read: GET or HEAD."),
            ),
            Reply::HeadTooLarge => (
                "431 Request Header Fields Too Large",
                sentence("The head of the request has more than 8 KiB."),
            ),
        };
        let allow = match self {
            Reply::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let length = body.len();
        let mut message = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
        );
        if self != (Reply::Page { head_only: true }) {
            message.push_str(&body);
        }
        message.into_bytes()
    }
}

fn sentence(text: &str) -> String {
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l21_each_request_has_its_reply() {
        let page = |head_only| Reply::Page { head_only };
        for (line, expected) in [
            ("GET /metrics HTTP/1.1", page(false)),
            ("GET /metrics?name[]=up HTTP/1.0", page(false)),
            ("HEAD /metrics HTTP/1.1", page(true)),
            ("GET / HTTP/1.1", Reply::NotFound),
            ("GET /metrics/ HTTP/1.1", Reply::NotFound),
            ("POST /other HTTP/1.1", Reply::NotFound),
            ("POST /metrics HTTP/1.1", Reply::MethodNotAllowed),
            ("get /metrics HTTP/1.1", Reply::MethodNotAllowed),
            ("GET /metrics", Reply::BadRequest),
            ("GET /metrics HTTP/2.0", Reply::BadRequest),
            ("GET /a /metrics HTTP/1.1", Reply::BadRequest),
            ("", Reply::BadRequest),
            ("\u{5}\u{1}", Reply::BadRequest),
        ] {
            for end in ["\r\n", "\n"] {
                let head = format!("{line}{end}Host: x{end}{end}");
                assert_eq!(Reply::to(head.as_bytes()), expected, "{head:?}");
            }
        }
    }

    #[test]
    fn l21_a_head_ends_with_an_empty_line() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\n\n", true),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\nbody", true),
            ("GET / HTTP/1.1\r\n", false),
            ("\r\n", false),
            ("", false),
        ] {
            assert_eq!(is_complete(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn l21_a_reply_states_its_length_and_head_has_no_body() {
        let text = |reply: Reply| {
            let bytes = reply.encode(|| "a 1\n".to_owned());
            String::from_utf8(bytes).expect("ASCII")
        };
        let whole = text(Reply::Page { head_only: false });
        let head = text(Reply::Page { head_only: true });
        assert_eq!(whole, format!("{head}a 1\n"));
        assert!(head.contains("\r\nContent-Length: 4\r\n") && head.ends_with("\r\n\r\n"));
        assert!(text(Reply::MethodNotAllowed).contains("\r\nAllow: GET, HEAD\r\n"));
    }
}
