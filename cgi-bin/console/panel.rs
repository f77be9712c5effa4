//! The form: values for all rows, five rows, and an error next to each invalid field.

use std::fmt::Write;

use crate::batch_list;
use crate::html::{self, Icon, Nonce, escape};
use crate::mistakes::Mistakes;
use crate::panel_fields::{write_row, write_shared, write_texts};
use crate::presets;
use crate::query::{Format, Query, ROWS, row_list};
use crate::settings::Settings;

/// The heading of the form, and the end of the title of the document.
const NAME: &str = "Remote batch console";

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
    let mistakes = Mistakes::find(query, &settings.policy);
    // A screen reader begins with the title.
    let title = match mistakes.all.is_empty() {
        true => NAME.to_owned(),
        false => format!("{} - {NAME}", heading(&mistakes)),
    };
    let mut page = html::document_head(nonce, &title, Icon::Plain);
    let runs = match settings.kept_runs.is_some() {
        true => "<p><a href=\"?runs\">Kept runs</a></p>",
        false => "",
    };
    let _ = writeln!(
        page,
        "<body class=\"wide\">\n<header class=\"top\"><h1>{NAME}</h1>\n\
         <p class=\"soft\">Runs a batch on up to five shells at once, each through a SOCKS \
         server.</p>{runs}</header>\n<main>\n\
         <form method=\"post\" action=\"?\">"
    );
    if let Some(notice) = notice {
        let notice = escape(notice);
        let _ = writeln!(page, "<p id=\"confirm\">{notice}</p>");
    }
    write_summary(&mut page, &mistakes);
    presets::write_links(&mut page);
    write_shared(&mut page, query, settings.policy.direct, &mistakes);
    // The labels of wide screens. There the label of each field is hidden from sight only.
    page.push_str(
        "<fieldset class=\"rows\"><legend>Shells</legend>\n\
         <div class=\"names\" aria-hidden=\"true\"><span>Shell server</span><span>Port</span>\
         <span>Batch file</span></div>\n",
    );
    for number in 1..=ROWS {
        write_row(&mut page, number, query, &mistakes);
    }
    page.push_str("</fieldset>\n");
    write_texts(&mut page, query, &mistakes);
    batch_list::write(&mut page);
    write_buttons(&mut page, query, &mistakes);
    page.push_str("</form>\n</main>\n</body>\n</html>\n");
    page
}

/// Writes the number of mistakes, and a link to the field of each.
fn write_summary(page: &mut String, mistakes: &Mistakes) {
    if mistakes.all.is_empty() {
        return;
    }
    let heading = heading(mistakes);
    let _ = writeln!(
        page,
        "<section id=\"mistakes\" aria-labelledby=\"mistakes-heading\">\
         <h2 id=\"mistakes-heading\">{heading}</h2>\n<ul>"
    );
    for mistake in &mistakes.all {
        let field = &mistake.field;
        let text = escape(&format!("{}: {}", mistake.place, mistake.failure.reason));
        let _ = writeln!(page, "<li><a href=\"#{field}\">{text}</a></li>");
    }
    page.push_str("</ul></section>\n");
}

/// The mistakes in one phrase.
fn heading(mistakes: &Mistakes) -> String {
    let others = match *mistakes.other_rows() {
        [] => String::new(),
        [_] => ", or run the other one".to_owned(),
        [..] => format!(", or run the other {}", mistakes.other_rows().len()),
    };
    match mistakes.faulty_rows {
        // A list of shells, or a form without a shell.
        0 => "Nothing can run yet".to_owned(),
        1 => format!("1 row cannot run: mend it{others}"),
        count => format!("{count} rows cannot run: mend them{others}"),
    }
}

/// Writes the buttons. The first is the one that Enter in a field presses.
fn write_buttons(page: &mut String, query: &Query, mistakes: &Mistakes) {
    page.push_str("<p class=\"go\"><button>Run</button>\n");
    let others = mistakes.other_rows();
    if !others.is_empty() {
        let label = match others.len() {
            1 => "Run the other one".to_owned(),
            count => format!("Run the other {count}"),
        };
        let _ = writeln!(
            page,
            "<button class=\"second\" name=\"again\" value=\"{}\">{label}</button>",
            row_list(others)
        );
    }
    let checked = match query.format {
        Format::Text => " checked",
        Format::Html | Format::Json => "",
    };
    let _ = writeln!(
        page,
        "<label class=\"check\"><input type=\"checkbox\" name=\"format\" value=\"text\"{checked}> \
         as plain text</label></p>"
    );
}
