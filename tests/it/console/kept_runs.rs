//! Kept runs: their files, their list, and how they are stopped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::console::in_browser::{browser_tools_installed, press_run};
use crate::support::apache::Apache;
use crate::support::browser::{Browser, WebBrowser};
use crate::support::child::LONG_TIMEOUT;
use crate::support::console_cgi::{Console, query_row, split_headers, wait_for_text};
use crate::support::proxy::Proxy;
use crate::support::scripted_shell::ScriptedShell;
use crate::support::wait::until;

/// A shell whose command `wait` does not end.
fn waiting_shell() -> ScriptedShell {
    ScriptedShell::start(|session| {
        session.write("% ");
        while session.read_line() != "wait\n" {
            session.write("some <output>\n% ");
        }
        let mut rest = String::new();
        let _ = std::io::Read::read_to_string(&mut session.lines, &mut rest);
    })
}

/// The console with a folder for kept runs, called by a program.
fn keeping_console() -> Console {
    let console = Console::new(&[("t1.txt", "a\nb\n"), ("wait.txt", "a\nwait\n")]);
    let folder = console.folder.path().join("runs");
    fs::create_dir(&folder).unwrap();
    console
        .with_env("CONSOLE_RUNS", folder.to_str().unwrap())
        .with_env("REMOTE_ADDR", "192.0.2.7")
}

fn runs_folder(console: &Console) -> std::path::PathBuf {
    console.folder.path().join("runs")
}

/// The names of the files in a folder, in alphabetical order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The name of the only run, without its ending.
fn only_id(console: &Console, ending: &str) -> String {
    let names = names(&runs_folder(console));
    let [name] = names.as_slice() else {
        panic!("one run in {names:?}");
    };
    name.strip_suffix(ending).expect(ending).to_owned()
}

#[test]
fn w35_a_run_is_kept_as_text_and_shown_without_running_anything() {
    let (proxy, shell) = (Proxy::open(), waiting_shell());
    let mut console = keeping_console();
    let good = ScriptedShell::with_prompts_only();
    let rows = query_row(1, good.address(), "t1.txt", proxy.address())
        + &query_row(2, shell.address(), "no.txt", proxy.address());
    let page = console.page(&rows);
    let id = only_id(&console, ".txt");
    assert!(page.contains(&format!("href=\"?run={id}\"")), "{page}");
    let file = runs_folder(&console).join(format!("{id}.txt"));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(file).unwrap();
    let title = good.address();
    for line in [
        "# by 192.0.2.7",
        &format!("# rows {rows}"),
        &format!("{title} # t1.txt through {}", proxy.address()),
        &format!("{title} | % a"),
        "# FAILED 1 of 2",
    ] {
        assert!(kept.contains(&format!("{line}\n")), "{line} in {kept}");
    }
    assert!(kept.starts_with("# threadsocks console, 20"), "{kept}");
    // The list and the run, as pages and as text.
    let list = console.page("runs");
    assert!(list.contains(&format!("href=\"?run={id}\"")), "{list}");
    assert!(
        list.contains(&title.to_string()) && list.contains("192.0.2.7"),
        "{list}"
    );
    assert!(
        list.contains("FAILED 1 of 2: 1 done, 1 failed; 2 of 2 commands; "),
        "{list}"
    );
    let list = console.page("runs&format=text");
    let (_, line) = split_headers(&list);
    assert!(line.starts_with(&format!("{id}\t20")), "{line}");
    let shown = console.page(&format!("run={id}"));
    assert!(shown.contains("no such batch file: no.txt"), "{shown}");
    assert!(shown.contains("There are: t1.txt, wait.txt."), "{shown}");
    assert!(shown.contains("<span class=\"bulk\">% a\n"), "{shown}");
    let text = console.page(&format!("run={id}&format=text"));
    assert_eq!(split_headers(&text).1, kept);
    // Nothing has run again.
    assert_eq!(proxy.screen_messages(1).len(), 1);
    proxy.finish();
}

#[test]
fn w35_names_of_no_run_and_a_console_that_keeps_none_say_so() {
    let mut console = keeping_console();
    for query in ["run=x", "run=../secret", "run=%0d%0aX:y"] {
        let page = console.page(query);
        assert!(page.contains("There is no such kept run"), "{page}");
    }
    let page = console.post("stop=%0d%0aX:y");
    assert!(
        page.starts_with("Status: 303 See Other\r\nLocation: ?runs\r\n"),
        "{page}"
    );
    let mut without = Console::new(&[]);
    for query in ["runs", "run=x", "runs&format=text"] {
        assert!(without.page(query).contains("CONSOLE_RUNS"), "{query}");
    }
    // A run goes on if its file cannot be created.
    let (proxy, shell) = (Proxy::open(), ScriptedShell::with_prompts_only());
    let mut broken = keeping_console().with_env("CONSOLE_RUNS", "/proc/no-such-folder");
    let row = query_row(1, shell.address(), "t1.txt", proxy.address());
    let output = broken.start(&row).wait_for_exit(LONG_TIMEOUT);
    assert!(output.text().contains("1 done; "), "{output:#?}");
    assert!(
        output.stderr.contains("this run is not kept"),
        "{output:#?}"
    );
    assert!(!output.text().contains("Link to this run"), "{output:#?}");
    proxy.finish();
}

#[test]
fn w35_a_kept_run_can_be_stopped_and_keeps_what_it_has_shown() {
    let (proxy, shell) = (Proxy::open(), waiting_shell());
    let mut console = keeping_console();
    let row = query_row(1, shell.address(), "wait.txt", proxy.address());
    let mut page = console.start(&format!("{row}format=text"));
    wait_for_text(&mut page, "| % wait");
    let id = only_id(&console, ".part");
    let running = console.page(&format!("run={id}"));
    assert!(running.contains("some &lt;output&gt;"), "{running}");
    assert!(
        running.contains(&format!("name=\"stop\" value=\"{id}\"")),
        "{running}"
    );
    // Another site cannot stop it.
    console.command.env("HTTP_USER_AGENT", "Mozilla/5.0");
    console.command.env("HTTP_ORIGIN", "http://evil.example");
    console.command.env("HTTP_HOST", "127.0.0.1");
    console.post(&format!("stop={id}"));
    assert_eq!(names(&runs_folder(&console)), [format!("{id}.part")]);
    for variable in ["HTTP_USER_AGENT", "HTTP_ORIGIN"] {
        console.command.env_remove(variable);
    }
    let answer = console.post(&format!("stop={id}"));
    assert!(
        answer.contains(&format!("Location: ?run={id}\r\n")),
        "{answer}"
    );
    let output = page.wait_for_exit(LONG_TIMEOUT).text();
    assert!(output.contains(" # stopped, 2 of 2 commands, "), "{output}");
    assert!(output.ends_with("# FAILED 1 of 1\n"), "{output}");
    assert_eq!(names(&runs_folder(&console)), [format!("{id}.txt")]);
    let shown = console.page(&format!("run={id}"));
    assert!(
        shown.contains("FAILED 1 of 1: ") && shown.contains("stopped, "),
        "{shown}"
    );
    proxy.finish();
}

#[test]
fn w35_a_run_whose_reader_has_left_has_its_end() {
    let (proxy, shell) = (Proxy::open(), waiting_shell());
    let mut console = keeping_console();
    let row = query_row(1, shell.address(), "wait.txt", proxy.address());
    // The console finds out at its next write: head(1) closes the pipe after a few lines.
    let program = crate::support::project::console_binary();
    console.command = std::process::Command::new("sh");
    console
        .command
        .args(["-c", "\"$0\" | head -n 15"])
        .arg(program)
        .current_dir(console.folder.path())
        .env("CONSOLE_RUNS", console.folder.path().join("runs"));
    for (name, value) in [("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET")] {
        console.command.env(name, value);
    }
    console.page(&row);
    let id = only_id(&console, ".txt");
    let kept = fs::read_to_string(runs_folder(&console).join(format!("{id}.txt"))).unwrap();
    assert!(kept.contains(" # stopped, "), "{kept}");
    assert!(kept.ends_with("# FAILED 1 of 1\n"), "{kept}");
    proxy.finish();
}

#[test]
fn w35_a_kept_run_of_some_rows_lists_and_repeats_these() {
    let (proxy, shell) = (Proxy::open(), ScriptedShell::with_prompts_only());
    let mut console = keeping_console();
    let batch = "batch=a%0D%0A&";
    let rows = format!(
        "h1=%3A%3A1&p1=7&{}{batch}",
        query_row(2, shell.address(), "", proxy.address())
    );
    console.command.env("REMOTE_USER", "eve\tOK 9 of 9\n# OK");
    console.page(&format!("{rows}again=2&format=text"));
    let list = console.page("runs&format=text");
    let (_, line) = split_headers(&list);
    assert_eq!(line.matches('\t').count(), 4, "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    let id = only_id(&console, ".txt");
    let list = console.page("runs");
    assert!(
        list.contains(&shell.address().to_string()) && !list.contains("[::1]:7"),
        "{list}"
    );
    let page = console.page(&format!("run={id}"));
    assert!(
        page.contains("name=\"again\" value=\"2\">Run again"),
        "{page}"
    );
    // The link to edit would have the typed batch in its address: it is a button.
    assert!(
        page.contains("name=\"edit\" value=\"1\">Edit these rows"),
        "{page}"
    );
    assert!(page.contains("name=\"batch\" value=\"a&#13;\n\""), "{page}");
    proxy.finish();
}

#[test]
fn w35_a_run_that_was_killed_is_told_from_a_complete_one() {
    let (proxy, shell) = (Proxy::open(), waiting_shell());
    let mut console = keeping_console();
    let row = query_row(1, shell.address(), "wait.txt", proxy.address());
    let mut page = console.start(&row);
    wait_for_text(&mut page, ">wait</b>");
    let id = only_id(&console, ".part");
    assert!(console.page("runs").contains(">running<"));
    kill(Pid::from_raw(page.id() as i32), Signal::SIGKILL).unwrap();
    page.wait_for_exit(LONG_TIMEOUT);
    assert!(console.page("runs").contains(">interrupted<"));
    let shown = console.page(&format!("run={id}"));
    assert!(
        shown.contains("interrupted") && shown.contains("% wait"),
        "{shown}"
    );
    assert!(!shown.contains(">Stop<"), "{shown}");
    proxy.finish();
}

/// Configuration that keeps the runs in the folder of the console.
fn keep_runs_in(folder: &Path) -> String {
    format!(
        "<Location \"/cgi-bin/console.cgi\">\nSetEnv CONSOLE_RUNS {}\n</Location>\n",
        folder.display()
    )
}

#[test]
fn w35_a_browser_stops_a_run_and_looks_at_it_again() {
    if !browser_tools_installed() {
        return;
    }
    let (proxy, shell) = (Proxy::open(), waiting_shell());
    let folder = tempfile::tempdir().unwrap();
    // Apache runs the console as another user.
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let apache = Apache::start_with(&[("wait.txt", "a\nwait\n")], &keep_runs_in(folder.path()));
    let browser = Browser::open();
    let row = query_row(1, shell.address(), "wait.txt", proxy.address());
    browser.navigate(&apache.console(&row));
    press_run(&browser);
    let click = |label: &str| {
        let script = format!(
            "const all = [...document.querySelectorAll('button, a')];
             const found = all.find((it) => it.textContent.trim() === '{label}');
             found?.focus(); return found !== undefined && document.activeElement === found;"
        );
        until(label, || {
            (browser.run_script(&script) == true).then_some(())
        });
        browser.press_focused();
    };
    until("the last command", || {
        let text = "return document.querySelector('#board')?.textContent.includes('% wait')";
        (browser.run_script(text) == true).then_some(())
    });
    click("Stop");
    until("the kept run", || {
        let text = "return location.href.includes('run=') && document.readyState === 'complete' \
                    && document.querySelector('#sum')?.textContent";
        let sum = browser.run_script(text);
        let sum = sum.as_str()?;
        assert!(sum.starts_with("FAILED 1 of 1: "), "{sum}");
        Some(())
    });
    click("Kept runs");
    until("the list", || {
        let rows = "return document.querySelectorAll('tbody tr').length";
        (browser.run_script(rows) == 1).then_some(())
    });
    browser.back();
    until("the kept run again", || {
        let text = "return document.querySelector('#sum') !== null";
        (browser.run_script(text) == true).then_some(())
    });
    assert_eq!(proxy.screen_messages(1).len(), 1);
    drop(browser);
    proxy.finish();
}
