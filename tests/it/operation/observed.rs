//! What `docs/tour/observe.md` says of a running server.

use crate::support::endpoints::relayed_pair;
use crate::support::project::project_file;
use crate::support::proxy::Proxy;

#[test]
fn the_page_names_the_threads_of_a_session() {
    let page = project_file("docs/tour/observe.md");
    let listing = page.split("WCHAN\n").nth(1).expect("the listing of ps");
    let listing = listing.lines().take_while(|line| !line.starts_with("```"));
    let names = listing.filter_map(|line| line.split_whitespace().nth(1));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();

    let proxy = Proxy::open();
    let (client, remote) = relayed_pair(proxy.address());
    proxy.wait_for_thread("s1-down");
    assert_eq!(proxy.threads(), names);
    for name in names {
        let row = format!("| `{name}` |");
        assert!(page.contains(&row), "{row}");
    }
    drop((client, remote));
    proxy.finish();
}

#[test]
fn the_page_names_places_of_the_source() {
    let page = project_file("docs/tour/observe.md");
    let table = page.split("## Where this is in the source").nth(1);
    let rows = table.expect("the table").lines();
    let mut count = 0;
    for row in rows.filter(|row| row.contains("`src/")) {
        let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let (files, functions): (Vec<&str>, Vec<&str>) =
            quoted.into_iter().partition(|it| it.starts_with("src/"));
        let source: String = files.into_iter().map(project_file).collect();
        for function in functions {
            assert!(source.contains(&format!("fn {function}(")), "{row}");
        }
        count += 1;
    }
    assert_eq!(count, 7);
}
