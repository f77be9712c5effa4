//! Clients that connect and read a page.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::proxy::Proxy;
use crate::support::run::{CURL, VERSIONS, output_of, sessions};
use crate::support::tools::{is_found, is_installed};
use crate::support::web_site::{Page, WebSite};

const GREETING: &str = "a page of this site\n";
const SITE: &[Page] = &[("/", "text/plain", GREETING)];

/// Asserts that a program prints the page of a site, through the server, with both versions.
/// `URL` in its arguments becomes the address of the page.
fn assert_fetches(words: &[&str]) {
    for version in VERSIONS {
        let proxy = Proxy::open();
        let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), SITE);
        let words: Vec<String> = words
            .iter()
            .map(|word| word.replace("URL", &site.url()))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = output_of(version, &proxy, &words);
        assert_eq!(output.text(), GREETING, "{words:?} {output:#?}");
        assert!(output.status.success(), "{words:?} {output:#?}");
        let expected = format!("{} CONNECT Accept", site.address());
        assert_eq!(sessions(&proxy, 1), [expected], "{words:?}");
        proxy.finish();
    }
}

#[test]
fn k02_curl_and_wget_fetch_a_page() {
    if is_installed("curl", "curl") {
        assert_fetches(&[&CURL[..], &["URL"]].concat());
    }
    if is_installed("wget", "wget") {
        assert_fetches(&["wget", "--no-config", "--no-proxy", "-qO-", "URL"]);
    }
}

#[test]
fn k02_a_static_program_fetches_a_page() {
    if is_installed("busybox", "busybox-static") {
        assert_fetches(&["busybox", "wget", "-qO-", "URL"]);
    }
}

#[test]
fn k02_python_fetches_a_page() {
    if !is_installed("python3", "python3") {
        return;
    }
    const BLOCKING: &str = "
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(sys.argv[1]).read().decode(), end='')
";
    assert_fetches(&["python3", "-c", BLOCKING, "URL"]);
}

#[test]
fn k03_asyncio_connects_in_parallel_and_reports_a_refusal() {
    if !is_installed("python3", "python3") {
        return;
    }
    const SCRIPT: &str = "
import asyncio, sys
async def fetch(port):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    writer.write(b'GET / HTTP/1.0\\r\\n\\r\\n')
    page = await reader.read()
    writer.close()
    return page.endswith(b'site\\n') and writer.get_extra_info('peername') == ('127.0.0.1', port)
async def main():
    print(all(await asyncio.gather(*[fetch(int(sys.argv[1])) for _ in range(20)])))
    try:
        await asyncio.open_connection('127.0.0.1', 1)
    except ConnectionRefusedError:
        print('refused')
asyncio.run(main())
";
    for version in VERSIONS {
        let proxy = Proxy::open();
        let site = WebSite::start_at(Ipv4Addr::LOCALHOST.into(), SITE);
        let port = site.port().to_string();
        let output = output_of(version, &proxy, &["python3", "-c", SCRIPT, &port]);
        assert_eq!(output.text(), "True\nrefused\n", "{output:#?}");
        let sessions = sessions(&proxy, 21);
        let served = format!("{} CONNECT Accept", site.address());
        assert_eq!(sessions.iter().filter(|it| **it == served).count(), 20);
        proxy.finish();
    }
}

#[test]
fn k02_programs_of_other_runtimes_fetch_a_page_where_they_are_installed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    if is_found("node") {
        const SCRIPT: &str = "require('http').get(process.argv[1], answer => \
                              answer.on('data', data => process.stdout.write(data)))";
        assert_fetches(&["node", "-e", SCRIPT, "URL"]);
    }
    if is_found("javac") {
        const PROGRAM: &str = "
public class Fetch {
    public static void main(String[] words) throws Exception {
        System.out.write(new java.net.URL(words[0]).openStream().readAllBytes());
        System.out.flush();
    }
}";
        fs::write(path("Fetch.java"), PROGRAM).unwrap();
        let mut compiler = Command::new("javac");
        let output = compiler.arg(path("Fetch.java")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_fetches(&[
            "java",
            "-cp",
            folder.path().to_str().unwrap(),
            "Fetch",
            "URL",
        ]);
    }
    if is_found("go") {
        let program = go_program(&folder);
        assert_fetches(&[&program, "URL"]);
    }
}

/// A static program that prints the page of its argument.
pub(super) fn go_program(folder: &tempfile::TempDir) -> String {
    const PROGRAM: &str = "package main
import (\"fmt\"; \"io\"; \"net/http\"; \"os\")
func main() {
    answer, problem := http.Get(os.Args[1])
    if problem != nil { fmt.Println(problem); os.Exit(1) }
    io.Copy(os.Stdout, answer.Body)
}";
    let source = folder.path().join("fetch.go");
    let program = folder.path().join("fetch");
    fs::write(&source, PROGRAM).unwrap();
    let mut compiler = Command::new("go");
    compiler
        .args(["build", "-o"])
        .args([&program, &source])
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", std::env::temp_dir().join("threadsocks-go-cache"));
    let output = RunningChild::start(&mut compiler, b"").wait_for_exit(LONG_TIMEOUT);
    assert!(output.status.success(), "{output:#?}");
    program.to_str().unwrap().to_owned()
}
