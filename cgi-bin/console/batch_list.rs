//! The batch files in the form: their names as suggestions, and their texts.

use std::fmt::Write;

use crate::batch::{self, BATCH_FOLDER};
use crate::folder;
use crate::html::escape;
use crate::terminal;

/// Maximum number of files whose text the form shows. With [`MAX_SHOWN_TEXT`] it bounds the
/// size of the page.
const MAX_SHOWN_FILES: usize = 20;

/// Maximum length of the shown text of a file in bytes.
const MAX_SHOWN_TEXT: usize = 4 * 1024;

/// Writes the names that the browser suggests, and the texts of the files. The user may
/// type other names.
pub(crate) fn write(page: &mut String) {
    let files = batch::list_files();
    page.push_str("<datalist id=\"files\">");
    for name in &files {
        let _ = write!(page, "<option value=\"{}\">", escape(name));
    }
    page.push_str("</datalist>\n");
    if files.is_empty() {
        let _ = writeln!(
            page,
            "<p class=\"soft\">There are no batch files in the folder {BATCH_FOLDER}.</p>"
        );
        return;
    }
    let count = files.len();
    let _ = writeln!(
        page,
        "<details class=\"files\"><summary>Show the batch files ({count})</summary>"
    );
    let (shown, others) = files.split_at(count.min(MAX_SHOWN_FILES));
    for name in shown {
        write_file(page, name);
    }
    if !others.is_empty() {
        let names = escape(&others.join(", "));
        let _ = writeln!(page, "<p>Without their texts: {names}</p>");
    }
    page.push_str("</details>\n");
}

/// Writes the text of a file.
fn write_file(page: &mut String, name: &str) {
    let name_in_html = escape(name);
    let _ = write!(page, "<details><summary>{name_in_html}</summary>");
    match folder::read_start(BATCH_FOLDER, name, MAX_SHOWN_TEXT) {
        Ok(text) => {
            let start = text.get(..MAX_SHOWN_TEXT).unwrap_or(&text);
            let lines = start.split(|&byte| byte == b'\n');
            let lines: Vec<String> = lines
                .map(|line| terminal::plain(line.strip_suffix(b"\r").unwrap_or(line)))
                .collect();
            let shown = escape(&lines.join("\n"));
            // The group has a name for screen readers. The text scrolls, so it takes the
            // focus of the keyboard. An HTML parser drops the first line end.
            let _ = writeln!(
                page,
                "<pre tabindex=\"0\" role=\"group\" aria-label=\"{name_in_html}\">\n{shown}</pre>"
            );
            if start.len() < text.len() {
                let size = MAX_SHOWN_TEXT / 1024;
                let _ = writeln!(page, "<p>The file goes on after these {size} KiB.</p>");
            }
        }
        Err(error) => {
            let error = escape(&error.to_string());
            let _ = writeln!(page, "<p>cannot read this file: {error}</p>");
        }
    }
    page.push_str("</details>\n");
}
