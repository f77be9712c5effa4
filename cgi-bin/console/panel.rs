//! The form: five rows, with what was typed kept and what was wrong beside it.

use std::fmt::Write;

use crate::allow::Allowed;
use crate::batch;
use crate::html::{self, Nonce, escape};
use crate::query::{Query, Row};
use crate::row::{self, Fault, Field};

/// One field of a row as the form shows it.
struct Entry {
    /// The key in the query, without the row's number.
    key: &'static str,
    label: &'static str,
    class: &'static str,
    /// What stands in it while it is empty: an example.
    example: fn(&Query) -> &str,
    /// Phones show a keyboard of digits.
    is_number: bool,
    field: Field,
    value: fn(&Row) -> &str,
}

const A_HOST: &str = "host name or IP";
const A_SOCKS_PORT: &str = "1080";

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

const ENTRIES: [Entry; 5] = [
    Entry {
        key: "h",
        label: "Shell server",
        class: "host",
        example: |_| A_HOST,
        is_number: false,
        field: Field::Host,
        value: |row| &row.host,
    },
    Entry {
        key: "p",
        label: "Port",
        class: "port",
        example: |_| "7000",
        is_number: true,
        field: Field::Port,
        value: |row| &row.port,
    },
    Entry {
        key: "f",
        label: "Batch file",
        class: "file",
        example: |_| "t1.txt",
        is_number: false,
        field: Field::File,
        value: |row| &row.file,
    },
    Entry {
        key: "sh",
        label: "SOCKS server",
        class: "host",
        example: |query| or(&query.socks_host, A_HOST),
        is_number: false,
        field: Field::SocksHost,
        value: |row| &row.socks_host,
    },
    Entry {
        key: "sp",
        label: "SOCKS port",
        class: "port",
        example: |query| or(&query.socks_port, A_SOCKS_PORT),
        is_number: true,
        field: Field::SocksPort,
        value: |row| &row.socks_port,
    },
];

/// Why there is a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// To be filled in or mended.
    Edit,
    /// It could run, but it is not sure that somebody wants that.
    Confirm,
}

/// The whole document.
pub(crate) fn panel(query: &Query, allowed: &Allowed, reason: Reason, nonce: &Nonce) -> String {
    let mut page = html::head(nonce, "Remote batch console");
    page.push_str(
        "<body class=\"wide\">\n<header class=\"top\"><h1>Remote batch console</h1>\n\
         <p class=\"soft\">Up to five shells at once, each reached through a SOCKS server, \
         each fed a batch file line by line.</p></header>\n<main>\n<form method=\"get\">\n",
    );
    if reason == Reason::Confirm {
        page.push_str(
            "<p id=\"confirm\" role=\"status\">Another page has led here, so nothing runs yet: press \
             Run if this is what you want.</p>\n",
        );
    }
    for (index, row) in query.rows.iter().enumerate() {
        let faults = row::faults(query, row, allowed);
        row_of_entries(&mut page, index + 1, row, &faults, query);
    }
    if !query.is_empty() && query.rows.iter().all(|row| row.host.is_empty()) {
        page.push_str(
            "<p class=\"error\" id=\"no-server\">Name a shell server in one row at least.</p>\n",
        );
    }
    shared_server(&mut page, query);
    let checked = if query.as_text { " checked" } else { "" };
    let _ = write!(
        page,
        "<p class=\"go\"><button>Run</button>\n<label class=\"check\"><input type=\"checkbox\" \
         name=\"format\" value=\"text\"{checked}> as plain text</label></p>\n"
    );
    files(&mut page);
    page.push_str("</form>\n</main>\n</body>\n</html>\n");
    page
}

fn row_of_entries(page: &mut String, number: usize, row: &Row, faults: &[Fault], query: &Query) {
    let _ = writeln!(page, "<fieldset><legend>Shell {number}</legend>");
    for entry in &ENTRIES {
        let why = faults.iter().find(|fault| fault.field == entry.field);
        let input = Input {
            id: format!("{}{number}", entry.key),
            label: entry.label,
            class: entry.class,
            value: (entry.value)(row),
            example: (entry.example)(query),
            is_number: entry.is_number,
            why: why.map(|fault| fault.why.as_str()),
        };
        input.write(page);
    }
    page.push_str("</fieldset>\n");
}

fn shared_server(page: &mut String, query: &Query) {
    page.push_str("<fieldset><legend>for all rows that name no SOCKS server</legend>\n");
    for (id, label, class, value, example) in [
        ("sh", "SOCKS server", "host", &query.socks_host, A_HOST),
        ("sp", "SOCKS port", "port", &query.socks_port, A_SOCKS_PORT),
    ] {
        let input = Input {
            id: id.to_owned(),
            label,
            class,
            value,
            example,
            is_number: id == "sp",
            why: None,
        };
        input.write(page);
    }
    page.push_str("</fieldset>\n");
}

/// One labelled entry as HTML.
struct Input<'a> {
    /// Its key in the query.
    id: String,
    label: &'a str,
    class: &'a str,
    value: &'a str,
    example: &'a str,
    is_number: bool,
    /// What is wrong with it.
    why: Option<&'a str>,
}

impl Input<'_> {
    fn write(&self, page: &mut String) {
        let Input {
            id, label, class, ..
        } = self;
        let value = escape(self.value);
        let example = escape(self.example);
        let mut more = String::new();
        if self.is_number {
            more.push_str(" inputmode=\"numeric\"");
        }
        if *class == "file" {
            more.push_str(" list=\"files\"");
        }
        if self.why.is_some() {
            let _ = write!(
                more,
                " aria-invalid=\"true\" aria-describedby=\"{id}-error\""
            );
        }
        // Phones would begin host names with a capital, and correct them.
        let _ = writeln!(
            page,
            "<div class=\"{class}\"><label for=\"{id}\">{label}</label>\n\
             <input id=\"{id}\" name=\"{id}\" value=\"{value}\" placeholder=\"{example}\" \
             autocapitalize=\"none\" spellcheck=\"false\"{more}>"
        );
        if let Some(why) = self.why {
            let why = escape(why);
            let _ = writeln!(page, "<p class=\"error\" id=\"{id}-error\">{why}</p>");
        }
        page.push_str("</div>\n");
    }
}

/// The files to choose from; others may be typed.
fn files(page: &mut String) {
    page.push_str("<datalist id=\"files\">");
    for name in batch::list() {
        let _ = write!(page, "<option value=\"{}\">", escape(&name));
    }
    page.push_str("</datalist>\n");
}
