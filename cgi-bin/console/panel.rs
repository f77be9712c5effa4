//! The form: five rows with the values of the query, and an error next to each invalid field.

use std::fmt::Write;

use crate::batch;
use crate::html::{self, Icon, Nonce, escape};
use crate::query::{Format, Query, Row};
use crate::row::{self, Field, FieldError, Policy};
use crate::settings::Settings;

/// The description of one field of a row.
struct FieldSpec {
    /// The key in the query, without the number of the row.
    key: &'static str,
    label: &'static str,
    class: &'static str,
    /// The placeholder of the empty field.
    example: fn(&Query) -> &str,
    /// Phones show a numeric keyboard for this field.
    is_number: bool,
    field: Field,
    value: fn(&Row) -> &str,
}

const HOST_EXAMPLE: &str = "host name or IP";
const SOCKS_PORT_EXAMPLE: &str = "1080";

/// Returns `text`, or `otherwise` if it is empty.
fn non_empty_or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// The fields of a row, in the order of the form.
const FIELDS: [FieldSpec; 5] = [
    FieldSpec {
        key: "h",
        label: "Shell server",
        class: "host",
        example: |_| HOST_EXAMPLE,
        is_number: false,
        field: Field::Host,
        value: |row| &row.host,
    },
    FieldSpec {
        key: "p",
        label: "Port",
        class: "port",
        example: |_| "7000",
        is_number: true,
        field: Field::Port,
        value: |row| &row.port,
    },
    FieldSpec {
        key: "f",
        label: "Batch file",
        class: "file",
        example: |_| "t1.txt",
        is_number: false,
        field: Field::File,
        value: |row| &row.file,
    },
    FieldSpec {
        key: "sh",
        label: "SOCKS server",
        class: "host",
        example: |query| non_empty_or(&query.socks_host, HOST_EXAMPLE),
        is_number: false,
        field: Field::SocksHost,
        value: |row| &row.socks_host,
    },
    FieldSpec {
        key: "sp",
        label: "SOCKS port",
        class: "port",
        example: |query| non_empty_or(&query.socks_port, SOCKS_PORT_EXAMPLE),
        is_number: true,
        field: Field::SocksPort,
        value: |row| &row.socks_port,
    },
];

/// Renders the whole document. `notice` says why the form is shown instead of a run.
///
/// The form sends POST to its own URL without a query: rows in the address would be those
/// of the last run.
pub(crate) fn render(
    query: &Query,
    settings: &Settings,
    notice: Option<&str>,
    nonce: &Nonce,
) -> String {
    let policy = &settings.policy;
    let mut page = html::document_head(nonce, "Remote batch console", Icon::Plain);
    page.push_str(
        "<body class=\"wide\">\n<header class=\"top\"><h1>Remote batch console</h1>\n\
         <p class=\"soft\">Up to five shells at once, each reached through a SOCKS server, \
         each fed a batch file line by line.</p></header>\n<main>\n<form method=\"post\" action=\"?\">\n",
    );
    if let Some(notice) = notice {
        let notice = escape(notice);
        let _ = writeln!(page, "<p id=\"confirm\" role=\"status\">{notice}</p>");
    }
    for (index, row) in query.rows.iter().enumerate() {
        let field_errors = row::field_errors(query, row, policy);
        write_row(&mut page, index + 1, row, &field_errors, query);
    }
    if !query.is_empty() && query.rows.iter().all(|row| row.host.is_empty()) {
        page.push_str(
            "<p class=\"error\" id=\"no-server\">Name a shell server in one row at least.</p>\n",
        );
    }
    write_shared_server(&mut page, query, policy);
    let checked = if query.format == Format::Text {
        " checked"
    } else {
        ""
    };
    let _ = write!(
        page,
        "<p class=\"go\"><button>Run</button>\n<label class=\"check\"><input type=\"checkbox\" \
         name=\"format\" value=\"text\"{checked}> as plain text</label></p>\n"
    );
    write_file_list(&mut page);
    page.push_str("</form>\n</main>\n</body>\n</html>\n");
    page
}

/// Writes the fields of one row.
fn write_row(
    page: &mut String,
    number: usize,
    row: &Row,
    field_errors: &[FieldError],
    query: &Query,
) {
    let _ = writeln!(page, "<fieldset><legend>Shell {number}</legend>");
    for spec in &FIELDS {
        let error = field_errors.iter().find(|error| error.field == spec.field);
        let input = InputElement {
            id: format!("{}{number}", spec.key),
            label: spec.label,
            class: spec.class,
            value: (spec.value)(row),
            example: (spec.example)(query),
            is_number: spec.is_number,
            error: error.map(FieldError::to_string),
        };
        input.write(page);
    }
    page.push_str("</fieldset>\n");
}

/// Writes the fields of the shared SOCKS server.
fn write_shared_server(page: &mut String, query: &Query, policy: &Policy) {
    let direct = match policy.direct {
        true => "; if this is empty too, they connect directly",
        false => "",
    };
    let _ = writeln!(
        page,
        "<fieldset><legend>for all rows that name no SOCKS server{direct}</legend>"
    );
    for (id, label, class, value, example) in [
        (
            "sh",
            "SOCKS server",
            "host",
            &query.socks_host,
            HOST_EXAMPLE,
        ),
        (
            "sp",
            "SOCKS port",
            "port",
            &query.socks_port,
            SOCKS_PORT_EXAMPLE,
        ),
    ] {
        let input = InputElement {
            id: id.to_owned(),
            label,
            class,
            value,
            example,
            is_number: id == "sp",
            error: None,
        };
        input.write(page);
    }
    page.push_str("</fieldset>\n");
}

/// An input element with its label and its error.
struct InputElement<'a> {
    /// The key in the query.
    id: String,
    label: &'a str,
    class: &'a str,
    value: &'a str,
    example: &'a str,
    is_number: bool,
    /// The error of the field.
    error: Option<String>,
}

impl InputElement<'_> {
    fn write(&self, page: &mut String) {
        let InputElement {
            id, label, class, ..
        } = self;
        let value = escape(self.value);
        let example = escape(self.example);
        let mut attributes = String::new();
        if self.is_number {
            attributes.push_str(" inputmode=\"numeric\"");
        }
        if *class == "file" {
            attributes.push_str(" list=\"files\"");
        }
        if self.error.is_some() {
            let _ = write!(
                attributes,
                " aria-invalid=\"true\" aria-describedby=\"{id}-error\""
            );
        }
        // Without these attributes, phones capitalise and correct host names.
        let _ = writeln!(
            page,
            "<div class=\"{class}\"><label for=\"{id}\">{label}</label>\n\
             <input id=\"{id}\" name=\"{id}\" value=\"{value}\" placeholder=\"{example}\" \
             autocapitalize=\"none\" spellcheck=\"false\"{attributes}>"
        );
        if let Some(error) = &self.error {
            let error = escape(error);
            let _ = writeln!(page, "<p class=\"error\" id=\"{id}-error\">{error}</p>");
        }
        page.push_str("</div>\n");
    }
}

/// Writes the list of batch files that the browser suggests. The user may type other
/// names.
fn write_file_list(page: &mut String) {
    page.push_str("<datalist id=\"files\">");
    for name in batch::list_files() {
        let _ = write!(page, "<option value=\"{}\">", escape(&name));
    }
    page.push_str("</datalist>\n");
}
