//! Batch files: the lines that the console sends to a shell.

use std::io;

use crate::failure::Failure;
use crate::folder;

/// The folder of the batch files, relative to the working directory. A web server
/// sets the working directory of a CGI to the folder of the program.
pub(crate) const BATCH_FOLDER: &str = "test_case";

/// Maximum size of a batch file in bytes: the five batches of a page take at most
/// 5 MiB of memory.
const MAX_FILE_SIZE: usize = 1024 * 1024;

/// Maximum number of files that the form offers, which bounds the size of the page.
const MAX_LISTED_FILES: usize = 200;

/// Maximum number of file names in an error.
const MAX_HINTED_FILES: usize = 10;

/// Minimum Jaro-Winkler similarity of a suggested file name; 1 means equal. "t1" and
/// "t1.txt" have 0.84, "t1.txt" and "notes" 0.
const MIN_SIMILARITY: f64 = 0.8;

/// The command that makes a shell close the connection.
pub(crate) const EXIT_COMMAND: &str = "exit";

/// The UTF-8 byte order mark, which some editors write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines to send to one shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The whole text, not a vector of lines: a file of 1 MiB can have a million
    /// empty lines, and a `Vec` for each would take 24 MB.
    text: Vec<u8>,
    /// Number of lines to send: up to and including the first `exit`.
    pub(crate) line_count: usize,
}

/// Reports whether a line is `exit`. White space around it does not matter.
pub(crate) fn is_exit_command(line: &[u8]) -> bool {
    line.trim_ascii() == EXIT_COMMAND.as_bytes()
}

impl Batch {
    /// Parses the content of a file, or a typed batch.
    pub(crate) fn parse(text: &[u8]) -> Batch {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if text.is_empty() {
            return Batch::default();
        }
        let mut batch = Batch {
            text: text.strip_suffix(b"\n").unwrap_or(text).to_vec(),
            line_count: 0,
        };
        let exit = batch.all_lines().position(is_exit_command);
        batch.line_count = exit.map_or_else(|| batch.all_lines().count(), |index| index + 1);
        batch
    }

    /// The lines to send, without their line ends (LF or CRLF) and without the lines
    /// after `exit`.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.all_lines().take(self.line_count)
    }

    fn all_lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.text.split(|&byte| byte == b'\n');
        lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Reads a file of the batch folder.
    ///
    /// # Errors
    ///
    /// The name is invalid, or the file does not exist, is too large or cannot be read.
    pub(crate) fn read(name: &str) -> Result<Batch, Failure> {
        if !folder::is_valid_name(name) {
            let reason = "a batch file's name has letters, digits, '.', '_' and '-', and does not \
                          begin with '.'";
            return Err(Failure::new(reason, file_hint(name)));
        }
        match folder::read(BATCH_FOLDER, name, MAX_FILE_SIZE) {
            Ok(text) => Ok(Batch::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(
                format!("no such batch file: {name}"),
                file_hint(name),
            )),
            Err(error) => Err(Failure::new(
                format!("cannot use the batch file {name}: {error}"),
                format!(
                    "It must be a regular file of at most 1 MiB in {BATCH_FOLDER} that the web \
                     server's user may read."
                ),
            )),
        }
    }
}

/// Says which batch files there are, and which name is like this one.
pub(crate) fn file_hint(name: &str) -> String {
    let files = list_files();
    let similarity = |file: &&String| strsim::jaro_winkler(name, file);
    let closest = files
        .iter()
        .max_by(|one, other| similarity(one).total_cmp(&similarity(other)));
    let suggestion = closest.filter(|file| similarity(file) >= MIN_SIMILARITY);
    let suggestion = suggestion.map_or_else(String::new, |file| format!("Did you mean {file}? "));
    let shown = files.get(..MAX_HINTED_FILES).unwrap_or(&files).join(", ");
    match files.len() {
        0 => format!("There are no batch files: put one into the folder {BATCH_FOLDER}."),
        1..=MAX_HINTED_FILES => format!("{suggestion}There are: {shown}."),
        count => format!("{suggestion}There are {count} files, for example {shown}."),
    }
}

/// Lists the names of the batch files in alphabetical order. The list is empty if
/// the folder cannot be read.
pub(crate) fn list_files() -> Vec<String> {
    let mut names = folder::list(BATCH_FOLDER);
    names.truncate(MAX_LISTED_FILES);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_exit_are_not_sent() {
        for (text, lines, exits) in [
            ("", &[][..], false),
            ("\n", &[""], false),
            ("ls\n", &["ls"], false),
            ("ls", &["ls"], false),
            ("ls\r\n\r\ncat a\r\n", &["ls", "", "cat a"], false),
            ("a\n\n", &["a", ""], false),
            ("a\nexit\nb\n", &["a", "exit"], true),
            (" exit \nb", &[" exit "], true),
            ("exit now\n", &["exit now"], false),
            ("\u{feff}ls\r\n", &["ls"], false),
        ] {
            let batch = Batch::parse(text.as_bytes());
            let got: Vec<&[u8]> = batch.lines().collect();
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let ends_with_exit = got.last().is_some_and(|line| is_exit_command(line));
            assert_eq!((got, ends_with_exit), (lines, exits), "{text:?}");
        }
    }
}
