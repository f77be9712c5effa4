//! Checks of a page by other projects: axe-core for accessibility, vnu for valid HTML and CSS.
//!
//! `.ci/run` installs both into `target/npm`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::browser::WebBrowser;
use super::child::{LONG_TIMEOUT, RunningChild};
use super::project::project;
use super::tools::{is_installed, skip};
use super::wait::until_within;

/// The script of axe-core, below the folder of the npm packages.
const AXE: &str = "axe-core/axe.min.js";

/// The Java program of vnu, below the folder of the npm packages.
const VNU: &str = "vnu-jar/build/dist/vnu.jar";

/// Starts axe-core. The result comes later, because axe-core pauses between its rules.
///
/// A page may still load: axe-core must not wait for its resources. The rule for the size of
/// buttons and links (WCAG 2.2, 2.5.8) is off by default.
const START_AXE: &str = "
window.axeResult = null;
const options = { preload: false, rules: { 'target-size': { enabled: true } } };
axe.run(document, options)
  .then((result) => { window.axeResult = result; })
  .catch((error) => { window.axeResult = { error: String(error) }; });";

/// Returns the findings of axe-core, or null if it has not ended. A contrast that axe-core cannot
/// decide is a finding too, unless its text is scrolled out of view or covered, or a field is empty.
const AXE_FINDINGS: &str = "
const result = window.axeResult;
if (!result) return null;
if (result.error) return [result.error];
const describe = (rule, node) => `${rule.id}: ${node.target.join(' ')}: ${node.failureSummary}`;
const isHidden = (check) => ['bgOverlap', 'elmPartiallyObscured', 'elmPartiallyObscuring',
  'outsideViewport', 'emptyValue'].includes(check.data?.messageKey);
const isContrast = (rule) => rule.id === 'color-contrast';
const isDecidable = (node) => !node.any.some(isHidden);
const all = (rules, condition) => rules.flatMap(
  (rule) => rule.nodes.filter(condition).map((node) => describe(rule, node)));
return [
  ...all(result.violations, () => true),
  ...all(result.incomplete.filter(isContrast), isDecidable),
];";

/// Whether axe-core, vnu and Java are installed; otherwise the test is skipped.
pub(crate) fn page_checkers_installed() -> bool {
    for file in [AXE, VNU] {
        let path = npm_package(file);
        if !path.exists() {
            skip(&format!(
                "{} is missing; .ci/run installs it",
                path.display()
            ));
            return false;
        }
    }
    is_installed("java", "default-jre-headless")
}

fn npm_package(file: &str) -> PathBuf {
    project().join("target/npm/node_modules").join(file)
}

/// Fails with the findings of axe-core in the page that the browser shows now.
pub(crate) fn assert_axe_finds_nothing(browser: &impl WebBrowser) {
    let findings = axe_findings(browser);
    let page = browser.run_script("return [document.title, innerWidth, location.href].join(', ')");
    assert!(findings.is_empty(), "{page}:\n{}", findings.join("\n"));
}

/// Fails with the errors and warnings of vnu. `html` is a complete document without headers.
pub(crate) fn assert_vnu_finds_nothing(html: &str) {
    let findings = vnu_findings(html);
    assert!(findings.is_empty(), "{html}\n{}", findings.join("\n"));
}

/// The findings of axe-core in the page that the browser shows now.
pub(crate) fn axe_findings(browser: &impl WebBrowser) -> Vec<String> {
    let axe = fs::read_to_string(npm_package(AXE)).expect("axe-core");
    browser.run_script(&format!("if (!window.axe) {{ {axe} }} {START_AXE}"));
    let findings = until_within(LONG_TIMEOUT, "the result of axe-core", || {
        let findings = browser.run_script(AXE_FINDINGS);
        findings.as_array().cloned()
    });
    let texts = findings.iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The errors and warnings of vnu.
pub(crate) fn vnu_findings(html: &str) -> Vec<String> {
    let mut java = Command::new("java");
    // The quick compiler and the simple collector of Java: half of the processor time. vnu needs
    // a large stack with them.
    java.args([
        "-Xss16m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-jar",
    ])
    .arg(npm_package(VNU))
    .args(["--format", "json", "-"]);
    let output = RunningChild::start(&mut java, html.as_bytes()).wait_for_exit(LONG_TIMEOUT);
    // vnu writes its result to stderr.
    let result: Value = serde_json::from_str(&output.stderr).expect("a result in JSON");
    let messages = result["messages"].as_array().expect("a list of messages");
    let describe = |it: &Value| format!("{}: {} {}", it["type"], it["message"], it["extract"]);
    messages.iter().map(describe).collect()
}
