//! Query strings, the panel, batch files, and restrictions on requests.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::console_cgi::{Console, assert_success, column_text, query_row, split_headers};
use crate::support::endpoints;
use crate::support::project::console_binary;
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;

#[test]
fn w01_command_line_arguments_are_ignored() {
    for argument in [&b"-h"[..], b"--version", b"\xff", b"a=b"] {
        let mut console = Console::new(&[]);
        console.command.arg(std::ffi::OsStr::from_bytes(argument));
        let page = console.page("");
        assert!(
            page.contains("<form method=\"post\" action=\"?\">"),
            "{page}"
        );
    }
}

#[test]
fn w02_every_query_gets_a_page() {
    let mut console = Console::new(&[("t1.txt", "ls\n")]);
    console.command.env_remove("QUERY_STRING");
    let without_query =
        assert_success(&RunningChild::start(&mut console.command, b"").wait_for_exit(LONG_TIMEOUT));
    let long = format!("h1={}", "a&=%".repeat(25_000));
    for query in [
        "",
        "h0=a&h0=b",
        "%zz&%00",
        "h1",
        "&&&",
        "hx=1&h-1=2&h9=3",
        &long,
    ] {
        let page = console.page(query);
        assert!(
            page.ends_with("</form>\n</main>\n</body>\n</html>\n"),
            "{page}"
        );
    }
    let invalid_utf8 = std::ffi::OsStr::from_bytes(b"h1=\xff\xfe&p1=\xff");
    let output = assert_success(
        &RunningChild::start(console.command.env("QUERY_STRING", invalid_utf8), b"")
            .wait_for_exit(LONG_TIMEOUT),
    );
    assert!(output.contains("value=\"\u{fffd}\u{fffd}\""), "{output}");
    assert!(
        without_query.contains("<option value=\"t1.txt\">"),
        "{without_query}"
    );
}

#[test]
fn w03_w23_form_values_do_not_reach_the_headers() {
    let mut console = Console::new(&[]);
    let plain = console.page("");
    let injected = console.page("h1=a%0d%0aSet-Cookie:x%0d%0a%0d%0a&p1=%0d%0a1&format=%0d%0ahtml");
    let without_nonce = |page: &str| -> Vec<String> {
        let (headers, _) = split_headers(page);
        headers
            .split("\r\n")
            .map(|line| {
                line.split_once("nonce")
                    .map_or(line, |(before, _)| before)
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(without_nonce(&plain), without_nonce(&injected));
    assert!(plain.starts_with("Content-Type: text/html; charset=utf-8\r\n"));
    assert!(plain.contains("\r\nContent-Encoding: none\r\n"));
    assert!(plain.contains("\r\nX-Content-Type-Options: nosniff\r\n"));
}

#[test]
fn w04_w20_each_error_is_shown_in_its_own_column() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let (at, socks) = (shell.address(), proxy.address());
    let query = [
        query_row(1, at, "t1.txt", socks).replace("p1=", "p1=80abc&x="),
        query_row(2, at, "", socks),
        query_row(3, at, "t1.txt", socks),
        query_row(4, at, "t1.txt", socks).replace("sh4=", "sh4=&x="),
        query_row(5, at, "t1.txt", socks).replace("h5=", "h5=%3Cb%3E&x="),
    ];
    let page = Console::new(&[("t1.txt", "ls\n")]).page(&query.concat());
    for error in [
        "&quot;80abc&quot; is no port",
        "no batch file is named",
        "no SOCKS server is named",
        "&quot;&lt;b&gt;&quot; is no host name",
    ] {
        assert!(page.contains(error), "{error}: {page}");
    }
    assert!(
        page.contains("1 done, 4 failed; 1 of 1 command; "),
        "{page}"
    );
    assert_eq!(shell.received(), "ls\nexit\n");
    proxy.finish();
}

#[test]
fn w05_only_regular_files_of_the_folder_are_read() {
    let mut console = Console::new(&[("regular.txt", "ls\n")]);
    let folder = console.batch_folder();
    fs::create_dir(folder.join("folder")).unwrap();
    mkfifo(&folder.join("pipe"), Mode::S_IRWXU).unwrap();
    symlink("/etc/passwd", folder.join("link")).unwrap();
    symlink("regular.txt", folder.join("inside")).unwrap();
    fs::File::create(folder.join("big"))
        .unwrap()
        .set_len(5 << 30)
        .unwrap();
    fs::write(folder.join("over"), vec![b'\n'; (1 << 20) + 1]).unwrap();
    let closed = endpoints::CLOSED.into();
    for (file, error) in [
        ("folder", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("link", "cannot use the batch file link"),
        ("inside", "cannot use the batch file inside"),
        ("big", "it is over 1 MiB"),
        ("over", "it is over 1 MiB"),
        ("missing", "no such batch file: missing"),
        ("..%2F..%2Fetc%2Fpasswd", "a batch file's name has"),
        ("%2Fetc%2Fpasswd", "a batch file's name has"),
        ("regular.txt%00", "a batch file's name has"),
        ("..", "a batch file's name has"),
    ] {
        let query = format!("{}format=text", query_row(1, closed, file, closed));
        let page = console.page(&query);
        let (_, status) = column_text(&page, "127.0.0.1:1");
        assert!(status.contains(error), "{file}: {status}");
    }
    // A file of exactly the size limit (1 MiB) is accepted.
    fs::write(folder.join("exact"), vec![b'\n'; 1 << 20]).unwrap();
    let query = format!("{}format=text", query_row(1, closed, "exact", closed));
    let (_, status) = column_text(&console.page(&query), "127.0.0.1:1");
    assert!(status.contains("cannot reach the SOCKS server"), "{status}");
}

#[test]
fn both_query_formats_run() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let (at, socks) = (shell.address(), proxy.address());
    let old_format = format!(
        "h0=127.0.0.1&p0={}&f0=t1.txt&h4=127.0.0.1&p4={}&f4=t1.txt&h1=&p1=&f1=&sh=127.0.0.1&sp={}",
        at.port(),
        at.port(),
        socks.port()
    );
    for query in [
        old_format,
        query_row(1, at, "t1.txt", socks) + &query_row(5, at, "t1.txt", socks),
    ] {
        let page = Console::new(&[("t1.txt", "a\n")]).page(&query);
        assert!(page.contains("2 done; 2 of 2 commands; "), "{page}");
        for id in ["id=\"column1\"", "id=\"column5\""] {
            assert!(page.contains(id), "{id}");
        }
    }
    proxy.finish();
}

#[test]
fn w12_proxy_environment_variables_are_ignored() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let query = query_row(1, shell.address(), "t1.txt", proxy.address());
    let mut console = Console::new(&[("t1.txt", "a\n")])
        .with_env("HTTP_PROXY", "http://127.0.0.1:1")
        .with_env("ALL_PROXY", "socks4://127.0.0.1:1")
        .with_env("SOCKS_SERVER", "127.0.0.1:1")
        .with_env("PATH_INFO", "/etc/passwd")
        .with_env("REQUEST_METHOD", "POST");
    let page = console.page(&query);
    assert!(page.contains("1 done; "), "{page}");
    assert_eq!(proxy.screen_messages(1).len(), 1);
    proxy.finish();
}

#[test]
fn w19_console_allow_limits_the_destinations() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let (at, socks) = (shell.address(), proxy.address());
    let query = query_row(1, at, "t1.txt", socks) + "format=text";
    let run = |allow: &str| {
        let mut console = Console::new(&[("t1.txt", "a\n")]).with_env("CONSOLE_ALLOW", allow);
        console.start(&query).wait_for_exit(LONG_TIMEOUT)
    };
    let page = assert_success(&run(&format!("*.example:*, {at}, {socks}")));
    assert!(page.contains("1 done; "), "{page}");
    for allow in [at.to_string(), socks.to_string(), String::new()] {
        let page = assert_success(&run(&allow));
        assert!(page.contains("does not permit"), "{page}");
    }
    let output = run(&format!("{at}, {socks}, nonsense"));
    assert!(output.text().contains("does not permit"), "{output:#?}");
    assert!(
        output.stderr.contains("\"nonsense\" is not HOST:PORTS"),
        "{output:#?}"
    );
    assert_eq!(proxy.screen_messages(1).len(), 1);
    proxy.finish();
}

#[test]
fn w21_a_head_request_runs_nothing() {
    let proxy = Proxy::open();
    let query = query_row(1, endpoints::CLOSED.into(), "t1.txt", proxy.address());
    let mut console = Console::new(&[("t1.txt", "a\n")]).with_env("REQUEST_METHOD", "HEAD");
    let page = console.page(&query);
    let (headers, body) = split_headers(&page);
    assert!(headers.starts_with("Content-Type: text/html"));
    assert_eq!(body, "");
    // After a connection of the test itself, the proxy has reported no request.
    endpoints::dial(proxy.address());
    proxy.assert_resources_released();
    assert_eq!(proxy.screen_messages(0).len(), 0);
    proxy.finish();
}

#[test]
fn the_panel_keeps_its_values_and_shows_errors() {
    let mut console = Console::new(&[("t1.txt", "ls\n"), (".hidden", ""), ("b.txt", "")]);
    let page = console.page("h0=a&p0=80abc&f0=t1.txt&sh=s%22%3E&sp=1080&h2=b");
    for shown in [
        "<input id=\"h1\" name=\"h1\" value=\"a\"",
        "<input id=\"p1\" name=\"p1\" value=\"80abc\"",
        "id=\"p1-error\">&quot;80abc&quot; is no port",
        "aria-describedby=\"p1-error\"",
        "<input id=\"h3\" name=\"h3\" value=\"b\"",
        "id=\"f3-error\">no batch file is named",
        "<input id=\"sh\" name=\"sh\" value=\"s&quot;&gt;\"",
        "<option value=\"b.txt\"><option value=\"t1.txt\"></datalist>",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("id=\"h2-error\""), "{page}");
    // `edit=1` shows the panel, although the row is complete.
    let page = console.page("h1=127.0.0.1&p1=1&f1=t1.txt&sh=127.0.0.1&sp=1&edit=1");
    assert!(
        page.contains("<form") && !page.contains("class=\"error\""),
        "{page}"
    );
    let page = console.page("sh=127.0.0.1&sp=1080");
    assert!(
        page.contains("<a href=\"#h1\">Shell 1, shell server: no row names a shell server"),
        "{page}"
    );
}

/// The folder of the console's binary is not used.
#[test]
fn batch_files_are_read_from_the_working_directory() {
    let binary = console_binary();
    assert!(!binary.parent().unwrap().join("test_case").exists());
    let page = Console::new(&[("only-here.txt", "")]).page("");
    assert!(page.contains("only-here.txt"), "{page}");
}
