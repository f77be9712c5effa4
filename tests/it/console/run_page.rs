//! The page of a run, and the pages of kept runs, in Chromium: what a user sees and presses.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::console::in_browser::{browser_tools_installed, press_run};
use crate::support::apache::Apache;
use crate::support::browser::{Browser, Screen, WebBrowser};
use crate::support::console_cgi::{Console, query_row, split_headers};
use crate::support::demo_shells::DemoShell;
use crate::support::endpoints;
use crate::support::page_checks::{
    assert_axe_finds_nothing, assert_vnu_finds_nothing, page_checkers_installed, vnu_findings,
};
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::wait::until;

/// A run of five rows: two succeed, two fail, and the fourth waits until the shell is told to
/// end it.
struct FiveRows {
    proxy: Proxy,
    apache: Apache,
    shell: DemoShell,
    waiting: ScriptedShell,
    runs: TempDir,
}

/// A shell that prints a long line, and ends the command `wait` when the file exists.
fn shell_that_waits_for(file: std::path::PathBuf) -> ScriptedShell {
    ScriptedShell::start(move |session| {
        session.write("% ");
        session.read_line();
        session.write(&format!("{}\n% ", "long line ".repeat(40)));
        session.read_line();
        until("the end of the command", || file.exists().then_some(()));
        session.write("% ");
        session.prompt_until_exit();
    })
}

impl FiveRows {
    fn start() -> FiveRows {
        let runs = tempfile::tempdir().unwrap();
        // Apache runs the console as another user.
        fs::set_permissions(runs.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let configuration = format!(
            "<Location \"/cgi-bin/console.cgi\">\nSetEnv CONSOLE_RUNS {}\n</Location>\n",
            runs.path().display()
        );
        let files = [
            ("wait.txt", "print\nwait\n"),
            ("ls.txt", "ls\ncat test.html\n"),
        ];
        FiveRows {
            proxy: Proxy::open(),
            apache: Apache::start_with(&files, &configuration),
            shell: DemoShell::start(&[]),
            waiting: shell_that_waits_for(runs.path().join("go")),
            runs,
        }
    }

    fn query(&self) -> String {
        let shell = (std::net::Ipv4Addr::LOCALHOST, self.shell.port()).into();
        let socks = self.proxy.address();
        [
            query_row(1, shell, "ls.txt", socks),
            query_row(2, endpoints::CLOSED.into(), "ls.txt", socks),
            query_row(3, shell, "ls.txt", endpoints::CLOSED.into()),
            query_row(4, self.waiting.address(), "wait.txt", socks),
            query_row(5, shell, "ls.txt", socks),
        ]
        .concat()
    }

    /// Starts the run, and waits until only the fourth row runs.
    fn run(&self, browser: &Browser) {
        browser.navigate(&self.apache.console(&self.query()));
        press_run(browser);
        wait_for_summary(browser, "2 done, 1 running, 2 failed; ");
        until("the last command", || {
            let text = "return document.querySelector('#board').textContent.includes('% wait')";
            (browser.run_script(text) == true).then_some(())
        });
    }

    /// Lets the fourth row end.
    fn end(&self, browser: &Browser) {
        fs::write(self.runs.path().join("go"), "").unwrap();
        until("the end of the run", || {
            let sum = browser.run_script("return document.querySelector('#sum')?.textContent");
            sum.as_str()?
                .starts_with("3 done, 2 failed; 6 of 10 commands; ")
                .then_some(())
        });
    }

    fn finish(self) {
        self.shell.assert_alive();
        self.proxy.finish();
    }
}

/// Waits until the summary that the page shows begins with this text.
fn wait_for_summary(browser: &Browser, start: &str) {
    until(start, || {
        let summary = browser.run_script(
            "return [...document.querySelectorAll('[slot=summary]')].at(-1)?.textContent",
        );
        summary.as_str()?.starts_with(start).then_some(())
    });
}

/// Presses the first button or link that this selector finds.
fn press(browser: &Browser, selector: &str) {
    let script = format!(
        "const found = document.querySelector(`{selector}`);
         found?.focus();
         return found !== null && document.activeElement === found;"
    );
    until(selector, || {
        (browser.run_script(&script) == true).then_some(())
    });
    browser.press_focused();
}

/// Opens the target of this link in the same tab. A press opens another tab.
fn follow(browser: &Browser, selector: &str) {
    let target = browser.run_script(&format!("return document.querySelector(`{selector}`).href"));
    browser.navigate(target.as_str().expect("a target"));
}

/// Waits for the end of another run, and returns the titles of its columns.
fn columns_of_next_run(browser: &Browser, end: &str) -> Value {
    until(end, || {
        let sum = browser.run_script(
            "return document.readyState === 'complete' && !window.oldPage
               && document.querySelector('#sum')?.textContent",
        );
        sum.as_str()?.starts_with(end).then_some(())
    });
    browser.run_script(
        "return [...document.querySelector('#board').shadowRoot.querySelectorAll('section')]
           .map((it) => it.id);",
    )
}

#[test]
fn w39_a_row_or_the_failed_ones_run_again_by_a_press() {
    if !browser_tools_installed() {
        return;
    }
    let rows = FiveRows::start();
    let browser = Browser::open();
    rows.run(&browser);
    rows.end(&browser);
    let requests = rows.proxy.screen_messages(4).len();
    assert_eq!(requests, 4, "the third row has no SOCKS server");
    browser.run_script("window.oldPage = true");
    press(&browser, "button[value='2,3']");
    let columns = columns_of_next_run(&browser, "0 done, 2 failed; ");
    assert_eq!(columns, json!(["column2", "column3"]));
    // Back and reload show the form.
    browser.reload();
    until("the form", || {
        (browser.run_script("return document.querySelector('#confirm') !== null") == true)
            .then_some(())
    });
    browser.run_script("window.oldPage = true");
    press(&browser, "main form button");
    columns_of_next_run(&browser, "3 done, 2 failed; ");
    browser.run_script("window.oldPage = true");
    press(&browser, "button[name=again][value='5']");
    let columns = columns_of_next_run(&browser, "1 done; ");
    assert_eq!(columns, json!(["column5"]));
    assert_eq!(rows.proxy.screen_messages(10).len(), 10);
    drop(browser);
    rows.finish();
}

#[test]
fn w40_the_pages_of_a_run_have_no_findings() {
    if !browser_tools_installed() || !page_checkers_installed() {
        return;
    }
    let rows = FiveRows::start();
    let browser = Browser::open();
    rows.run(&browser);
    check_at_all_widths(&browser);
    rows.end(&browser);
    check_at_all_widths(&browser);
    follow(&browser, "a[href^='?run=']");
    until("the kept run", || {
        let text = "return document.readyState === 'complete' && location.href.includes('run=')";
        (browser.run_script(text) == true).then_some(())
    });
    check_at_all_widths(&browser);
    follow(&browser, "a[href='?runs']");
    until("the list", || {
        let rows = "return document.querySelectorAll('tbody tr').length";
        (browser.run_script(rows) == 1).then_some(())
    });
    check_at_all_widths(&browser);
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    drop(browser);
    rows.finish();
}

/// Checks the page with axe-core, and that nothing but the output scrolls sideways.
fn check_at_all_widths(browser: &Browser) {
    for (width, scheme) in [
        (320, "light"),
        (768, "dark"),
        (1280, "light"),
        (1440, "dark"),
    ] {
        browser.set_screen(Screen {
            width,
            height: 800,
            mobile: width < 768,
        });
        browser.set_color_scheme(scheme);
        // axe-core takes a second: it checks the layouts of a phone and of a wide screen.
        if matches!(width, 320 | 1440) {
            assert_axe_finds_nothing(browser);
        }
        let overflow = browser.run_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth",
        );
        assert_eq!(overflow, 0, "{width}");
    }
}

#[test]
fn w40_the_html_of_a_run_is_valid() {
    if !page_checkers_installed() {
        return;
    }
    let (proxy, shell) = (Proxy::open(), ScriptedShell::with_prompts_only());
    let mut console = Console::new(&[("t1.txt", "a & <b>\n")]);
    let runs = console.folder.path().join("runs");
    fs::create_dir(&runs).unwrap();
    console.command.env("CONSOLE_RUNS", &runs);
    let rows = query_row(1, shell.address(), "t1.txt", proxy.address())
        + &query_row(2, shell.address(), "no.txt", proxy.address());
    let page = console.page(&rows);
    let (_, html) = split_headers(&page);
    assert_vnu_finds_nothing(html);
    // The page while it grows: only its end is missing.
    let (so_far, _) = html.split_once("<span slot=\"running1\"").unwrap();
    let findings = vnu_findings(so_far);
    let is_missing_end = |finding: &&String| {
        finding.contains("End of file seen") || finding.contains("Unclosed element")
    };
    assert_eq!(findings.iter().filter(is_missing_end).count(), 2);
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let id = fs::read_dir(&runs).unwrap().flatten().next().unwrap();
    let name = id.file_name().into_string().unwrap();
    for query in [
        "runs",
        &format!("run={}", name.trim_end_matches(".txt")),
        "run=x",
    ] {
        let page = console.page(query);
        assert_vnu_finds_nothing(split_headers(&page).1);
    }
    proxy.finish();
}

/// What the page shows beside the output.
const INSPECT_VIEW: &str = "
const root = document.querySelector('#board').shadowRoot;
const columns = [...root.querySelectorAll('section')];
const boxes = columns.map((it) => it.getBoundingClientRect());
const scrolls = columns.map((it) => it.querySelector('.scroll'));
const command = document.querySelector('#board b');
const hidden = (number) => root.querySelector(`[name=done${number}]`).assignedElements().length === 0;
return {
  title: document.title,
  icons: document.querySelectorAll('link[rel~=icon]').length,
  started: document.querySelector('time').dateTime,
  inOneLine: new Set(boxes.map((it) => it.top)).size === 1,
  inOneColumn: new Set(boxes.map((it) => it.left)).size === 1,
  barAtTop: Math.round(root.querySelector('.bar').getBoundingClientRect().top),
  allText: scrolls.every((it) => it.scrollHeight <= it.clientHeight + 1),
  longLines: scrolls.some((it) => it.scrollWidth > it.clientWidth + 1),
  time: getComputedStyle(command, '::before').display,
  timeText: command.dataset.time,
  hiddenProgress: [1, 2, 3, 4, 5].filter(hidden),
  signs: columns.map((it) => {
    const slot = [...it.querySelectorAll('.state slot')].find((slot) => slot.assignedElements().length);
    return slot ? getComputedStyle(slot.assignedElements()[0], '::before').content[1] : '';
  }).join(''),
};";

#[test]
fn w40_the_bar_the_views_and_print_show_what_they_promise() {
    if !browser_tools_installed() {
        return;
    }
    let rows = FiveRows::start();
    let browser = Browser::open();
    browser.set_screen(Screen {
        width: 1280,
        height: 720,
        mobile: false,
    });
    rows.run(&browser);
    let view = || browser.run_script(INSPECT_VIEW);
    let during = view();
    assert_eq!(during["title"], "ls.txt, wait.txt on 5 shells");
    let started = during["started"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(started).is_ok(), "{started}");
    assert_eq!(
        during["inOneLine"], true,
        "five columns at 1280 px: {during:#}"
    );
    assert_eq!(during["hiddenProgress"], json!([4]), "{during:#}");
    assert_eq!(during["signs"], "\u{2713}\u{2717}\u{2717}\u{25cf}\u{2713}");
    assert_eq!(
        (&during["icons"], &during["time"]),
        (&json!(1), &json!("none"))
    );
    let choose = |id: &str| {
        browser.run_script(&format!(
            "document.querySelector('#board').shadowRoot.querySelector('#{id}').click()"
        ))
    };
    assert_eq!(during["longLines"], false, "{during:#}");
    choose("long");
    assert_eq!(view()["longLines"], true);
    choose("single");
    assert_eq!(view()["inOneColumn"], true);
    choose("times");
    let times = view();
    assert_eq!(times["time"], "inline");
    assert!(times["timeText"].as_str().expect("a time").ends_with(" s"));
    // The bar stays at the top of the screen while the page is scrolled.
    browser.run_script("scrollTo(0, 400)");
    until("the scrolled page", || {
        (browser.run_script("return scrollY >= 100") == true).then_some(())
    });
    assert_eq!(view()["barAtTop"], 0);
    rows.end(&browser);
    let after = view();
    assert_eq!(after["hiddenProgress"], json!([]), "{after:#}");
    assert_eq!(after["icons"], 2, "{after:#}");
    choose("wrap");
    browser.set_media("print");
    let printed = view();
    assert_eq!(printed["inOneColumn"], true, "{printed:#}");
    assert_eq!(printed["allText"], true, "{printed:#}");
    let shown = browser.run_script(
        "const shown = (it) => it !== null && it.checkVisibility();
         return [shown(document.querySelector('#sum')), shown(document.querySelector('time')),
           shown(document.querySelector('[slot=repeat]'))];",
    );
    assert_eq!(shown, json!([true, true, false]));
    drop(browser);
    rows.finish();
}
