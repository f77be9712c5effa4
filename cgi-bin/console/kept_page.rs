//! The pages of the kept runs: their list, and each of them. Neither starts a session.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

use crate::html::{self, Icon, Nonce, escape};
use crate::kept_runs::{KeptRun, KeptRuns, MAX_RUN_SIZE, MAX_RUNS, RunState};
use crate::query::{Format, Query};
use crate::recorded::{ROWS_LINE, TIME_LINE, WHO_LINE};
use crate::row::host_and_port;

/// Number of lines of a transcript in one block, which a browser lays out when it becomes
/// visible.
const LINES_OF_BLOCK: usize = 100;

/// Bytes at the end of a file that contain its last two lines.
const TAIL_LENGTH: u64 = 512;

/// Maximum length in bytes of the three lines at the start of a file: the query is the
/// longest, as long as the file of a token.
const HEAD_LENGTH: u64 = 1024 * 1024;

/// The message for an unknown ID.
const NO_RUN: &str = "There is no such kept run. The console deletes the oldest runs when it \
    starts new ones.";

/// The message if runs are not kept.
const NOT_KEPT: &str = "Runs are not kept here. The administrator can set CONSOLE_RUNS in the \
    environment of the CGI program to a folder that its user may write.";

/// Writes the pages of these runs. The nonce must be that of the headers.
#[derive(Debug)]
pub(crate) struct KeptPage<'a> {
    pub(crate) runs: Option<&'a KeptRuns>,
    /// HTML or text.
    pub(crate) format: Format,
    pub(crate) nonce: Nonce,
}

/// The first and the last lines of the file of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct RunFacts {
    /// The start, in the format of RFC 3339.
    started: String,
    who: String,
    query: Query,
    /// For example `3 done, 2 failed; 11 of 16 commands; 2.6 s`.
    summary: String,
    /// `OK 5 of 5` or `FAILED 2 of 5`; for a run without its end, why there is none.
    outcome: String,
}

impl KeptPage<'_> {
    /// Writes the list of all runs, the newest first.
    ///
    /// # Errors
    ///
    /// Of writing.
    pub(crate) fn write_list(&self, output: &mut impl Write) -> io::Result<()> {
        let Some(runs) = self.runs else {
            return self.write_message("Kept runs", NOT_KEPT, output);
        };
        let ids = match runs.ids() {
            Ok(ids) => ids,
            Err(error) => {
                let message = format!("The folder of the kept runs cannot be read: {error}.");
                return self.write_message("Kept runs", &message, output);
            }
        };
        let found = ids.iter().filter_map(|id| runs.find(id).ok().flatten());
        if self.format == Format::Text {
            for run in found {
                let facts = facts(&run);
                let RunFacts {
                    started,
                    who,
                    outcome,
                    ..
                } = &facts;
                let shells = shells(&facts.query);
                let fields = [started, who, outcome, &shells].map(|field| {
                    // Separators of this list are not part of a field.
                    field.replace(char::is_control, " ")
                });
                writeln!(output, "{}\t{}", run.id, fields.join("\t"))?;
            }
            return Ok(());
        }
        self.write_head("Kept runs", Icon::Plain, output)?;
        write!(
            output,
            "<header class=\"top\"><h1>Kept runs</h1>\n<nav aria-label=\"Console\">\
             <a href=\"?\">New form</a></nav></header>\n<main>\n\
             <p class=\"soft\">The newest {MAX_RUNS} runs at most. Opening a run does not repeat \
             it.</p>\n\
             <div class=\"wide-table\" tabindex=\"0\" role=\"region\" aria-label=\"Kept runs\"><table>\n\
             <thead><tr><th scope=\"col\">Start</th><th scope=\"col\">By</th><th scope=\"col\">Shells</th>\
             <th scope=\"col\">Result</th><th scope=\"col\">Stop</th></tr></thead>\n<tbody>\n"
        )?;
        for run in found {
            write_list_row(&run, output)?;
        }
        output.write_all(b"</tbody></table></div>\n</main>\n</body>\n</html>\n")
    }

    /// Writes one run: its file as text, or its columns.
    ///
    /// # Errors
    ///
    /// Of writing, or of reading the file.
    pub(crate) fn write_run(&self, id: &str, output: &mut impl Write) -> io::Result<()> {
        let Some(runs) = self.runs else {
            return self.write_message("Kept run", NOT_KEPT, output);
        };
        let mut run = match runs.find(id) {
            Ok(Some(run)) => run,
            Ok(None) => return self.write_message("Kept run", NO_RUN, output),
            Err(error) => {
                let message = format!("The file of this run cannot be read: {error}.");
                return self.write_message("Kept run", &message, output);
            }
        };
        if self.format == Format::Text {
            io::copy(&mut run.file, output)?;
            return Ok(());
        }
        self.write_columns(&run, output)
    }

    /// Writes a run as HTML. It reads the file twice for each column: the file may be much
    /// larger than the memory that this process should use.
    fn write_columns(&self, run: &KeptRun, output: &mut impl Write) -> io::Result<()> {
        let facts = facts(run);
        let icon = match facts.outcome.split(' ').next() {
            Some("OK") => Icon::Success,
            _ if run.state == RunState::Running => Icon::Running,
            _ => Icon::Failure,
        };
        let started = &facts.started;
        let time = escape(&html::readable_time(started));
        let title = format!("Run of {}", html::readable_time(started));
        let head = html::document_head_with(&self.nonce, &title, icon, html::COLUMN_STYLE);
        let edit = html::edit_control(&facts.query);
        write!(
            output,
            "{head}<body>\n<header class=\"top\"><h1>Run of <time datetime=\"{}\">{time}</time></h1>\n\
             <p class=\"soft\">by {}</p>\n<nav aria-label=\"This run\"><a href=\"?runs\">Kept runs</a> \
             {edit} <a href=\"?run={}&amp;format=text\">As text</a> <a href=\"?\">New form</a>\
             </nav></header>\n{}<main id=\"board\"><div class=\"page\">\n\
             <div class=\"bar small\"><p class=\"sum\" id=\"sum\">{}</p>\n",
            escape(started),
            escape(&facts.who),
            run.id,
            html::rows_form(&facts.query),
            escape(&result_text(&facts)),
        )?;
        match run.state {
            RunState::Running => {
                output.write_all(b"<p>Reload this page to see more.</p>\n")?;
                write_stop_form(&run.id, output)?;
            }
            _ => {
                let only = facts.query.again();
                writeln!(
                    output,
                    "<button form=\"rows\" name=\"again\" value=\"{only}\">Run again</button>"
                )?;
            }
        }
        if run.size() >= MAX_RUN_SIZE {
            let limit = MAX_RUN_SIZE / (1024 * 1024);
            writeln!(output, "<p>Output after {limit} MiB is not kept.</p>")?;
        }
        output.write_all(b"</div>\n<div class=\"columns\">\n")?;
        for (number, column) in column_heads(&run.file)?.iter().enumerate() {
            write_column(run, number, column, output)?;
        }
        output.write_all(b"</div>\n</div></main>\n</body>\n</html>\n")
    }

    fn write_head(&self, title: &str, icon: Icon, output: &mut impl Write) -> io::Result<()> {
        let head = html::document_head(&self.nonce, title, icon);
        writeln!(output, "{head}<body>")
    }

    /// Writes a page with one sentence.
    fn write_message(&self, title: &str, text: &str, output: &mut impl Write) -> io::Result<()> {
        if self.format == Format::Text {
            return writeln!(output, "# {text}");
        }
        self.write_head(title, Icon::Plain, output)?;
        write!(
            output,
            "<header class=\"top\"><h1>{title}</h1>\n<nav aria-label=\"Console\">\
             <a href=\"?\">New form</a></nav></header>\n<main><p>{}</p></main>\n</body>\n</html>\n",
            escape(text)
        )
    }
}

/// Writes the row of a run in the list.
fn write_list_row(run: &KeptRun, output: &mut impl Write) -> io::Result<()> {
    let facts = facts(run);
    let id = &run.id;
    let started = escape(&facts.started);
    let class = match (facts.outcome.starts_with("OK"), run.state) {
        (true, _) => "good",
        (_, RunState::Running) => "busy",
        _ => "bad",
    };
    write!(
        output,
        "<tr><th scope=\"row\"><a href=\"?run={id}\"><time datetime=\"{started}\">{}</time></a></th>\
         <td>{}</td><td>{}</td><td><span class=\"state {class}\">{}</span></td><td>",
        html::readable_time(&started),
        escape(&facts.who),
        escape(&shells(&facts.query)),
        escape(&result_text(&facts)),
    )?;
    if run.state == RunState::Running {
        write_stop_form(id, output)?;
    }
    output.write_all(b"</td></tr>\n")
}

/// Writes the button that stops a run.
fn write_stop_form(id: &str, output: &mut impl Write) -> io::Result<()> {
    writeln!(
        output,
        "<form method=\"post\" action=\"?\"><button class=\"small\" name=\"stop\" value=\"{id}\">Stop</button></form>"
    )
}

/// Outcome and summary of a run.
fn result_text(facts: &RunFacts) -> String {
    match facts.summary.is_empty() {
        true => facts.outcome.clone(),
        false => format!("{}: {}", facts.outcome, facts.summary),
    }
}

/// The shells of a run, for example `alpha:7100, beta:7100`.
fn shells(query: &Query) -> String {
    let rows = query.rows.iter().zip(1..);
    let ran = rows.filter(|(row, number)| !row.host.is_empty() && query.runs_row(*number));
    let shells = ran.map(|(row, _)| host_and_port(&row.host, &row.port));
    shells.collect::<Vec<_>>().join(", ")
}

/// Reads what the list shows of a run. Unreadable fields are empty.
fn facts(run: &KeptRun) -> RunFacts {
    let mut file = &run.file;
    let _ = file.seek(SeekFrom::Start(0));
    let mut lines = BufReader::new(file.take(HEAD_LENGTH)).lines();
    let mut field = |prefix: &str| {
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        line.strip_prefix(prefix).unwrap_or_default().to_owned()
    };
    let (started, who, rows) = (field(TIME_LINE), field(WHO_LINE), field(ROWS_LINE));
    let mut query = Query::parse(rows.as_bytes());
    // Links and forms of these pages request HTML.
    query.format = Format::Html;
    let (summary, outcome) = match (run.state, last_lines(file)) {
        (RunState::Complete, Some(lines)) => lines,
        (RunState::Running, _) => (String::new(), "running".to_owned()),
        _ => (String::new(), "interrupted".to_owned()),
    };
    RunFacts {
        started,
        who,
        query,
        summary,
        outcome,
    }
}

/// The summary and the outcome in the last two lines of a file. `None` if the run has not
/// written them.
fn last_lines(mut file: &File) -> Option<(String, String)> {
    let size = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_LENGTH)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_LENGTH).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let mut lines = tail.strip_suffix('\n')?.rsplit('\n');
    let (outcome, summary) = (lines.next()?, lines.next()?);
    let outcome = outcome.strip_prefix("# ")?;
    let summary = summary.strip_prefix("# ")?;
    let is_outcome = outcome.starts_with("OK ") || outcome.starts_with("FAILED ");
    is_outcome.then(|| (summary.to_owned(), outcome.to_owned()))
}

/// The heading of a column in a file.
#[derive(Debug, PartialEq, Eq)]
struct ColumnHead {
    title: String,
    /// File and route.
    way: String,
}

/// Lines of a file, from its start; each without its line end.
fn lines(mut file: &File) -> io::Result<impl Iterator<Item = String>> {
    file.seek(SeekFrom::Start(0))?;
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    Ok(lines.map(|line| String::from_utf8_lossy(&line).into_owned()))
}

/// The first status line of each column, which follow the three lines of the record.
fn column_heads(file: &File) -> io::Result<Vec<ColumnHead>> {
    let mut heads: Vec<ColumnHead> = Vec::new();
    for line in lines(file)?.skip(3) {
        let Some((title, way)) = line.split_once(" # ") else {
            break;
        };
        // The second status line of a column: all columns have had their first.
        if heads.iter().any(|head| head.title == title) {
            break;
        }
        heads.push(ColumnHead {
            title: title.to_owned(),
            way: way.to_owned(),
        });
    }
    Ok(heads)
}

/// Writes one column: its heading, its last state and its transcript.
fn write_column(
    run: &KeptRun,
    number: usize,
    head: &ColumnHead,
    output: &mut impl Write,
) -> io::Result<()> {
    let status_prefix = format!("{} # ", head.title);
    let output_prefix = format!("{} | ", head.title);
    let (mut state, mut next_step) = (String::new(), String::new());
    for line in lines(&run.file)?.skip(3) {
        if let Some(status) = line.strip_prefix(&status_prefix) {
            match status.strip_prefix("next: ") {
                Some(next) => next.clone_into(&mut next_step),
                None => status.clone_into(&mut state),
            }
        }
    }
    // Only a failure has a next step.
    let class = match next_step.is_empty() {
        false => "bad",
        true if state.contains(" sent") => "good",
        true if run.state == RunState::Running => "busy",
        // The run was interrupted before the end of this session.
        true => "bad",
    };
    let title = escape(&head.title);
    write!(
        output,
        "<section class=\"column\" aria-labelledby=\"title{number}\">\n<h2 id=\"title{number}\">{title}</h2>\n\
         <p class=\"way\">{}</p>\n<p class=\"state {class}\">{}</p>\n<div class=\"scroll\" tabindex=\"0\" \
         role=\"region\" aria-label=\"Output of {title}\"><div class=\"content\"><pre>",
        escape(&head.way),
        escape(&state),
    )?;
    let mut block = String::new();
    let mut count = 0;
    for line in lines(&run.file)?.skip(3) {
        let Some(text) = line.strip_prefix(&output_prefix) else {
            continue;
        };
        block.push_str(&escape(text));
        block.push('\n');
        count += 1;
        if count % LINES_OF_BLOCK == 0 {
            write_block(&mut block, output)?;
        }
    }
    write_block(&mut block, output)?;
    write!(
        output,
        "</pre><div class=\"next\">{}</div></div></div>\n</section>\n",
        escape(&next_step)
    )
}

/// Writes whole lines as a block.
fn write_block(block: &mut String, output: &mut impl Write) -> io::Result<()> {
    if !block.is_empty() {
        write!(output, "<span class=\"bulk\">{block}</span>")?;
        block.clear();
    }
    Ok(())
}
