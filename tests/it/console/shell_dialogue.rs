//! The dialogue of the console with shells and SOCKS servers, and its result on the page.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::channel;

use crate::support::child::LONG_TIMEOUT;
use crate::support::console_cgi::{Console, column_text, query_row};
use crate::support::endpoints::{self, Origin, read_exactly, write};
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::wait::TIMEOUT;

const GRANTED: &[u8] = b"\0\x5a\0\0\0\0\0\0";

/// The HTML of one column's output, joined from all elements of its slot.
fn column_html(page: &str, number: usize) -> String {
    let begin = format!("<span slot=\"log{number}\">");
    let (_, html) = page.split_once("</template>").unwrap();
    let ends = ["<span slot=", "<i slot=", "<a slot=", "</main>"];
    let pieces = html.split(&begin).skip(1).map(|piece| {
        let ends = ends.map(|next| piece.find(&format!("</span>\n{next}")));
        let end = ends.into_iter().flatten().min();
        // Otherwise the next element of the slot follows directly.
        end.map_or_else(
            || {
                piece
                    .strip_suffix("</span>\n")
                    .expect("the end of an element")
            },
            |end| &piece[..end],
        )
    });
    pieces.collect()
}

#[test]
fn w06_w07_output_and_commands_are_escaped() {
    const HTML_INJECTION: &str =
        "</script><script>alert(1)</script> <b>'\"\\ &amp; <!-- ]]> \u{2028}";
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        session.write(&format!("{HTML_INJECTION}\n\0\x1b[31mred\x1b[0m\x07\n% "));
        session.read_line();
    });
    let command = "cat <in >out & 'x' \"y\"";
    let query = query_row(1, shell.address(), "t1.txt", proxy.address());
    let page = Console::new(&[("t1.txt", command)]).page(&query);
    let html = column_html(&page, 1)
        .replace("&quot;", "\"")
        .replace("&#39;", "'");
    let html = without_times(&html);
    for shown in [
        "% <b>cat &lt;in &gt;out &amp; 'x' \"y\"</b>\n",
        "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; &lt;b&gt;'\"\\ &amp;amp; &lt;!-- ]]&gt; \u{2028}\n",
        "<span class=\"c1\">red</span>\u{2407}\n",
        "% <b class=\"added\" title=\"The console sent this exit; the batch contains none.\">exit</b>\n",
    ] {
        assert!(html.contains(shown), "{shown}: {html}");
    }
    assert!(!page.contains("<script"));
    assert_eq!(shell.received(), format!("{command}\nexit\n"));
    proxy.finish();
}

/// A page without the times of its commands.
fn without_times(html: &str) -> String {
    let mut parts = html.split(" data-time=\"");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        rest.push_str(part.split_once('"').expect("the end of a time").1);
    }
    rest
}

/// Splits inside CRLF, prompts and UTF-8 characters change nothing.
#[test]
fn w08_w09_output_in_single_bytes_is_read_like_output_in_one_segment() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write_bytewise("**\r\n% ");
        session.read_line();
        session.write_bytewise("caf\u{e9} 50% off \u{4f60}\n% ");
        session.read_line();
    });
    let query = query_row(1, shell.address(), "t1.txt", proxy.address()) + "format=text";
    let page = Console::new(&[("t1.txt", "ls\n")]).page(&query);
    let (output, status) = column_text(&page, &shell.address().to_string());
    assert_eq!(output, "**\n% ls\ncaf\u{e9} 50% off \u{4f60}\n% exit\n");
    assert!(status.starts_with("1 command sent, "), "{status}");
    proxy.finish();
}

#[test]
fn w09_one_line_is_sent_after_each_prompt() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.assert_no_input();
        session.write("welcome\n%");
        session.assert_no_input();
        session.write(" ");
        assert_eq!(session.read_line(), "one\n");
        session.assert_no_input();
        // An error message after the prompt, in the same segment.
        session.write("% Unknown command: [one].\n");
        assert_eq!(session.read_line(), "\n");
        session.write("% ");
        assert_eq!(session.read_line(), "three\n");
        // Not a prompt, since text follows.
        session.write("50% off today\n");
        session.assert_no_input();
        // A prompt after output without a final newline.
        session.write("no newline% ");
        assert_eq!(session.read_line(), "exit\n");
        session.write("bye\n");
    });
    let query = query_row(1, shell.address(), "t1.txt", proxy.address()) + "format=text";
    let files = [("t1.txt", "one\r\n\r\nthree\r\nexit\r\nnever sent\r\n")];
    let page = Console::new(&files).page(&query);
    let (output, status) = column_text(&page, &shell.address().to_string());
    assert_eq!(
        output,
        "welcome\n% one\n% \nUnknown command: [one].\n% three\n50% off today\n\
         no newline% exit\nbye\n"
    );
    assert!(status.starts_with("all 4 commands sent, "), "{status}");
    assert_eq!(shell.received(), "one\n\nthree\nexit\n");
    proxy.finish();
}

#[test]
fn an_early_close_is_reported_and_a_reset_after_exit_is_not() {
    let proxy = Proxy::open();
    let closing = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        session.write("the end of the wor");
    });
    let resetting = ScriptedShell::start(|session| {
        session.write("% ");
        session.prompt_until_exit();
        endpoints::reset_on_close(&session.stream);
    });
    let query = query_row(1, closing.address(), "t1.txt", proxy.address())
        + &query_row(2, resetting.address(), "t1.txt", proxy.address())
        + "format=text";
    let page = Console::new(&[("t1.txt", "a\nb\n")]).page(&query);
    let (output, status) = column_text(&page, &closing.address().to_string());
    assert_eq!(output, "% a\nthe end of the wor\n");
    assert!(
        status.starts_with("closed early, after command 1 of 2, 1 of 2 commands, "),
        "{status}"
    );
    let (_, status) = column_text(&page, &resetting.address().to_string());
    assert!(status.starts_with("all 2 commands sent, "), "{status}");
    proxy.finish();
}

/// A SOCKS server that sends this reply to every client, and closes the connection.
fn socks_server_with_reply(reply: &'static [u8]) -> Origin {
    Origin::start(move |stream| {
        let _request = read_exactly(&stream, 9);
        write(&stream, reply);
    })
}

#[test]
fn w10_every_socks_error_has_its_own_message() {
    let shell = "127.0.0.1:7000".parse().unwrap();
    let closed_port = endpoints::CLOSED.into();
    for (reply, message) in [
        (
            &b"\0\x5b\0\0\0\0\0\0"[..],
            "refused: 91 request rejected or failed",
        ),
        (
            b"\0\x5c\0\0\0\0\0\0",
            "refused: 92 request rejected: no identd",
        ),
        (
            b"\0\x5d\0\0\0\0\0\0",
            "refused: 93 request rejected: identd reports",
        ),
        (b"\0\x5a\0\0\0\0\0", "after 7 bytes"),
        (b"", "nothing was received"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "invalid version 0x48"),
        (b"\0\x5f\0\0\0\0\0\0", "invalid reply code 95"),
    ] {
        let socks = socks_server_with_reply(reply);
        let query = query_row(1, shell, "t1.txt", socks.address())
            + &query_row(2, shell, "t1.txt", closed_port)
            + "format=text";
        let page = Console::new(&[("t1.txt", "a\n")]).page(&query);
        let (_, status) = column_text(&page, "127.0.0.1:7000 (1)");
        assert!(status.contains(message), "{status}");
        let (_, status) = column_text(&page, "127.0.0.1:7000 (2)");
        let refused = "cannot reach the SOCKS server 127.0.0.1:1: Connection refused";
        assert!(status.contains(refused), "{status}");
    }
}

#[test]
fn w10_output_in_the_same_segment_as_the_reply_is_kept() {
    let (sender, requests) = channel();
    let socks = Origin::start(move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut request = vec![0; 8];
        reader.read_exact(&mut request).unwrap();
        reader.read_until(0, &mut request).unwrap();
        if request[4..7] == [0, 0, 0] {
            reader.read_until(0, &mut request).unwrap();
        }
        sender.send(request).unwrap();
        write(&stream, &[GRANTED, b"early\n% "].concat());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "exit\n");
    });
    let mut console = Console::new(&[("t1.txt", "exit")]);
    for (host, request) in [
        ("127.0.0.1", &b"\x04\x01\x00\x07\x7f\x00\x00\x01\x00"[..]),
        (
            "Shell.Example.",
            b"\x04\x01\x00\x07\x00\x00\x00\x01\x00shell.example.\x00",
        ),
    ] {
        let query = format!(
            "h1={host}&p1=7&f1=t1.txt&sh=127.0.0.1&sp={}&format=text",
            socks.port()
        );
        let (output, status) = column_text(&console.page(&query), &format!("{host}:7"));
        assert_eq!(output, "early\n% exit\n");
        assert!(status.contains(" sent, "), "{status}");
        assert_eq!(requests.recv_timeout(TIMEOUT).unwrap(), request);
    }
}

#[test]
fn a_long_transcript_has_no_download_link() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        let count: usize = session.read_line().trim().parse().unwrap();
        session.write(&"a".repeat(count));
        session.write("\n% ");
        session.read_line();
    });
    for (count, offered) in [("1000", true), ("1048000", true), ("1048576", false)] {
        let query = query_row(1, shell.address(), "t1.txt", proxy.address());
        let page = Console::new(&[("t1.txt", count)]).page(&query);
        assert_eq!(page.contains(" download="), offered, "{count}");
        assert_eq!(
            page.contains("This transcript exceeds 1 MiB"),
            !offered,
            "{count}"
        );
    }
    proxy.finish();
}

#[test]
fn w09_prompts_are_found_after_colours_nul_bytes_and_unfinished_sequences() {
    let proxy = Proxy::open();
    for (prompt, shown) in [
        ("% \0", "% b\n"),
        ("\u{1b}[32m% \u{1b}[0m", "% b\n"),
        ("\u{1b}]0;a title\u{7}\u{1b}(B\u{1b}[m% ", "% b\n"),
        ("\u{1b}]0;a title that never ends\n% ", "\n% b\n"),
    ] {
        let shell = ScriptedShell::start(move |session| {
            session.write(prompt);
            session.read_line();
            session.write(prompt);
            session.read_line();
            session.write("seen\n");
            session.write(prompt);
            session.read_line();
        });
        let query = query_row(1, shell.address(), "t1.txt", proxy.address()) + "format=text";
        let page = Console::new(&[("t1.txt", "a\nb\n")]).page(&query);
        let (output, status) = column_text(&page, &shell.address().to_string());
        assert!(
            status.starts_with("all 2 commands sent"),
            "{prompt:?}: {page}"
        );
        assert!(
            output.contains(&format!("{shown}seen\n")),
            "{prompt:?}: {output}"
        );
    }
    proxy.finish();
}

/// A shell that stops reading must not have the status of a finished shell.
#[test]
fn lines_that_were_not_sent_are_not_counted() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        let prompts = "% ".repeat(450_000);
        session.write(&prompts);
        endpoints::reset_on_close(&session.stream);
    });
    let lines = "a\n".repeat(400_000) + "exit\n";
    let query = query_row(1, shell.address(), "t1.txt", proxy.address()) + "format=text";
    let page = Console::new(&[("t1.txt", &lines)]).page(&query);
    let (_, status) = column_text(&page, &shell.address().to_string());
    assert!(!status.contains("400001 of 400001"), "{status}");
    proxy.finish();
}

/// Takes 15 seconds, the console's timeout after `exit`.
#[test]
fn w28_a_connection_left_open_after_exit_is_done_after_15_seconds() {
    let proxy = Proxy::open();
    let open = ScriptedShell::start(|session| {
        session.write("% ");
        assert_eq!(session.read_line(), "exit\n");
        session.write("bye\n% ");
        // Until the console closes.
        session.stream.set_read_timeout(Some(LONG_TIMEOUT)).unwrap();
        assert_eq!(session.read_line(), "");
    });
    let query = query_row(1, open.address(), "t1.txt", proxy.address()) + "format=text";
    let mut console = Console::new(&[("t1.txt", "exit\n")]).with_env("CONSOLE_LIMIT", "60s");
    let page = console.page(&query);
    let (output, status) = column_text(&page, &open.address().to_string());
    assert_eq!(output, "% exit\nbye\n% \n");
    let expected = "1 command sent (left open by the SOCKS server), 15 s";
    assert_eq!(status, expected, "{page}");
    assert!(page.contains("1 done; 1 of 1 command; 15 s"), "{page}");
    assert_eq!(open.received(), "exit\n");
    proxy.finish();
}

#[test]
fn w29_rows_without_a_socks_server_connect_directly_if_the_administrator_permits_it() {
    let shell = ScriptedShell::with_prompts_only();
    let at = shell.address();
    let row = |host: &str| format!("h1={host}&p1={}&f1=t1.txt&format=text", at.port());
    let console =
        |value: &str| Console::new(&[("t1.txt", "ls\n")]).with_env("CONSOLE_DIRECT", value);
    for host in ["127.0.0.1", "localhost"] {
        let page = console("1").page(&row(host));
        assert!(
            page.contains(
                ":{} # t1.txt directly\n"
                    .replace("{}", &at.port().to_string())
                    .as_str()
            ),
            "{page}"
        );
        assert!(
            page.contains("# connected, no prompt yet") || page.contains("# running"),
            "{page}"
        );
        assert!(page.contains("# 1 command sent, "), "{page}");
        assert!(!page.contains("SOCKS"), "{page}");
        assert_eq!(shell.received(), "ls\nexit\n");
    }
    for value in ["", "0"] {
        let page = console(value).page(&row("127.0.0.1"));
        assert!(page.contains("no SOCKS server is named"), "{page}");
    }
    let output = console("yes")
        .start(&row("127.0.0.1"))
        .wait_for_exit(LONG_TIMEOUT);
    assert!(
        output.text().contains("no SOCKS server is named"),
        "{output:#?}"
    );
    assert!(output.stderr.contains("CONSOLE_DIRECT"), "{output:#?}");
    let closed = console("1").page("h1=127.0.0.1&p1=1&f1=t1.txt&format=text");
    assert!(
        closed.contains("cannot reach the shell 127.0.0.1:1: "),
        "{closed}"
    );
    let page = console("1").page("h1=127.0.0.1&p1=1&f1=t1.txt&sh=localhost&format=text");
    assert!(page.contains("no port is given"), "{page}");
}
