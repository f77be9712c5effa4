//! Rules that the source must keep, and statements of the documents that can
//! be checked by a program.

use std::fs;
use std::path::PathBuf;

use threadsocks::cli::help;

use crate::support::import_graph::ImportGraph;
use crate::support::project::{project, project_file};

/// Every source file of the shipped programs, with its code: no comments, no
/// tests.
fn sources() -> Vec<(String, Vec<String>)> {
    let folders = ["src", "cgi-bin/console", "run/src"];
    let mut folders = folders.map(|it| project().join(it)).to_vec();
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|it| it == "rs") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    let code = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .take_while(|line| line.trim() != "#[cfg(test)]");
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
        let code = lines.map(str::trim).filter(is_code).map(str::to_owned);
        let name = path.strip_prefix(project()).unwrap();
        (name.to_string_lossy().into_owned(), code.collect())
    };
    files.into_iter().map(code).collect()
}

/// Asserts that none of `words` occurs in a source file below `modules`.
fn assert_absent(words: &[&str], modules: &[&str]) {
    for (name, code) in sources() {
        if !modules.iter().any(|module| name.starts_with(module)) {
            continue;
        }
        for line in code {
            for word in words {
                assert!(!line.contains(word), "{name} has {word:?}: {line}");
            }
        }
    }
}

#[test]
fn the_pure_modules_use_no_socket_thread_clock_or_file() {
    assert_absent(
        &[
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "thread::",
            "Instant",
            "SystemTime",
            "fs::",
            "File::",
            "OpenOptions",
            "nix::",
            "env::",
        ],
        &[
            "src/protocol/",
            "src/rules/",
            "src/auth/error.rs",
            "src/auth/password_hash.rs",
            "src/auth/users_file.rs",
            "src/cli/",
            "src/config/settings.rs",
            "src/events.rs",
            "src/request_error.rs",
            "cgi-bin/console/allow.rs",
            "cgi-bin/console/bulk.rs",
            "cgi-bin/console/html.rs",
            "cgi-bin/console/page.rs",
            "cgi-bin/console/panel.rs",
            "cgi-bin/console/prompt.rs",
            "cgi-bin/console/query.rs",
            "cgi-bin/console/row.rs",
            "cgi-bin/console/telnet.rs",
            "cgi-bin/console/terminal.rs",
            "cgi-bin/console/text.rs",
            "run/src/dns.rs",
            "run/src/filter.rs",
            "run/src/nscd.rs",
        ],
    );
}

#[test]
fn modules_import_only_what_they_may() {
    let all = [
        "crate::admin",
        "crate::auth",
        "crate::cli",
        "crate::client",
        "crate::config",
        "crate::events",
        "crate::local_time",
        "crate::logger",
        "crate::metrics",
        "crate::net",
        "crate::protocol",
        "crate::relay",
        "crate::request_error",
        "crate::rules",
        "crate::server",
        "crate::sync",
        "crate::systemd",
        "crate::trace",
    ];
    for (module, may_import) in [
        ("trace/", &["trace"][..]),
        ("sync/", &["sync", "trace"]),
        ("systemd.rs", &["systemd"]),
        ("protocol/", &["protocol"]),
        ("net/", &["protocol", "sync", "trace"]),
        ("config/", &["protocol", "sync", "trace"]),
        ("relay/", &["net", "sync", "trace"]),
        ("client/", &["protocol"]),
        ("rules/", &["config", "protocol"]),
        ("auth/", &["config", "protocol", "sync"]),
        ("local_time.rs", &["rules"]),
        ("request_error.rs", &["auth", "config", "protocol", "rules"]),
        (
            "events.rs",
            &["config", "protocol", "request_error", "rules", "sync"],
        ),
        ("metrics/", &["config", "events", "protocol"]),
        (
            "logger/",
            &["config", "events", "metrics", "protocol", "sync", "trace"],
        ),
        ("admin/", &["config", "net", "protocol", "rules"]),
        (
            "cli/",
            &["admin", "auth", "config", "logger", "protocol", "trace"],
        ),
    ] {
        let may_import = |word: &&str| may_import.iter().any(|it| word.ends_with(it));
        let forbidden: Vec<&str> = all.into_iter().filter(|word| !may_import(word)).collect();
        assert_absent(&forbidden, &[&format!("src/{module}")]);
    }
    // The parsers of the console import nothing of the console.
    assert_absent(
        &["crate::"],
        &[
            "cgi-bin/console/allow.rs",
            "cgi-bin/console/folder.rs",
            "cgi-bin/console/prompt.rs",
            "cgi-bin/console/query.rs",
            "cgi-bin/console/telnet.rs",
            "cgi-bin/console/terminal.rs",
        ],
    );
    // Only the library encodes and decodes SOCKS messages.
    assert_absent(&["socks4::Request", "Reply::"], &["cgi-bin/"]);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for root in [
        "src/lib.rs",
        "cgi-bin/console/main.rs",
        "run/src/main.rs",
        "benches/load/main.rs",
        "examples/shell_server/main.rs",
        "fuzz/lib.rs",
        "tests/it/main.rs",
        "tests/model/main.rs",
        "tests/properties/main.rs",
    ] {
        let graph = ImportGraph::read(&project().join(root));
        assert_eq!(graph.circle(), None, "{root}");
    }
}

/// Without edges the graph would have no circle either.
#[test]
fn the_import_graph_follows_re_exports_and_modules() {
    let graph = ImportGraph::read(&project().join("src/lib.rs"));
    let imports = graph.imports();
    for (from, to) in [
        // By a name, by a path of a module, and by a module's function.
        ("server/handler.rs", "server/session/mod.rs"),
        ("server/handler.rs", "net/send.rs"),
        ("server/commands/connect.rs", "rules/reserved.rs"),
        ("rules/parser.rs", "config/watched_file.rs"),
        ("server/accept.rs", "net/accept.rs"),
    ] {
        let [from, to] = [from, to].map(|file| project().join("src").join(file));
        assert!(
            imports[&*from].contains(&*to),
            "{from:?} {:?}",
            imports[&*from]
        );
    }
}

#[test]
fn shared_state_comes_from_sync_so_that_the_models_see_it() {
    let shared = [
        "std::thread",
        "Atomic",
        "Condvar",
        "Mutex",
        "OnceLock",
        "mpsc",
    ];
    let modules = [
        "src/auth/",
        "src/config/",
        "src/logger/queue.rs",
        "src/relay/",
        "src/server/",
        "src/sync/",
    ];
    // The primitives themselves are exchanged in the models.
    let exchanged = "src/sync/primitives.rs";
    for (name, code) in sources() {
        if name == exchanged || !modules.iter().any(|module| name.starts_with(module)) {
            continue;
        }
        for line in code.iter().filter(|line| line.contains("std::")) {
            let from_std = shared.iter().any(|word| line.contains(word));
            assert!(!from_std, "{name}: {line}");
        }
    }
}

#[test]
fn no_code_makes_a_call_that_a_peer_can_make_panic() {
    let calls = [
        "println!",
        "print!",
        "thread::spawn(",
        "env::args()",
        ".unwrap()",
        ".expect(",
        "panic!",
        "unreachable!",
        "todo!",
        "unimplemented!",
        "dbg!",
    ];
    assert_absent(&calls, &["src/", "cgi-bin/", "run/src/"]);
    assert_absent(&["unsafe", "try_clone"], &["src/", "cgi-bin/"]);
    assert_absent(&["set_read_timeout", "set_write_timeout"], &["src/"]);
}

#[test]
fn unsafe_code_is_in_one_file_and_each_block_has_its_reason() {
    let file = "run/src/kernel.rs";
    for (name, code) in sources() {
        let is_unsafe = |line: &String| line.contains("unsafe") && !line.contains("unsafe_code");
        let found = code.iter().any(is_unsafe);
        assert_eq!(found, name == file, "{name}");
    }
    let text = project_file(file);
    let blocks = text.matches("unsafe {").count();
    assert_eq!(text.matches("// SAFETY: ").count(), blocks);
    assert!(blocks < 25, "{blocks}");
}

#[test]
fn the_first_line_of_every_module_explains_it_in_one_sentence() {
    for (name, _) in sources() {
        let text = project_file(&name);
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("//! "), "{name}: {first}");
        assert!(
            first.ends_with('.') || first.ends_with(':'),
            "{name}: {first}"
        );
    }
}

#[test]
fn s12_a_panic_stays_in_its_session() {
    let manifest = project_file("Cargo.toml");
    assert!(!manifest.contains("panic = \"abort\""));
}

/// The long options in a text, `--like-this`, sorted, each once.
fn options(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(|char: char| !(char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 3)
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn help_and_manual_name_the_same_options() {
    // The examples also use options of curl.
    let own = |text: &str| -> Vec<String> {
        let all = options(text).into_iter();
        all.filter(|option| {
            !["--socks4", "--socks5"]
                .iter()
                .any(|it| option.starts_with(it))
        })
        .collect()
    };
    let manual = project_file("docs/threadsocks.8").replace("\\-", "-");
    assert_eq!(own(&manual), own(&help()));
    let version = concat!("threadsocks ", env!("CARGO_PKG_VERSION"));
    assert!(manual.contains(version));
    assert!(project_file("CHANGELOG.md").contains(concat!("## ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_architecture_states_the_size_of_the_code() {
    let page = project_file("ARCHITECTURE.md");
    for (folder, after) in [
        ("src/", " lines of code for the server"),
        ("cgi-bin/", " for the console"),
        ("run/", " for `threadsocks run`"),
    ] {
        let files = sources().into_iter();
        let selected = files.filter(|(name, _)| name.starts_with(folder));
        let lines: usize = selected.map(|(_, code)| code.len()).sum();
        let stated = page
            .split_once(after)
            .and_then(|(front, _)| front.rsplit_once(char::is_whitespace))
            .map(|(_, number)| number.replace(',', ""))
            .unwrap_or_else(|| panic!("\"...{after}\" in ARCHITECTURE.md"));
        let stated: usize = stated.parse().expect("a number");
        assert!(
            stated.abs_diff(lines) <= 150,
            "ARCHITECTURE.md says {stated}{after}, counted {lines}"
        );
    }
}

/// The names of all `#[test]` functions below these folders.
fn tests_in(folders: &[&str]) -> Vec<String> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|it| project().join(it)).collect();
    let mut names = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let parts = text.split("#[test]").skip(1);
                let name = |it: &str| {
                    it.split_once("fn ")?
                        .1
                        .split_once('(')
                        .map(|it| it.0.into())
                };
                names.extend(parts.filter_map(name));
            }
        }
    }
    names
}

/// The faults that a test is named after: `H4`, for `h04_every_prefix...`.
fn faults_of(test: &str) -> Vec<String> {
    let is_fault = |part: &&str| {
        part.len() == 3
            && part.starts_with(|letter: char| letter.is_ascii_lowercase())
            && part[1..].bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = test.split('_').take_while(is_fault);
    parts
        .map(|part| {
            let (letter, number) = part.split_at(1);
            format!("{}{}", letter.to_uppercase(), number.parse::<u8>().unwrap())
        })
        .collect()
}

#[test]
fn every_fault_has_its_row_and_every_row_its_tests() {
    let tests = tests_in(&["src", "cgi-bin", "run/src", "tests"]);
    let page = project_file("docs/reliability.md");
    let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
    // The heading of a table has no fault in its first cell.
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| |");
    for line in page.lines().filter(is_row) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, fault, .., named, result, _] = *cells.as_slice() else {
            panic!("{line}");
        };
        let named: Vec<&str> = named.split('`').filter(|it| it.len() > 1).collect();
        for name in &named {
            assert!(tests.iter().any(|test| test == name), "{fault}: no {name}");
        }
        let elsewhere = ["*GSSAPI*", "not tested: "];
        let is_tested = !elsewhere.iter().any(|it| result.starts_with(it));
        assert_eq!(is_tested, result == "holds", "{line}");
        assert_eq!(is_tested, !named.is_empty(), "{line}");
        rows.push((fault, named));
    }
    for test in &tests {
        for fault in faults_of(test) {
            let row = rows.iter().find(|(it, _)| *it == fault);
            let (_, named) = row.unwrap_or_else(|| panic!("no row {fault} for {test}"));
            assert!(
                named.contains(&test.as_str()),
                "{test} is not in row {fault}"
            );
        }
    }
}
