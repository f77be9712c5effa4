//! The fields of the form: those of a row, and those for all rows.

use std::fmt::Write;

use crate::html::escape;
use crate::mistakes::Mistakes;
use crate::query::{Query, Row};

const HOST_EXAMPLE: &str = "host name or IP";
const SOCKS_PORT_EXAMPLE: &str = "e.g. 1080";

/// What a field contains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Host,
    Port,
    File,
}

impl Content {
    /// The class of the field, which determines its width.
    fn class(self) -> &'static str {
        match self {
            Content::Host => "host",
            Content::Port => "port",
            Content::File => "file",
        }
    }

    /// Phones show a numeric keyboard for a port. A browser suggests the names of the batch
    /// files. Without the first two attributes, phones capitalise and correct host names.
    fn attributes(self) -> &'static str {
        match self {
            Content::Host => " autocapitalize=\"none\" spellcheck=\"false\"",
            Content::Port => " autocapitalize=\"none\" spellcheck=\"false\" inputmode=\"numeric\"",
            Content::File => " autocapitalize=\"none\" spellcheck=\"false\" list=\"files\"",
        }
    }
}

/// An input element with its label and its mistake.
struct InputElement<'a> {
    /// The key in the query.
    id: String,
    label: &'a str,
    content: Content,
    value: &'a str,
    /// The placeholder of the empty field.
    example: &'a str,
}

impl InputElement<'_> {
    fn write(&self, page: &mut String, mistakes: &Mistakes) {
        let InputElement { id, label, .. } = self;
        let (value, example) = (escape(self.value), escape(self.example));
        let class = self.content.class();
        let attributes = self.content.attributes();
        let mistake_attributes = mistake_attributes(id, mistakes);
        let _ = writeln!(
            page,
            "<div class=\"{class}\"><label for=\"{id}\">{label}</label>\n\
             <input id=\"{id}\" name=\"{id}\" value=\"{value}\" placeholder=\"{example}\"\
             {attributes}{mistake_attributes}>"
        );
        write_mistake(page, id, mistakes);
        page.push_str("</div>\n");
    }
}

/// Writes the values for all rows that have no own value.
pub(crate) fn write_shared(page: &mut String, query: &Query, direct: bool, mistakes: &Mistakes) {
    let direct = match direct {
        true => "; without a SOCKS server they connect directly",
        false => "",
    };
    let _ = writeln!(
        page,
        "<fieldset class=\"shared\"><legend>For rows without a value of their own{direct}</legend>"
    );
    for (id, label, content, value, example) in [
        (
            "sh",
            "SOCKS server",
            Content::Host,
            &query.socks_host,
            HOST_EXAMPLE,
        ),
        (
            "sp",
            "SOCKS port",
            Content::Port,
            &query.socks_port,
            SOCKS_PORT_EXAMPLE,
        ),
        (
            "f",
            "Batch file",
            Content::File,
            &query.file,
            file_example(query, ""),
        ),
    ] {
        let input = InputElement {
            id: id.to_owned(),
            label,
            content,
            value,
            example,
        };
        input.write(page, mistakes);
    }
    page.push_str("</fieldset>\n");
}

/// Writes the fields of one row. A row has its own SOCKS server rarely, so its two fields
/// are folded unless one has a value or a mistake.
pub(crate) fn write_row(page: &mut String, number: usize, query: &Query, mistakes: &Mistakes) {
    let Some(row) = query.rows.get(number - 1) else {
        return;
    };
    let _ = writeln!(
        page,
        "<div class=\"row\" role=\"group\" aria-labelledby=\"row{number}\">\
         <span class=\"number\" id=\"row{number}\">Shell {number}</span>"
    );
    let [host, port, file] = [
        ("h", "Shell server", Content::Host, &row.host, HOST_EXAMPLE),
        ("p", "Port", Content::Port, &row.port, "e.g. 7000"),
        (
            "f",
            "Batch file",
            Content::File,
            &row.file,
            file_example(query, &query.file),
        ),
    ];
    write_fields(page, &[host, port, file], number, mistakes);
    let _ = writeln!(
        page,
        "<details class=\"own\"{}><summary>Own SOCKS server</summary>\n<div class=\"pair\">",
        open_if(has_own_server(row, number, mistakes))
    );
    let own_server = [
        (
            "sh",
            "SOCKS server",
            Content::Host,
            &row.socks_host,
            non_empty_or(&query.socks_host, HOST_EXAMPLE),
        ),
        (
            "sp",
            "SOCKS port",
            Content::Port,
            &row.socks_port,
            non_empty_or(&query.socks_port, SOCKS_PORT_EXAMPLE),
        ),
    ];
    write_fields(page, &own_server, number, mistakes);
    page.push_str("</div></details></div>\n");
}

/// Key, label, content, value and placeholder of a field of a row.
type RowField<'a> = (&'a str, &'a str, Content, &'a String, &'a str);

fn write_fields(page: &mut String, fields: &[RowField<'_>], number: usize, mistakes: &Mistakes) {
    for (key, label, content, value, example) in fields {
        let input = InputElement {
            id: format!("{key}{number}"),
            label,
            content: *content,
            value,
            example,
        };
        input.write(page, mistakes);
    }
}

fn has_own_server(row: &Row, number: usize, mistakes: &Mistakes) -> bool {
    let has_mistake = |key| mistakes.of(&format!("{key}{number}")).is_some();
    !row.socks_host.is_empty()
        || !row.socks_port.is_empty()
        || has_mistake("sh")
        || has_mistake("sp")
}

/// The placeholder of a batch file: the batch that runs without a file, or an example.
fn file_example<'a>(query: &Query, shared_file: &'a str) -> &'a str {
    match query.batch.is_empty() {
        _ if !shared_file.is_empty() => shared_file,
        true => "e.g. t1.txt",
        false => "the typed batch",
    }
}

/// Writes the list of shells and the typed batch, each folded while it is empty.
pub(crate) fn write_texts(page: &mut String, query: &Query, mistakes: &Mistakes) {
    let shells = query.excess_shells.join("\n");
    let shells = TextArea {
        id: "shells",
        summary: "Fill in rows from a list of shells",
        label: "Shells, one <code>host:port</code> per line, for the rows without a shell",
        value: &shells,
    };
    shells.write(page, mistakes);
    let label = match query.file.is_empty() {
        true => "Batch, one command per line, for the rows without a batch file",
        false => {
            "Batch, one command per line. It does not run while there is a batch file for all rows"
        }
    };
    let batch = TextArea {
        id: "batch",
        summary: "Type a batch instead of a file",
        label,
        value: &query.batch,
    };
    batch.write(page, mistakes);
}

/// A textarea element with its label and its mistake, folded while it is empty.
struct TextArea<'a> {
    /// The key in the query.
    id: &'a str,
    summary: &'a str,
    /// HTML.
    label: &'a str,
    value: &'a str,
}

impl TextArea<'_> {
    fn write(&self, page: &mut String, mistakes: &Mistakes) {
        let TextArea {
            id, summary, label, ..
        } = self;
        // A form sends each line end as CRLF. A browser shows the same for LF.
        let value = escape(&self.value.replace("\r\n", "\n"));
        let open = open_if(!self.value.is_empty());
        let attributes = mistake_attributes(id, mistakes);
        // An HTML parser drops the first line end of a textarea.
        let _ = writeln!(
            page,
            "<details class=\"text\"{open}><summary>{summary}</summary>\n\
             <label for=\"{id}\">{label}</label>\n\
             <textarea id=\"{id}\" name=\"{id}\" rows=\"6\" autocapitalize=\"none\" \
             spellcheck=\"false\"{attributes}>\n{value}</textarea>"
        );
        write_mistake(page, id, mistakes);
        page.push_str("</details>\n");
    }
}

/// The attributes of a field with a mistake. The first of them takes the focus.
fn mistake_attributes(id: &str, mistakes: &Mistakes) -> String {
    let focus = match mistakes.begin_at(id) {
        true => " autofocus",
        false => "",
    };
    match mistakes.of(id) {
        Some(_) => format!(" aria-invalid=\"true\" aria-describedby=\"{id}-error\"{focus}"),
        None => String::new(),
    }
}

fn write_mistake(page: &mut String, id: &str, mistakes: &Mistakes) {
    if let Some(mistake) = mistakes.of(id) {
        let failure = escape(&mistake.failure.to_string());
        let _ = writeln!(page, "<p class=\"error\" id=\"{id}-error\">{failure}</p>");
    }
}

/// The attribute of an open details element.
fn open_if(is_open: bool) -> &'static str {
    if is_open { " open" } else { "" }
}

/// Returns `text`, or `otherwise` if it is empty.
fn non_empty_or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}
