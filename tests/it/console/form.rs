//! The form: its layout, its errors, lists of shells and typed batches.

use std::fs;

use serde_json::json;

use crate::console::in_browser::{browser_tools_installed, press_run};
use crate::support::apache::Apache;
use crate::support::browser::{
    Browser, DESKTOP, ENTER, PHONE, PLAIN_HOST, Screen, TAB, WebBrowser,
};
use crate::support::child::LONG_TIMEOUT;
use crate::support::console_cgi::{Console, query_row, split_headers};
use crate::support::page_checks::{
    assert_axe_finds_nothing, assert_vnu_finds_nothing, axe_findings, page_checkers_installed,
    vnu_findings,
};
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::wait::until;

/// A small desktop window.
const NOTEBOOK: Screen = Screen {
    width: 1280,
    height: 720,
    mobile: false,
};

/// A page with a field that has no label, a text without contrast, and a state that a paragraph
/// cannot have.
const PAGE_WITH_MISTAKES: &str = "<!DOCTYPE html><html lang='en'><title>Mistakes</title><main>\
    <h1>Mistakes</h1><input><p style='color: rgb(200,200,200)'>grey</p><p checked>p</p></main>";

#[test]
fn the_page_checkers_find_mistakes() {
    if !browser_tools_installed() || !page_checkers_installed() {
        return;
    }
    let browser = Browser::open();
    browser.navigate(&format!("data:text/html,{PAGE_WITH_MISTAKES}"));
    until("the page", || {
        (browser.run_script("return document.readyState") == "complete"
            && browser.run_script("return document.title") == "Mistakes")
            .then_some(())
    });
    let findings = axe_findings(&browser);
    let rules: Vec<&str> = findings
        .iter()
        .filter_map(|it| it.split(':').next())
        .collect();
    assert_eq!(rules, ["color-contrast", "label"], "{findings:#?}");
    let findings = vnu_findings(PAGE_WITH_MISTAKES);
    let expected = "Attribute “checked” not allowed on element “p”";
    assert!(
        findings.iter().any(|it| it.contains(expected)),
        "{findings:#?}"
    );
}

#[test]
fn w31_the_page_for_a_foreign_host_name_has_no_mistakes() {
    if !browser_tools_installed() || !page_checkers_installed() {
        return;
    }
    let mut console = Console::new(&[]).with_env("HTTP_HOST", "console.example");
    assert_vnu_finds_nothing(split_headers(&console.page("")).1);
    let apache = Apache::start_with(
        &[],
        "<Location \"/cgi-bin/console.cgi\">\nRequire all granted\n</Location>\n",
    );
    let browser = Browser::open();
    browser.navigate(&apache.console_at(PLAIN_HOST, ""));
    until("the page", || {
        let text = "return document.readyState === 'complete'
            && document.body.textContent.includes('CONSOLE_HOST')";
        (browser.run_script(text) == true).then_some(())
    });
    for scheme in ["light", "dark"] {
        browser.set_color_scheme(scheme);
        assert_axe_finds_nothing(&browser);
    }
}

/// All fields have a value, some of them long.
const FILLED: &str = "sh=socks.cs.example.edu&sp=65535&f=t1.txt&h1=nplinux1.cs.example.edu&p1=65535\
    &f1=t2.txt&sh1=a.very.long.name.of.a.socks.server.example.edu&sp1=1080&h2=192.168.100.100&p2=7000\
    &h3=a&p3=1&h4=b&p4=2&h5=c&p5=3&batch=ls%0d%0acat+test.html%0d%0a&format=text&edit=1";

/// Mistakes in a value for all rows, in rows, in the SOCKS server of a row, and in the list of
/// shells; rows 3 and 4 have none of their own.
const MISTAKES: &str = "sh=127.0.0.1&sp=99999&f=t1.txt&h1=a+b&p1=&f1=..%2Fsecret&h2=b&p2=x\
    &sh2=d+e&sp2=&h3=c&p3=3&h4=d&p4=4&h5=e&p5=70000&shells=f:1+g:2";

/// Rows 2 and 4 have mistakes; rows 1, 3 and 5 can run.
fn two_faulty_rows(shell: u16, socks: u16) -> String {
    format!(
        "sh=127.0.0.1&sp={socks}&f=t1.txt&h1=127.0.0.1&p1={shell}&h2=127.0.0.1&p2=x\
         &h3=127.0.0.1&p3={shell}&h4=127.0.0.1&p4=&f4=missing&h5=127.0.0.1&p5={shell}"
    )
}

#[test]
fn w31_the_empty_form_has_no_findings() {
    check_form("");
}

#[test]
fn w31_the_filled_form_has_no_findings() {
    check_form(FILLED);
}

#[test]
fn w31_the_form_with_mistakes_has_no_findings() {
    check_form(MISTAKES);
}

/// Opens the form in a browser, and waits until it is complete.
fn open_form(browser: &impl WebBrowser, apache: &Apache, query: &str) {
    browser.navigate(&apache.console(query));
    until("the form", || {
        let script = format!(
            "return document.readyState === 'complete' && location.href.endsWith('cgi?{query}')
               && document.querySelector('form button') !== null"
        );
        (browser.run_script(&script) == true).then_some(())
    });
}

/// Checks the form with this query at several widths, with both colour schemes, and with folded
/// and unfolded parts. Nothing scrolls sideways.
fn check_form(query: &str) {
    if !browser_tools_installed() || !page_checkers_installed() {
        return;
    }
    let files = [("marked.txt", "echo <b> & \u{1} \u{e4}\n"), ("empty", "")];
    let mut console = Console::new(&files);
    fs::create_dir(console.folder.path().join("presets")).unwrap();
    fs::write(
        console.folder.path().join("presets/lab-1"),
        FILLED.replace("&batch=", "&x="),
    )
    .unwrap();
    console.command.env("CONSOLE_RUNS", console.folder.path());
    let page = console.page(query);
    for part in [
        "href=\"?runs\"",
        ">lab-1</a>",
        "&lt;b&gt; &amp; \u{2401} \u{e4}",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_vnu_finds_nothing(split_headers(&page).1);

    let apache = Apache::start(&files);
    let browser = Browser::open();
    for width in [320, 768, 1280, 1440] {
        browser.set_screen(Screen {
            width,
            height: 800,
            mobile: width < 768,
        });
        open_form(&browser, &apache, query);
        for (scheme, unfolded) in [("light", false), ("dark", true)] {
            browser.set_color_scheme(scheme);
            if unfolded {
                browser.run_script(
                    "document.querySelectorAll('details').forEach((it) => it.open = true)",
                );
            }
            // axe-core takes a second: it checks the layouts of a phone and of a wide screen.
            if matches!(width, 320 | 1280) {
                assert_axe_finds_nothing(&browser);
            }
            let too_wide = browser.run_script(
                "return [document.documentElement, ...document.querySelectorAll('form, form *')]
                   .filter((it) => it.scrollWidth > Math.max(it.clientWidth, 1) + 1 && it.localName !== 'input'
                     && it.checkVisibility() && getComputedStyle(it).display !== 'inline' && !it.closest('.row > div > label'))
                   .map((it) => it.outerHTML.slice(0, 80))",
            );
            assert_eq!(too_wide, json!([]), "{width}");
            assert_fields_have_contrast(&browser);
        }
    }
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}

/// axe-core checks neither borders nor placeholders. Each field has a border with a contrast of at
/// least 3:1 to its own background and to the page around it (WCAG 1.4.11), and a placeholder with
/// 4.5:1.
fn assert_fields_have_contrast(browser: &Browser) {
    let low = browser.run_script(
        "const part = (it) => (it /= 255) <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4;
         const luminance = (color) => {
           const [red, green, blue] = color.match(/\\d+/g).map(Number).map(part);
           return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
         };
         const contrast = (...colors) => {
           const [low, high] = colors.map(luminance).sort((one, other) => one - other);
           return (high + 0.05) / (low + 0.05);
         };
         const around = (it) => {
           const color = getComputedStyle(it).backgroundColor;
           return color === 'rgba(0, 0, 0, 0)' ? around(it.parentElement) : color;
         };
         const fields = [...document.querySelectorAll('input:not([type=checkbox]), textarea')];
         if (fields.length !== 30) return fields.length;
         return fields.flatMap((it) => {
           const border = getComputedStyle(it).borderTopColor;
           const text = getComputedStyle(it, '::placeholder').color;
           const contrasts = [
             contrast(border, around(it)) / 3,
             contrast(border, around(it.parentElement)) / 3,
             contrast(text, around(it)) / 4.5,
           ];
           return contrasts.every((value) => value >= 1) ? [] : [it.id, ...contrasts];
         });",
    );
    assert_eq!(low, json!([]));
}

/// Returns why the button Run is not visible, or null. Nothing has scrolled since the page loaded,
/// except for the focus on the first mistake.
const FIND_RUN: &str = "
const button = document.querySelector('form button');
const { left, right, top, bottom } = button.getBoundingClientRect();
if (top < 0 || bottom > innerHeight) return `from ${top} to ${bottom} of ${innerHeight}`;
const shown = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
return shown === button ? null : shown?.outerHTML;";

#[test]
fn w31_run_is_visible_without_scrolling_and_covers_no_field_with_the_focus() {
    if !browser_tools_installed() {
        return;
    }
    let apache = Apache::start(&[]);
    let browser = Browser::open();
    for screen in [NOTEBOOK, PHONE, DESKTOP] {
        browser.set_screen(screen);
        for query in ["", FILLED, &two_faulty_rows(1, 1), MISTAKES] {
            open_form(&browser, &apache, query);
            assert_eq!(browser.run_script(FIND_RUN), json!(null), "{query}");
            assert_focus_is_visible(&browser);
        }
    }
}

/// Presses Tab from the element that has the focus to the last of the page. Each element with
/// the focus is visible, of a text its first line: Run is at the bottom of the screen, and could
/// cover it.
fn assert_focus_is_visible(browser: &Browser) {
    let mut count = 0;
    loop {
        let state = browser.run_script(
            "const it = document.activeElement;
             if (it === document.body) return 'none';
             const { left, right, top, bottom } = it.getBoundingClientRect();
             const y = Math.min((top + bottom) / 2, top + 20);
             const shown = document.elementFromPoint((left + right) / 2, y);
             if (!it.contains(shown)) return `${it.outerHTML} is covered by ${shown?.outerHTML}`;
             return it.name === 'format' ? 'last' : 'visible';",
        );
        match state.as_str() {
            Some("last") => break,
            Some("none") if count == 0 => {}
            state => assert_eq!(state, Some("visible")),
        }
        count += 1;
        assert!(count < 100, "the focus does not reach the last field");
        browser.press_keys(TAB);
    }
    assert!(count > 5, "{count} elements");
}

#[test]
fn w32_a_form_with_mistakes_says_which_field_to_mend() {
    let mut console = Console::new(&[("t1.txt", "ls\n")]);
    let page = console.page(MISTAKES);
    for shown in [
        "<title>5 rows cannot run: mend them - Remote batch console</title>",
        // Once, although rows 3 and 4 have no other mistake.
        "<li><a href=\"#sp\">All rows, SOCKS port: &quot;99999&quot; is no port",
        "aria-invalid=\"true\" aria-describedby=\"sp-error\" autofocus>",
        "<a href=\"#h1\">Shell 1, shell server: &quot;a b&quot; is no host name",
        "<a href=\"#p1\">Shell 1, port: no port is given",
        "id=\"p1-error\">no port is given. Enter the port",
        "<a href=\"#sh2\">Shell 2, SOCKS server: &quot;d e&quot;",
        "<a href=\"#shells\">List of shells: the form has 5 rows, so there is none for f:1, g:2",
        "5 rows cannot run: mend them</h2>",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    for (text, count) in [
        (" autofocus", 1),
        ("is no port: ", 6),
        ("id=\"sp1-error\"", 0),
        // The shells without a row would be lost.
        ("name=\"again\"", 0),
    ] {
        assert_eq!(page.matches(text).count(), count, "{text}: {page}");
    }
    let page = console.page(&format!("{}&edit=1", two_faulty_rows(1, 1)));
    for shown in [
        "2 rows cannot run: mend them, or run the other 3</h2>",
        "<button class=\"second\" name=\"again\" value=\"1,3,5\">Run the other 3</button>",
        "There are: t1.txt.",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
}

/// The order of the buttons matters: Enter in a field presses the first.
#[test]
fn w32_the_other_rows_run_and_no_more() {
    if !browser_tools_installed() {
        return;
    }
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let apache = Apache::start(&[]);
    let query = two_faulty_rows(shell.address().port(), proxy.port());
    let browser = Browser::open();
    open_form(&browser, &apache, &query);
    let focus = browser.run_script("return document.activeElement.id");
    assert_eq!(focus, "p2", "the first mistake");
    // Enter means Run, and nothing runs.
    browser.press_keys(ENTER);
    until("the form after Run", || {
        let script = "return document.readyState === 'complete' && location.search === ''
            && document.querySelector('#mistakes') !== null";
        (browser.run_script(script) == true).then_some(())
    });
    browser.run_script("document.querySelector('button[name=again]').focus()");
    browser.press_keys(ENTER);
    until("the end of the run", || {
        let ended = browser.run_script("return document.querySelector('#sum') !== null");
        (ended == true).then_some(())
    });
    let columns = browser.run_script(
        "return [...document.querySelector('#board').shadowRoot.querySelectorAll('section')]
           .map((it) => it.id)",
    );
    assert_eq!(columns, json!(["column1", "column3", "column5"]));
    assert_eq!(proxy.screen_messages(3).len(), 3);
    proxy.finish();
}

#[test]
fn w33_a_typed_batch_runs_on_a_list_of_shells_and_is_not_in_the_address() {
    if !browser_tools_installed() {
        return;
    }
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let apache = Apache::start(&[]);
    let browser = Browser::open();
    open_form(
        &browser,
        &apache,
        &format!("sh=127.0.0.1&sp={}&edit=1", proxy.port()),
    );
    let shells = format!("{}{ENTER}{}", shell.address(), shell.address());
    for (id, text) in [
        ("shells", shells),
        ("batch", format!("noop <&>{ENTER}{ENTER}removetag a.html")),
    ] {
        let script = format!(
            "const field = document.getElementById('{id}');
             field.closest('details').open = true;
             field.focus();
             return document.activeElement === field;"
        );
        until(id, || (browser.run_script(&script) == true).then_some(()));
        browser.press_keys(&text);
    }
    press_run(&browser);
    until("the end of the run", || {
        let ended = browser.run_script("return document.querySelector('#sum') !== null");
        (ended == true).then_some(())
    });
    for _ in 0..2 {
        assert_eq!(shell.received(), "noop <&>\n\nremovetag a.html\nexit\n");
    }
    let address = browser.run_script("return location.search");
    let address = address.as_str().unwrap();
    assert!(
        !address.contains("batch") && !address.contains("noop"),
        "{address}"
    );
    assert!(
        address.contains("h1=127.0.0.1&") && address.contains("h2=127.0.0.1&"),
        "{address}"
    );
    assert_eq!(proxy.screen_messages(2).len(), 2);
    proxy.finish();
}

#[test]
fn w33_a_form_keeps_the_typed_batch_and_the_shells_without_a_row() {
    let proxy = Proxy::open();
    let mut console = Console::new(&[]);
    let socks = format!("sh=127.0.0.1&sp={}", proxy.port());
    let query =
        format!("{socks}&shells=a:1%0ab:2%0d%0ac:3,d:4+e:5+%3Cb%3E:6&batch=%0als+%3C+x%0d%0a");
    for page in [console.page(&query), console.post(&query)] {
        for shown in [
            "<input id=\"h5\" name=\"h5\" value=\"e\"",
            "spellcheck=\"false\" aria-invalid=\"true\" aria-describedby=\"shells-error\" autofocus>\n\
             &lt;b&gt;:6</textarea>",
            "spellcheck=\"false\">\n\nls &lt; x\n</textarea>",
            "placeholder=\"the typed batch\"",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        // Both texts are visible.
        assert_eq!(
            page.matches("<details class=\"text\" open>").count(),
            2,
            "{page}"
        );
    }
    assert_eq!(proxy.screen_messages(0).len(), 0);
    proxy.finish();
}

#[test]
fn w33_a_batch_of_the_maximum_size_runs_completely() {
    let proxy = Proxy::open();
    let shell = ScriptedShell::with_prompts_only();
    let mut console = Console::new(&[])
        .with_env("HTTP_USER_AGENT", "Mozilla/5.0")
        .with_env("HTTP_ORIGIN", "http://127.0.0.1:8080")
        .with_env("HTTP_HOST", "127.0.0.1:8080");
    let folder = console.folder.path().to_owned();
    console.command.env("CONSOLE_RUNS", folder);
    let rows = [1, 2].map(|row| query_row(row, shell.address(), "", proxy.address()));
    let rows = format!("{}again=1&batch=", rows.concat());
    // Each space of the form has three bytes in the file of the token.
    let spaces = 64 * 1024 - rows.len() - 1;
    let page = console.post(&format!("{rows}{}x", "+".repeat(spaces)));
    let location = page
        .lines()
        .find_map(|line| line.strip_prefix("Location: ?"));
    let page = console.page(location.expect("a redirect"));
    assert!(page.contains("1 done; 1 of 1 command"), "{page}");
    assert_eq!(shell.received(), format!("{}x\nexit\n", " ".repeat(spaces)));
    proxy.finish();
}

#[test]
fn w34_the_texts_of_batch_files_are_bounded() {
    let long = "<x>\n".repeat(1500);
    let mut files: Vec<(String, &str)> = (10..50).map(|n| (format!("b{n}"), "short\n")).collect();
    files.push(("a-long".to_owned(), &long));
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), *text))
        .collect();
    let page = Console::new(&files).page("");
    for (text, count) in [
        ("Show the batch files (41)", 1),
        ("<pre ", 20),
        ("&lt;x&gt;", 1024),
        ("The file goes on after these 4 KiB", 1),
        ("Without their texts: b29, b30, ", 1),
        ("<option ", 41),
    ] {
        assert_eq!(page.matches(text).count(), count, "{text}: {page}");
    }
    let page = Console::new(&[]).page("");
    assert!(
        page.contains("no batch files in the folder test_case"),
        "{page}"
    );
}

#[test]
fn w34_presets_are_offered_as_links_to_the_filled_form() {
    let mut console = Console::new(&[]);
    let folder = console.folder.path().join("presets");
    fs::create_dir(&folder).unwrap();
    for number in 10..59 {
        fs::write(folder.join(format!("p{number}")), "h1=a&p1=1\n").unwrap();
    }
    fs::write(
        folder.join("a-lab"),
        "h0=%3Cb%3E&p0=7&sh=s&once=0&again=1\r\nh1=c\n",
    )
    .unwrap();
    fs::write(folder.join(".hidden"), "h1=a").unwrap();
    let page = console.page("");
    let link = "<li><a href=\"?h1=%3Cb%3E&amp;p1=7&amp;sh=s&amp;edit=1\">a-lab</a></li>";
    assert!(page.contains(link), "{page}");
    assert_eq!(page.matches("<li>").count(), 50);
    assert!(!page.contains(">.hidden<"), "{page}");

    // Of these, all but the first are invalid.
    fs::write(folder.join("0-empty"), "").unwrap();
    fs::write(
        folder.join("0-long"),
        format!("h1=a&x={}", "x".repeat(8 * 1024)),
    )
    .unwrap();
    std::os::unix::fs::symlink("a-lab", folder.join("0-link")).unwrap();
    let output = console.start("").wait_for_exit(LONG_TIMEOUT);
    assert_eq!(output.text().matches("<li>").count(), 48);
    let errors: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:#?}");
    for (error, part) in errors.iter().zip([
        "presets: of 52 files the form offers the first 50",
        "presets/0-empty: its first line has no value of the form",
        "presets/0-long: it is over 8 KiB; it is not offered",
    ]) {
        assert!(error.contains(part), "{error}");
    }
}
