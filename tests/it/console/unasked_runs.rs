//! A batch runs only when the user asks for it: the messages of the SOCKS server count the runs.

use std::fs;

use crate::console::in_browser::{browser_tools_installed, press_run};
use crate::support::apache::{APACHE, Apache};
use crate::support::browser::{Browser, PLAIN_HOST, WebBrowser};
use crate::support::child::LONG_TIMEOUT;
use crate::support::console_cgi::{Console, query_row, split_headers};
use crate::support::firefox::{FIREFOX, Firefox};
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::tools::is_installed;
use crate::support::wait::until;

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64)";

/// The form of the page is shown with its values, and nothing has run.
fn assert_is_form(page: &str, shell: &ScriptedShell) {
    let kept = format!("name=\"p1\" value=\"{}\"", shell.address().port());
    assert!(page.contains(&kept), "{page}");
    assert!(page.contains("Nothing runs yet"), "{page}");
    assert!(!page.contains(" done; "), "{page}");
}

/// The console with a batch file, with its own folder for tokens, asked by a browser.
fn console_for_browser() -> Console {
    let console = Console::new(&[("t1.txt", "a\n")]);
    let folder = console.folder.path().to_owned();
    console
        .with_env("CONSOLE_RUNS", folder.to_str().unwrap())
        .with_env("HTTP_USER_AGENT", BROWSER)
        .with_env("HTTP_HOST", "127.0.0.1:8080")
}

/// The target of a redirect, without its `?`.
fn redirect_target(page: &str) -> String {
    let (headers, body) = split_headers(page);
    assert!(headers.starts_with("Status: 303 See Other\r\n"), "{page}");
    let location = headers
        .lines()
        .find_map(|line| line.strip_prefix("Location: ?"));
    let target = location.expect("a location").to_owned();
    let in_html = target.replace('&', "&amp;");
    assert!(
        body.contains(&format!("content=\"0;url=?{in_html}\"")),
        "{body}"
    );
    target
}

#[test]
fn w24_the_form_redirects_to_one_run() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let mut console = console_for_browser().with_env("HTTP_ORIGIN", "http://127.0.0.1:8080");
    let rows = query_row(1, shell.address(), "t1.txt", proxy.address());
    let target = redirect_target(&console.post(&rows));
    assert!(target.starts_with(&rows), "{target}");
    let tokens = || {
        let entries = fs::read_dir(console.folder.path()).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().contains("-once-"))
            .count()
    };
    assert_eq!(tokens(), 1);
    // The rows of the URL do not count.
    let changed = target.replace("f1=t1.txt", "f1=t2.txt");
    let mut get = Console::new(&[("t1.txt", "a\n")]);
    get.command.env("CONSOLE_RUNS", console.folder.path());
    let page = get.page(&changed);
    assert!(page.contains("1 done; "), "{page}");
    assert_eq!(tokens(), 0);
    // A program repeats nothing by itself, so it needs no token.
    assert!(get.page(&target).contains("1 done; "));
    // Even a click cannot use the token again, and it does not count as a click.
    let mut click = console
        .with_env("HTTP_SEC_FETCH_SITE", "same-origin")
        .with_env("HTTP_SEC_FETCH_USER", "?1")
        .with_env("HTTP_SEC_FETCH_DEST", "document");
    assert_is_form(&click.page(&target), &shell);
    assert!(click.page(&rows).contains("1 done; "));
    assert_eq!(proxy.screen_messages(3).len(), 3);
    proxy.finish();
}

#[test]
fn w24_a_form_with_errors_or_of_another_site_is_shown_again() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let rows = query_row(1, shell.address(), "t1.txt", proxy.address());
    let mut own = console_for_browser().with_env("HTTP_ORIGIN", "http://127.0.0.1:8080");
    let page = own.post("h1=a&p1=x");
    assert!(page.contains("&quot;x&quot; is no port"), "{page}");
    let mut foreign = console_for_browser().with_env("HTTP_ORIGIN", "http://evil.example");
    assert_is_form(&foreign.post(&rows), &shell);
    let mut too_long = console_for_browser();
    let page = too_long.post(&"x".repeat(64 * 1024 + 1));
    assert!(page.contains("The rows did not arrive"), "{page}");
    // A folder that cannot be written.
    let mut no_folder = own.with_env("CONSOLE_RUNS", "/proc/no-such-folder");
    let output = no_folder.start_post(&rows).wait_for_exit(LONG_TIMEOUT);
    assert!(output.text().contains("cannot write a file"), "{output:#?}");
    assert!(
        output.stderr.contains("no token for a run in"),
        "{output:#?}"
    );
    assert_eq!(proxy.screen_messages(0).len(), 0);
    proxy.finish();
}

#[test]
fn w26_programs_run_at_once_unless_a_foreign_page_led_them_here() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let rows = query_row(1, shell.address(), "t1.txt", proxy.address());
    let program = || console_for_browser().with_env("HTTP_USER_AGENT", "curl/8.0");
    assert!(program().page(&rows).contains("1 done; "));
    assert!(program().post(&rows).contains("1 done; "));
    let mut referred = program().with_env("HTTP_REFERER", "http://evil.example/");
    assert_is_form(&referred.page(&rows), &shell);
    assert_is_form(&referred.post(&rows), &shell);
    assert_eq!(proxy.screen_messages(2).len(), 2);
    proxy.finish();
}

#[test]
fn w27_a_foreign_host_name_gets_a_page_that_says_what_to_set() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let rows = query_row(1, shell.address(), "t1.txt", proxy.address());
    let at = |host: &str| {
        console_for_browser()
            .with_env("HTTP_USER_AGENT", "curl/8.0")
            .with_env("HTTP_HOST", host)
    };
    for query in ["", &rows, &format!("{rows}format=text")] {
        let page = at("evil.example:8080").page(query);
        assert!(page.starts_with("Status: 403 Forbidden\r\n"), "{page}");
        assert!(page.contains("CONSOLE_HOST"), "{page}");
        assert!(
            !page.contains("t1.txt") && !page.contains("<form"),
            "{page}"
        );
    }
    let page = at("evil.example").post(&rows);
    assert!(page.contains("evil.example"), "{page}");
    let page = at("<b>").page("");
    assert!(
        page.contains("&lt;b&gt;") && !page.contains("<b>"),
        "{page}"
    );
    let mut without_host = at("");
    without_host.command.env_remove("HTTP_HOST");
    let named = at("Lab.example:8080").with_env("CONSOLE_HOST", "other.example, lab.example");
    for mut console in [without_host, named, at("localhost:8080"), at("[::1]")] {
        assert!(console.page(&rows).contains("1 done; "));
    }
    assert_eq!(proxy.screen_messages(4).len(), 4);
    let mut invalid = at("lab.example").with_env("CONSOLE_HOST", "lab.example, lab:80");
    let output = invalid.start(&rows).wait_for_exit(LONG_TIMEOUT);
    assert!(output.text().contains("403"), "{output:#?}");
    assert!(
        output.stderr.contains("\"lab:80\" is no host name"),
        "{output:#?}"
    );
    proxy.finish();
}

/// Configuration that admits the name of a machine that is not on loopback for a browser.
const PLAIN_HTTP: &str = "\
<Location \"/cgi-bin/console.cgi\">
    Require all granted
    SetEnv CONSOLE_HOST plain.test
</Location>
";

/// A run of one row in a browser, and the number of runs that were asked for.
struct History<B> {
    browser: B,
    apache: Apache,
    proxy: Proxy,
    shell: ScriptedShell,
    host: &'static str,
    runs: usize,
}

impl<B: WebBrowser> History<B> {
    fn start(browser: B, host: &'static str) -> History<B> {
        let configuration = if host == PLAIN_HOST { PLAIN_HTTP } else { "" };
        History {
            browser,
            apache: Apache::start_with(&[("a.txt", "a\n"), ("wait.txt", "wait\n")], configuration),
            proxy: Proxy::open(),
            // A command that does not end, and one that ends at once.
            shell: ScriptedShell::start(|session| {
                session.write("% ");
                if session.read_line() == "wait\n" {
                    session.read_line();
                } else {
                    session.write("% ");
                    session.read_line();
                }
            }),
            host,
            runs: 0,
        }
    }

    fn url(&self, file: &str) -> String {
        let row = query_row(1, self.shell.address(), file, self.proxy.address());
        self.apache.console_at(self.host, &row)
    }

    fn press_run(&mut self) {
        press_run(&self.browser);
        self.runs += 1;
    }

    /// Waits until the complete page has this element and the address contains this text.
    fn wait_for(&self, selector: &str, address: &str) {
        until(selector, || {
            let state = format!(
                "return document.readyState === 'complete' && location.href.includes('{address}') \
                 && document.querySelector('{selector}') !== null"
            );
            (self.browser.run_script(&state) == true).then_some(())
        });
    }

    /// Waits for the form with a notice and with the values of the row.
    fn wait_for_filled_form(&self, address: &str) {
        self.wait_for("form #confirm", address);
        let port = self
            .browser
            .run_script("return document.querySelector('#p1').value");
        assert_eq!(port, self.shell.address().port().to_string());
    }

    /// The last press of Run has its message after those of all runs before it.
    fn finish(mut self) {
        self.browser.navigate(&self.url("a.txt"));
        self.press_run();
        self.wait_for("#sum", "once=");
        let messages = self.proxy.screen_messages(self.runs).len();
        assert_eq!(messages, self.runs, "runs, and presses of Run");
        drop(self.browser);
        self.proxy.finish();
    }
}

#[test]
fn w24_back_reload_and_typed_addresses_show_the_form() {
    if browser_tools_installed() {
        check_history(Browser::open(), "127.0.0.1");
    }
}

#[test]
fn w24_back_reload_and_typed_addresses_show_the_form_over_plain_http() {
    if browser_tools_installed() {
        check_history(Browser::open(), PLAIN_HOST);
    }
}

#[test]
fn w24_back_reload_and_typed_addresses_show_the_form_in_firefox() {
    if firefox_installed() {
        check_history(Firefox::open(), "127.0.0.1");
    }
}

#[test]
fn w24_back_reload_and_typed_addresses_show_the_form_in_firefox_over_plain_http() {
    if firefox_installed() {
        check_history(Firefox::open(), PLAIN_HOST);
    }
}

fn firefox_installed() -> bool {
    is_installed(APACHE, "apache2") && is_installed(FIREFOX, "firefox-esr")
}

fn check_history(browser: impl WebBrowser, host: &'static str) {
    let mut history = History::start(browser, host);
    // A typed address or a bookmark.
    history.browser.navigate(&history.url("a.txt"));
    history.wait_for_filled_form("f1=a.txt");
    history.press_run();
    history.wait_for("#sum", "once=");
    history.browser.reload();
    history.wait_for_filled_form("once=");
    history.browser.back();
    history.wait_for_filled_form("f1=a.txt");
    history.browser.forward();
    history.wait_for_filled_form("once=");
    // From the form after a reload, another run, left while it is running.
    history.browser.navigate(&history.url("wait.txt"));
    history.wait_for_filled_form("f1=wait.txt");
    history.press_run();
    history.proxy.screen_messages(history.runs);
    until("the first output", || {
        let text = "return document.querySelector('#board')?.textContent.includes('% wait')";
        (history.browser.run_script(text) == true).then_some(())
    });
    history
        .browser
        .navigate(&history.apache.console_at(host, "left"));
    history.wait_for("main form", "?left");
    history.browser.back();
    history.wait_for_filled_form("once=");
    history.browser.reload();
    history.wait_for_filled_form("once=");
    history.finish();
}

/// Adds a link to the page, and follows it.
fn follow_link(browser: &impl WebBrowser, url: &str) {
    let script = format!(
        "const link = document.createElement('a');
         link.href = '{url}'; link.textContent = 'link'; document.body.append(link); link.focus();
         return document.activeElement === link;"
    );
    until("the focus on the link", || {
        (browser.run_script(&script) == true).then_some(())
    });
    browser.press_focused();
}

#[test]
fn w24_a_link_of_the_same_site_runs_once_and_other_links_show_the_form() {
    if browser_tools_installed() {
        check_links(Browser::open());
    }
}

#[test]
fn w24_a_link_of_the_same_site_runs_once_in_firefox() {
    if firefox_installed() {
        check_links(Firefox::open());
    }
}

fn check_links(browser: impl WebBrowser) {
    let mut history = History::start(browser, "127.0.0.1");
    history.browser.navigate(&history.apache.console("panel"));
    history.wait_for("main form", "?panel");
    follow_link(&history.browser, &history.url("a.txt"));
    history.runs += 1;
    history.wait_for("#sum", "f1=a.txt");
    history.browser.reload();
    history.wait_for_filled_form("f1=a.txt");
    history.browser.back();
    history.wait_for("main form", "?panel");
    history.browser.forward();
    history.wait_for("main form, #sum", "f1=a.txt");
    // A page of another site.
    history.browser.navigate("data:text/html,<p>elsewhere");
    history.wait_for("p", "elsewhere");
    follow_link(&history.browser, &history.url("wait.txt"));
    history.wait_for_filled_form("f1=wait.txt");
    history.finish();
}

/// Over plain http no header tells a click from a reload.
#[test]
fn w24_over_plain_http_a_link_shows_the_form() {
    if !browser_tools_installed() {
        return;
    }
    let history = History::start(Browser::open(), PLAIN_HOST);
    history
        .browser
        .navigate(&history.apache.console_at(PLAIN_HOST, "panel"));
    history.wait_for("main form", "?panel");
    follow_link(&history.browser, &history.url("a.txt"));
    history.wait_for_filled_form("f1=a.txt");
    history.finish();
}
