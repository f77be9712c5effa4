//! The console in Apache, viewed with Chromium and curl.
//!
//! Apache compresses pages, as Debian's default configuration does. A shell server of these
//! tests terminates when a client disconnects without `exit`. Each test therefore checks at its
//! end that the shell servers still run.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::apache::{APACHE, Apache};
use crate::support::browser::{Browser, DESKTOP, ENTER, PHONE, TAB, WebBrowser};
use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::demo_shells::DemoShell;
use crate::support::endpoints;
use crate::support::firefox::Firefox;
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::tools::is_installed;
use crate::support::wait::{until, until_within};

/// A script that returns the visible state of the run page at one moment.
const INSPECT_PAGE: &str = include_str!("inspect_page.js");

/// The content of `test.html`, a file of every shell of the example.
const TEST_HTML: &str = "<!test.html>\n<TITLE>Test</TITLE>\n<BODY>This is a <b>test</b> program\n\
                         for \"shells\" & <i>consoles</i>.\n</BODY>\n</script>\\n\n";

/// The first output of every shell of the example.
const BANNER: &str = "****************************************\n\
                      ** Welcome to the information server. **\n\
                      ****************************************\n";

/// Whether the programs for a test with a browser are installed; otherwise the test is skipped.
pub(super) fn browser_tools_installed() -> bool {
    is_installed(APACHE, "apache2")
        && is_installed("chromedriver", "chromium-driver")
        && is_installed("chromium", "chromium")
}

/// Opens the form with the rows of this URL, and presses Run.
fn run_in(browser: &Browser, url: &str) {
    browser.navigate(url);
    press_run(browser);
}

/// Waits for the form, and presses Run.
pub(super) fn press_run(browser: &impl WebBrowser) {
    until("the form", || {
        let script = "const button = document.querySelector('form button');
            if (document.readyState !== 'complete' || !button) return false;
            button.focus();
            return document.activeElement === button;";
        (browser.run_script(script) == true).then_some(())
    });
    browser.press_focused();
}

/// One row of the form.
struct Row<'a> {
    host: &'a str,
    port: u16,
    file: &'a str,
}

/// The query string for these rows, each through this proxy.
fn query(rows: &[Row<'_>], proxy: &Proxy) -> String {
    let (socks_host, socks_port) = (proxy.address().ip(), proxy.port());
    let rows = rows.iter().zip(1..).map(|(row, n)| {
        let Row { host, port, file } = row;
        format!("h{n}={host}&p{n}={port}&f{n}={file}&sh{n}={socks_host}&sp{n}={socks_port}")
    });
    rows.collect::<Vec<_>>().join("&")
}

/// Five rows with different results, and the servers they connect to.
struct Fixture {
    proxy: Proxy,
    apache: Apache,
    slow: DemoShell,
    refused: DemoShell,
    split: DemoShell,
    normal: DemoShell,
}

/// Runs for long enough that the browser can be inspected meanwhile: the shell prints two times
/// six lines, each after a delay.
const SLOW_BATCH: &str = "cat test.html\nnoop\ncat test.html\nexit\nls\n";

/// For the shell that sends each prompt in two segments.
const SPLIT_PROMPT_BATCH: &str = "printenv PATH\ncat test.html | number\nexit\n";

/// The console adds the missing `exit`.
const BATCH_WITHOUT_EXIT: &str = "ls\ncat test.html\nnonsense\n";

impl Fixture {
    fn start(delay: &str) -> Fixture {
        let refused = DemoShell::start(&[]);
        let rules = format!(
            "deny c 127.0.0.1 {}\npermit c 127. - 127. -\n",
            refused.port()
        );
        Fixture {
            proxy: Proxy::start(&rules, &[]),
            apache: Apache::start(&[
                ("slow.txt", SLOW_BATCH),
                ("split.txt", SPLIT_PROMPT_BATCH),
                ("normal.txt", BATCH_WITHOUT_EXIT),
            ]),
            slow: DemoShell::start(&["--delay", delay]),
            refused,
            split: DemoShell::start(&["--split-prompt"]),
            normal: DemoShell::start(&[]),
        }
    }

    fn url(&self) -> String {
        let row = |host, port, file| Row { host, port, file };
        let rows = [
            row("127.0.0.1", self.slow.port(), "slow.txt"),
            row("127.0.0.1", endpoints::CLOSED.port(), "normal.txt"),
            row("127.0.0.1", self.refused.port(), "normal.txt"),
            row("localhost", self.split.port(), "split.txt"),
            row("127.0.0.1", self.normal.port(), "normal.txt"),
        ];
        self.apache.console(&query(&rows, &self.proxy))
    }

    fn finish(self) {
        for shell in [self.slow, self.refused, self.split, self.normal] {
            shell.assert_alive();
        }
        self.proxy.finish();
    }
}

#[test]
fn five_shells_run_in_one_page() {
    if browser_tools_installed() {
        check_five_shells(&Browser::open());
    }
}

#[test]
fn five_shells_run_in_one_page_without_javascript() {
    if browser_tools_installed() {
        check_five_shells(&Browser::without_javascript());
    }
}

fn check_five_shells(browser: &Browser) {
    let fixture = Fixture::start("400ms");
    run_in(browser, &fixture.url());
    assert_shells_run_in_parallel(browser);
    let page = until("the end of the page", || finished_page(browser));
    assert_results(&page);
    assert_commands_are_bold(&page);
    assert_no_foreign_elements(&page);
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    fixture.finish();
}

/// At one moment, the slow shell has printed its first lines and the normal shell is done.
fn assert_shells_run_in_parallel(browser: &Browser) {
    let page = until(
        "the first lines of the slow shell while another shell is done",
        || {
            let page = browser.run_script(INSPECT_PAGE);
            let columns = &page["columns"];
            let has_begun = text(&columns["column1"]).contains("<TITLE>Test</TITLE>");
            (has_begun && columns["column5"]["status"] == json!(["all 3 commands sent"]))
                .then_some(page)
        },
    );
    let slow = &page["columns"]["column1"];
    assert_eq!(page["sum"], Value::Null, "{page:#}");
    assert_eq!(slow["status"], json!(["running"]), "{page:#}");
    assert_eq!(slow["saved_as"], Value::Null, "{page:#}");
    assert_layout(slow);
}

fn assert_results(page: &Value) {
    let numbered = number_lines(TEST_HTML);
    for (number, transcript) in [
        (
            1,
            format!("% cat test.html\n{TEST_HTML}% noop\n% cat test.html\n{TEST_HTML}% exit\n"),
        ),
        (
            4,
            format!("% printenv PATH\nbin:.\n% cat test.html | number\n{numbered}% exit\n"),
        ),
        (
            5,
            format!(
                "% ls\nbin/\ntest.html\n% cat test.html\n{TEST_HTML}\
                 % nonsense\nUnknown command: [nonsense].\n% exit\n"
            ),
        ),
    ] {
        let column = &page["columns"][format!("column{number}")];
        let status = column["status"].to_string();
        assert!(status.ends_with(" commands sent\"]"), "{column:#}");
        assert_eq!(text(column), format!("{BANNER}{transcript}"));
        // The download link contains a heading and the whole transcript.
        let saved = column["saved"].as_str().expect("a saved transcript");
        let (heading, saved) = saved.split_once('\n').expect("a heading");
        assert!(
            heading.starts_with("# ") && heading.contains(".txt through "),
            "{heading}"
        );
        assert_eq!(saved, text(column));
        assert_layout(column);
    }
    for number in [2, 3] {
        let column = &page["columns"][format!("column{number}")];
        let status = column["status"].to_string();
        assert!(status.starts_with("[\"refused: 91"), "{column:#}");
        assert_eq!(text(column), "", "{column:#}");
        let next_step = column["next_step"].to_string();
        assert!(next_step.contains("--explain"), "{column:#}");
    }
    let sum = page["sum"].as_str().expect("a sum");
    assert!(sum.starts_with("3 done, 2 failed; "), "{sum}");
}

/// Each command is bold and directly after its prompt, and no other text is bold.
fn assert_commands_are_bold(page: &Value) {
    for (number, lines) in [
        (1, vec!["cat test.html", "noop", "cat test.html", "exit"]),
        (2, vec![]),
        (3, vec![]),
        (4, vec!["printenv PATH", "cat test.html | number", "exit"]),
        (5, vec!["ls", "cat test.html", "nonsense", "exit"]),
    ] {
        let bold = |line| json!({ "line": line, "after": "% ", "bold": true });
        let commands = &page["columns"][format!("column{number}")]["commands"];
        assert_eq!(*commands, Value::from_iter(lines.into_iter().map(bold)));
    }
}

/// The state of the page, if the page is complete.
fn finished_page(browser: &Browser) -> Option<Value> {
    let page = browser.run_script(INSPECT_PAGE);
    (!page["sum"].is_null()).then_some(page)
}

fn text(column: &Value) -> &str {
    column["text"].as_str().unwrap_or_default()
}

/// The last line of a column is visible inside its frame. Of all status texts and clock values
/// that arrived, only the last is visible.
fn assert_layout(column: &Value) {
    assert_eq!(column["end_is_visible"], true, "{column:#}");
    assert_eq!(column["text_is_inside"], true, "{column:#}");
    for field in ["status", "clock"] {
        assert_eq!(
            column[field].as_array().map(Vec::len),
            Some(1),
            "{column:#}"
        );
    }
}

/// No output became HTML: it contains tags of elements, of a title, and of a script's end.
fn assert_no_foreign_elements(page: &Value) {
    let allowed = [
        "a", "b", "button", "i", "link", "progress", "span", "template",
    ];
    let found = page["elements"].as_array().expect("a list");
    for element in found {
        assert!(allowed.iter().any(|name| element == name), "{found:#?}");
    }
    assert_eq!(page["scripts"], 0);
    assert_eq!(page["title"], "slow.txt, normal.txt \u{2026} on 5 shells");
}

/// The text as the shell's command `number` prints it.
fn number_lines(text: &str) -> String {
    let lines = text.lines().zip(1..);
    lines
        .map(|(line, number)| format!("{number:>4} {line}\n"))
        .collect()
}

#[test]
fn the_panel_can_be_submitted_by_keyboard_alone() {
    if !browser_tools_installed() {
        return;
    }
    let (proxy, shell) = (Proxy::open(), DemoShell::start(&[]));
    let apache = Apache::start(&[("normal.txt", BATCH_WITHOUT_EXIT)]);
    let browser = Browser::open();
    browser.navigate(&apache.console(""));
    until("the complete panel", || {
        let state = "return document.querySelector('form button') && document.readyState";
        (browser.run_script(state) == "complete").then_some(())
    });
    let focus = || browser.run_script("return document.activeElement.id");
    until("the focus on the first field", || {
        browser.press_keys(TAB);
        (focus() == "sh").then_some(())
    });
    // The own SOCKS server of the first row is folded, and Enter unfolds it.
    for (field, value) in [
        ("sh", "other.test"),
        ("sp", "1"),
        ("f", "normal.txt"),
        ("h1", "127.0.0.1"),
        ("p1", &shell.port().to_string()),
        ("f1", ""),
        ("", ENTER),
        ("sh1", "localhost"),
        ("sp1", &proxy.port().to_string()),
        ("h2", ""),
    ] {
        assert_eq!(focus(), field, "the order of the fields");
        browser.press_keys(&format!("{value}{TAB}"));
    }
    browser.press_keys(ENTER);
    let page = until("the end of the run page", || finished_page(&browser));
    let columns = &page["columns"];
    assert_eq!(
        columns.as_object().map(|columns| columns.len()),
        Some(1),
        "{page:#}"
    );
    assert_eq!(
        columns["column1"]["status"],
        json!(["all 3 commands sent"]),
        "{page:#}"
    );
    let shown = text(&columns["column1"]);
    assert!(shown.contains("% nonsense\nUnknown command"), "{shown}");
    shell.assert_alive();
    proxy.finish();
}

/// A script that returns the value of each field of the panel, and its error if that is visible.
/// The error must be less than 20 pixels below the field, and described as the field's error.
const INSPECT_FIELDS: &str = r#"
const fields = [...document.querySelectorAll('form input[id]')];
const beside = (field) => {
  const error = document.getElementById(field.id + '-error');
  if (!error?.checkVisibility()) return null;
  const [here, there] = [field, error].map((it) => it.getBoundingClientRect());
  const near = there.top >= here.top && there.top - here.bottom < 20
    && there.left >= here.left - 1 && there.left < here.right;
  const described = field.getAttribute('aria-describedby') === error.id;
  return near && described ? error.textContent : 'not beside the field: ' + error.textContent;
};
return document.readyState !== 'complete' ? null : {
  status: performance.getEntriesByType('navigation')[0].responseStatus,
  values: Object.fromEntries(fields.map((it) => [it.id, it.value]).filter((it) => it[1])),
  errors: Object.fromEntries(fields.map((it) => [it.id, beside(it)]).filter((it) => it[1])),
};"#;

#[test]
fn the_browser_shows_errors_beside_their_fields_and_keeps_the_values() {
    if !browser_tools_installed() {
        return;
    }
    let apache = Apache::start(&[]);
    let browser = Browser::open();
    let query = "h1=shell.test&p1=99999&f1=t1.txt&sh1=127.0.0.1&sp1=1080\
                 &h2=%22%3E%3Ci%3E+x&p2=70&f2=..%2Fsecret&sh2=127.0.0.1&sp2=1080";
    browser.navigate(&apache.console(query));
    let panel = until("the panel", || {
        let panel = browser.run_script(INSPECT_FIELDS);
        panel.get("values")?.get("h1")?;
        Some(panel)
    });
    assert_eq!(panel["status"], 200);
    let values = json!({
        "h1": "shell.test", "p1": "99999", "f1": "t1.txt", "sh1": "127.0.0.1", "sp1": "1080",
        "h2": "\"><i> x", "p2": "70", "f2": "../secret", "sh2": "127.0.0.1", "sp2": "1080",
    });
    assert_eq!(panel["values"], values);
    let errors = panel["errors"].as_object().expect("errors");
    let wrong: Vec<&String> = errors.keys().collect();
    assert!(
        wrong
            .iter()
            .all(|it| ["p1", "h2", "f2"].contains(&it.as_str())),
        "{errors:#?}"
    );
    for field in ["p1", "f2"] {
        let shown = errors[field].as_str().expect(field);
        assert!(
            !shown.starts_with("not beside the field"),
            "{field}: {shown}"
        );
    }
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}

/// A script that returns every element that is wider than the screen, and every field whose
/// value is wider than the field.
const FIND_TOO_WIDE: &str = r#"
const all = [document.documentElement, ...document.querySelectorAll('section, input[id]')];
const root = document.querySelector('#board')?.shadowRoot;
const columns = [...(root?.querySelectorAll('section, pre') ?? [])];
const is_too_wide = (it) => it.scrollWidth > Math.min(it.clientWidth, screen.width);
const found = [...all, ...columns].filter(is_too_wide);
return found.map((it) => it.localName + it.id);"#;

#[test]
fn the_pages_fit_on_a_phone_screen() {
    if !browser_tools_installed() {
        return;
    }
    let apache = Apache::start(&[("normal.txt", BATCH_WITHOUT_EXIT)]);
    let browser = Browser::open();
    browser.set_screen(PHONE);
    let row = "h1=192.168.100.1&p1=65535&f1=normal.txt&sh1=127.0.0.1&sp1=1&sh=127.0.0.1&sp=65535";
    browser.navigate(&apache.console(&format!("{row}&edit=1")));
    until("the panel", || {
        browser.run_script(INSPECT_FIELDS).get("values").cloned()
    });
    assert_eq!(browser.run_script(FIND_TOO_WIDE), json!([]));
    run_in(&browser, &apache.console(row));
    until("the end of the run page", || finished_page(&browser));
    assert_eq!(browser.run_script(FIND_TOO_WIDE), json!([]));
}

/// The text before the summary at the end of an HTML page.
const HTML_SUM: &str = "<span slot=\"end\" id=\"sum\">";

/// The text before the summary at the end of a page in plain text.
const TEXT_SUM: &str = "\n# ";

#[test]
fn w18_curl_receives_output_before_the_page_ends() {
    if !is_installed(APACHE, "apache2") || !is_installed("curl", "curl") {
        return;
    }
    let (proxy, shell) = (Proxy::open(), DemoShell::start(&["--delay", "400ms"]));
    let apache = Apache::start(&[("slow.txt", SLOW_BATCH)]);
    // Proves that this Apache compresses pages.
    let control = curl(&apache.url("control.html")).wait_for_exit(LONG_TIMEOUT);
    assert!(
        head(&control.text()).contains("content-encoding: gzip"),
        "{control:#?}"
    );

    // The older query format, for both formats of the page.
    let query = format!(
        "h0=127.0.0.1&p0={}&f0=slow.txt&sh=127.0.0.1&sp={}",
        shell.port(),
        proxy.port()
    );
    let mut as_html = curl(&apache.console(&query));
    let mut as_text = curl(&apache.console(&format!("{query}&format=text")));
    let contains = |curl: &mut RunningChild, line: &str| {
        curl.assert_running();
        curl.stdout_so_far().contains(line)
    };
    until("the first lines of both pages", || {
        let html = contains(&mut as_html, "&lt;TITLE&gt;");
        let text = contains(&mut as_text, "| <TITLE>");
        (html && text).then_some(())
    });
    assert!(!contains(&mut as_html, HTML_SUM), "the page is complete");
    assert!(!contains(&mut as_text, TEXT_SUM), "the page is complete");
    for (curl, sum) in [(as_html, HTML_SUM), (as_text, TEXT_SUM)] {
        let output = curl.wait_for_exit(LONG_TIMEOUT);
        assert!(output.status.success(), "{output:#?}");
        let page = output.text();
        let head = head(&page);
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        assert!(!head.contains("gzip"), "{head}");
        assert!(page.contains(&format!("{sum}1 done; ")), "{page}");
    }
    shell.assert_alive();
    proxy.finish();
}

#[test]
fn w14_closing_the_connection_ends_the_console() {
    assert_console_ends_after(|curl, _| drop(curl));
}

#[test]
fn w16_killing_the_web_server_ends_the_console() {
    assert_console_ends_after(|_curl, apache| apache.kill());
}

/// Starts a page on which only the clock changes, triggers the event, and waits for the end of
/// the console process.
fn assert_console_ends_after(event: impl FnOnce(RunningChild, &Apache)) {
    if !is_installed(APACHE, "apache2") || !is_installed("curl", "curl") {
        return;
    }
    let (proxy, shell) = (Proxy::open(), DemoShell::start(&["--hang"]));
    let apache = Apache::start(&[("normal.txt", BATCH_WITHOUT_EXIT)]);
    let row = Row {
        host: "127.0.0.1",
        port: shell.port(),
        file: "normal.txt",
    };
    let curl = curl(&apache.console(&query(&[row], &proxy)));
    until("the column of the shell", || {
        curl.stdout_so_far().contains(">granted").then_some(())
    });
    assert!(apache.has_console());
    event(curl, &apache);
    until("the end of the console process", || {
        (!apache.has_console()).then_some(())
    });
    shell.assert_alive();
    proxy.finish();
}

/// Fetches a page with its headers, and accepts compression. The user's curl configuration and
/// proxy settings are ignored.
fn curl(url: &str) -> RunningChild {
    let mut command = Command::new("curl");
    command
        .args(["-q", "--silent", "--show-error", "--noproxy", "*"])
        .args(["--compressed", "--no-buffer", "--include", url]);
    RunningChild::start(&mut command, b"")
}

/// The status line and headers of a response, in lower case.
fn head(response: &str) -> String {
    let (head, _) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    head.to_lowercase()
}

/// Limit of the console's peak memory in kB, for pages of any size: output is streamed, and of
/// each column at most 1 MiB of the transcript is kept for its download link.
const MAX_MEMORY_KB: u64 = 20 * 1024;

#[test]
#[ignore = "measures Chromium, which other tests at the same time slow down"]
fn five_shells_with_6_000_lines_each_finish_within_five_seconds() {
    if browser_tools_installed() {
        // Three attempts, since other load on the machine can slow one down.
        let is_quick = (0..3).any(|_| print_in_five_shells(&[10, 10, 10]) < 5.0);
        assert!(is_quick, "no attempt took less than five seconds");
    }
}

#[test]
#[ignore = "measures Chromium, which other tests at the same time slow down"]
fn five_shells_with_30_000_lines_each_are_shown() {
    if browser_tools_installed() {
        print_in_five_shells(&[10, 10, 10, 5]);
    }
}

/// Five shells print the file as many times as the product of the factors. Returns the seconds
/// until the page is complete in the browser.
fn print_in_five_shells(factors: &[usize]) -> f64 {
    let copies = factors.iter().product::<usize>();
    let shells: Vec<DemoShell> = (0..5).map(|_| DemoShell::start(&[])).collect();
    let ports: Vec<u16> = shells.iter().map(DemoShell::port).collect();
    let browser = Browser::open();
    let seconds = show(&browser, &ports, &multiplying_batch(factors));
    let lines = copies * TEST_HTML.lines().count();
    report(&format!(
        "five shells with {lines} lines each: {seconds:.2} s"
    ));
    let page = browser.run_script(INSPECT_PAGE);
    for number in 1..=5 {
        let column = &page["columns"][format!("column{number}")];
        assert_eq!(text(column).matches(TEST_HTML).count(), copies);
        for fact in ["end_is_visible", "text_is_inside"] {
            assert_eq!(column[fact], true, "{fact} in column {number}");
        }
    }
    for shell in shells {
        shell.assert_alive();
    }
    seconds
}

/// Runs this batch file on all shells. Returns the seconds until the page is complete in the
/// browser.
fn show(browser: &Browser, ports: &[u16], batch: &str) -> f64 {
    let proxy = Proxy::open();
    let apache = Apache::start(&[("long.txt", batch)]);
    let row = |&port| Row {
        host: "127.0.0.1",
        port,
        file: "long.txt",
    };
    let rows: Vec<Row<'_>> = ports.iter().map(row).collect();
    browser.navigate(&apache.console(&query(&rows, &proxy)));
    until("the end of the form's console", || {
        (browser.run_script("return document.readyState") == "complete" && !apache.has_console())
            .then_some(())
    });
    let start = Instant::now();
    let (sum, seconds, peak) = thread::scope(|scope| {
        let memory = scope.spawn(|| apache.peak_memory_of_next_run());
        press_run(browser);
        let sum = until_within(LONG_TIMEOUT, "a complete page", || {
            let sum = browser.run_script("return document.querySelector('#sum')?.textContent");
            sum.as_str().map(str::to_owned)
        });
        let seconds = start.elapsed().as_secs_f64();
        let peak = memory.join().expect("the thread that measures the memory");
        (sum, seconds, peak)
    });
    report(&format!("peak memory of the console: {peak} kB"));
    assert!(peak < MAX_MEMORY_KB, "{peak} kB");
    let all = ports.len();
    assert!(sum.starts_with(&format!("{all} done; ")), "{sum}");
    proxy.finish();
    seconds
}

/// Writes a measured value. Not with `eprintln!`, whose output the test harness captures.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Lines of 76 characters that [`wide_lines`] has.
const WIDE_LINES: usize = 30_000;

/// Lines with characters that the page escapes. Some lines are empty.
fn wide_lines() -> String {
    let line = |number: usize| match number % 100 {
        0 => "\n".to_owned(),
        _ => format!("{number:>5} <wide> & \"{}\"\n", "x".repeat(57)),
    };
    (0..WIDE_LINES).map(line).collect()
}

/// A script that defines `expected`, the transcript of a shell that prints [`wide_lines`].
const EXPECTED_TRANSCRIPT: &str = "
const line = (number) => number % 100 === 0 ? ''
  : String(number).padStart(5) + ' <wide> & \"' + 'x'.repeat(57) + '\"';
const lines = Array.from({ length: 30000 }, (_, number) => line(number) + '\\n').join('');
const expected = '% print\\n' + lines + '% exit\\n';";

/// A shell whose first command prints [`wide_lines`].
fn shell_with_wide_lines() -> ScriptedShell {
    ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        session.write(&wide_lines());
        session.write("% ");
        session.read_line();
    })
}

#[test]
#[ignore = "measures Chromium, which other tests at the same time slow down"]
fn w30_five_shells_with_30_000_wide_lines_each_finish_within_five_seconds() {
    if !browser_tools_installed() {
        return;
    }
    // Three attempts, since other load on the machine can slow one down.
    let is_quick = (0..3).any(|_| {
        let browser = Browser::open();
        let shell = shell_with_wide_lines();
        let seconds = show(&browser, &[shell.address().port(); 5], "print\n");
        report(&format!(
            "five shells with {WIDE_LINES} wide lines each: {seconds:.2} s"
        ));
        let columns = browser.run_script(&format!(
            "{EXPECTED_TRANSCRIPT}
             const text = (number) => [...document.querySelectorAll(`[slot=log${{number}}]`)]
               .map((it) => it.textContent).join('');
             return [1, 2, 3, 4, 5].map((number) => text(number) === expected);"
        ));
        assert_eq!(columns, json!([true, true, true, true, true]));
        seconds < 5.0
    });
    assert!(is_quick, "no attempt took less than five seconds");
}

/// A line without an end has 3 MB. Without blocks Chromium would take seconds for its layout.
#[test]
fn w30_a_line_of_megabytes_does_not_block_the_browser() {
    if !browser_tools_installed() {
        return;
    }
    const LENGTH: usize = 3_000_000;
    let shell = ScriptedShell::start(|session| {
        session.write("% ");
        session.read_line();
        session.write(&"x".repeat(LENGTH));
        session.write("\n% ");
        session.read_line();
    });
    let browser = Browser::open();
    show(&browser, &[shell.address().port()], "print\n");
    let shown = browser.run_script(
        "const pieces = [...document.querySelectorAll('[slot=log1]')];
         const longest = Math.max(...pieces.map((it) => it.textContent.length));
         return { text: pieces.map((it) => it.textContent).join('').length, bounded: longest < 200000 };",
    );
    let text = "% print\n".len() + LENGTH + "\n% exit\n".len();
    assert_eq!(shown, json!({ "text": text, "bounded": true }));
}

/// The user selects the whole page: then the browser lays out the blocks that are not visible.
///
/// The clock is removed first. In the document it is between the pieces of the output, so
/// copied text has an additional line end for each of its changes.
#[test]
fn w30_selected_text_and_inner_text_of_blocks_are_the_output() {
    if !browser_tools_installed() {
        return;
    }
    let browser = Browser::open();
    let shell = shell_with_wide_lines();
    show(&browser, &[shell.address().port()], "print\n");
    let shown = browser.run_script(&format!(
        "{EXPECTED_TRANSCRIPT}
         document.querySelectorAll('[slot^=clock]').forEach((it) => it.remove());
         getSelection().selectAllChildren(document.body);
         let inner = '';
         let after_block = false;
         for (const piece of document.querySelectorAll('[slot=log1]')) {{
           const is_block = piece.className === 'bulk';
           inner += (is_block || after_block ? '\\n' : '') + piece.innerText;
           after_block = is_block;
         }}
         return {{
           blocks: document.querySelectorAll('.bulk').length > 100,
           copied: getSelection().toString().includes(expected.trimEnd()),
           inner: inner === expected,
         }};"
    ));
    let all = json!({ "blocks": true, "copied": true, "inner": true });
    assert_eq!(shown, all);
}

/// A batch file that prints `test.html` as many times as the product of the factors.
///
/// `|N` pipes the output of a command into the command N lines later, which concatenates the
/// output of all commands that pipe into it.
fn multiplying_batch(factors: &[usize]) -> String {
    let mut name = "test.html";
    let mut batch = String::new();
    for factor in factors {
        for later in (1..=*factor).rev() {
            batch.push_str(&format!("cat {name} |{later}\n"));
        }
        batch.push_str("cat > long\n");
        name = "long";
    }
    batch.push_str("cat long\nexit\n");
    batch
}

#[test]
#[ignore = "writes into docs/pictures"]
fn pictures() {
    if !browser_tools_installed() {
        return;
    }
    let browser = Browser::open();
    let save = |name: &str| {
        for (kind, screen, scheme) in [
            ("light", DESKTOP, "light"),
            ("dark", DESKTOP, "dark"),
            ("phone", PHONE, "light"),
        ] {
            browser.set_screen(screen);
            browser.set_color_scheme(scheme);
            save_picture(&browser, &format!("{name}-{kind}"));
        }
        browser.set_screen(DESKTOP);
    };
    take_pictures(&browser, save);
    let browser = Firefox::open();
    take_pictures(&browser, |name| {
        save_picture(&browser, &format!("{name}-firefox"));
    });
}

/// Shows the form and a run with running and finished shells, and calls `save` for each with the
/// name of the picture.
fn take_pictures(browser: &impl WebBrowser, save: impl Fn(&str)) {
    // Slow enough to take all pictures while the slow shell runs.
    let fixture = Fixture::start("1s");
    let url = fixture.url();
    let (_, query) = url.split_once('?').expect("a query");
    // The rows share the SOCKS server, as most forms do.
    let names_shell = |pair: &&str| !pair.starts_with('s');
    let shells: Vec<&str> = query.split('&').filter(names_shell).collect();
    let form = format!(
        "{}&sh=127.0.0.1&sp={}&edit=1",
        shells.join("&"),
        fixture.proxy.port()
    );
    browser.navigate(&fixture.apache.console(&form));
    until("the panel", || {
        (browser.run_script("return document.querySelector('form button') !== null") == true)
            .then_some(())
    });
    save("panel");
    browser.navigate(&url);
    press_run(browser);
    until("a page with running and finished shells", || {
        let page = browser.run_script(INSPECT_PAGE);
        let columns = &page["columns"];
        let is_running = text(&columns["column1"]).contains("</BODY>")
            && columns["column4"]["status"] == json!(["all 3 commands sent"])
            && columns["column5"]["status"] == json!(["all 3 commands sent"]);
        is_running.then_some(())
    });
    save("run");
    let page = browser.run_script(INSPECT_PAGE);
    assert_eq!(
        page["sum"],
        Value::Null,
        "the page ended before the pictures were taken: {page:#}"
    );
    until("the end of the page", || {
        let page = browser.run_script(INSPECT_PAGE);
        (!page["sum"].is_null()).then_some(())
    });
    fixture.finish();
}

/// Saves a screenshot for the documents.
fn save_picture(browser: &impl WebBrowser, name: &str) {
    let mut decode = Command::new("base64");
    decode.arg("--decode");
    let picture = browser.screenshot();
    let picture = RunningChild::start(&mut decode, picture.as_bytes()).wait_for_exit(LONG_TIMEOUT);
    assert!(picture.status.success(), "{}", picture.stderr);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    fs::create_dir_all(&folder).expect("a folder for pictures");
    fs::write(folder.join(format!("{name}.png")), picture.stdout)
        .expect("write access to the folder");
}
