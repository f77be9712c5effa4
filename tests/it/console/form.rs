//! The form: its layout, its errors, lists of shells and typed batches.

use crate::console::in_browser::browser_tools_installed;
use crate::support::apache::Apache;
use crate::support::browser::{Browser, PLAIN_HOST, WebBrowser};
use crate::support::console_cgi::{Console, split_headers};
use crate::support::page_checks::{
    assert_axe_finds_nothing, assert_vnu_finds_nothing, axe_findings, page_checkers_installed,
    vnu_findings,
};
use crate::support::wait::until;

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
