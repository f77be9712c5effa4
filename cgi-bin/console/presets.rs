//! Presets: filled forms of the administrator, which the form offers as links.

use std::fmt::Write;
use std::io;

use crate::folder;
use crate::html::escape;
use crate::output::log_error;
use crate::query::Query;

/// The folder of the presets, relative to the working directory, as the batch folder is.
const PRESET_FOLDER: &str = "presets";

/// Maximum size of a preset in bytes: its first line must fit into an address.
const MAX_PRESET_SIZE: usize = 8 * 1024;

/// Maximum number of presets that the form offers, which bounds the size of the page.
const MAX_PRESETS: usize = 50;

/// A filled form.
#[derive(Debug, PartialEq, Eq)]
struct Preset {
    /// The name of the file.
    name: String,
    /// The form as a query, with its `?`.
    link: String,
}

/// Writes links to the presets, if there are any. Errors go to the web server's error log.
pub(crate) fn write_links(page: &mut String) {
    let mut names = folder::list(PRESET_FOLDER);
    if names.len() > MAX_PRESETS {
        let count = names.len();
        log_error(&format!(
            "{PRESET_FOLDER}: of {count} files the form offers the first {MAX_PRESETS}"
        ));
        names.truncate(MAX_PRESETS);
    }
    let presets: Vec<Preset> = names.into_iter().filter_map(read).collect();
    if presets.is_empty() {
        return;
    }
    page.push_str(
        "<nav class=\"presets\" aria-labelledby=\"presets\"><h2 id=\"presets\">Presets</h2>\n<ul>\n",
    );
    for Preset { name, link } in presets {
        let _ = writeln!(
            page,
            "<li><a href=\"{}\">{}</a></li>",
            escape(&link),
            escape(&name)
        );
    }
    page.push_str("</ul></nav>\n");
}

/// Reads a preset. An invalid one is reported and left out.
fn read(name: String) -> Option<Preset> {
    let link = folder::read(PRESET_FOLDER, &name, MAX_PRESET_SIZE)
        .and_then(|text| link(&text).map_err(io::Error::other));
    match link {
        Ok(link) => Some(Preset { name, link }),
        Err(error) => {
            log_error(&format!(
                "{PRESET_FOLDER}/{name}: {error}; it is not offered"
            ));
            None
        }
    }
}

/// The link for the content of a preset: an address of the console, or its part after the
/// `?`. The link opens the form, and starts no run.
///
/// # Errors
///
/// What the form of the link would lack.
fn link(text: &[u8]) -> Result<String, &'static str> {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    // A query has no `?`: a browser encodes it.
    let query = line.rsplit(|&byte| byte == b'?').next().unwrap_or_default();
    let query = Query::parse(query);
    if !query.batch.is_empty() {
        return Err("a link cannot carry a typed batch; name a batch file");
    }
    if query.is_empty() {
        return Err("its first line has no value of the form, such as h1=localhost&p1=7000");
    }
    if !query.excess_shells.is_empty() {
        return Err("it has more shells than the form has rows");
    }
    Ok(format!("?{}edit=1", query.encode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w34_a_preset_is_the_first_line_of_its_file() {
        for text in [
            "h1=a&p1=1&x=y&once=0&again=1\nh2=b\n",
            "http://localhost:8080/cgi-bin/console.cgi?p1=1&h1=a\r\n",
            "  ?h0=a&p0=1&edit=",
            "shells=a:1",
        ] {
            assert_eq!(
                link(text.as_bytes()).as_deref(),
                Ok("?h1=a&p1=1&edit=1"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn w34_a_preset_without_a_form_is_invalid() {
        for text in [
            "",
            "\nh1=a",
            "# comment",
            "once=0&edit=1",
            "h1=a&batch=ls",
            "shells=a+b+c+d+e+f",
        ] {
            assert!(link(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
