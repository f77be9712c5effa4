//! The shell itself: a line becomes its output, with no process and no file.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// What a client sees first.
pub(crate) const BANNER: &str = "\
****************************************
** Welcome to the information server. **
****************************************
";

/// The one file there is at first, with what a page must escape.
const PAGE: &str = "<!test.html>\n<TITLE>Test</TITLE>\n<BODY>This is a <b>test</b> program\n\
                    for \"shells\" & <i>consoles</i>.\n</BODY>\n</script>\\n\n";

/// What one line brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Before each line of it.
    pub(crate) pause: Duration,
}

/// A client's own shell.
#[derive(Debug)]
pub(crate) struct Shell {
    environment: HashMap<String, String>,
    files: BTreeMap<String, Vec<u8>>,
    /// Input for later lines: how many lines later, and what.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Default for Shell {
    fn default() -> Shell {
        Shell {
            environment: HashMap::from([("PATH".to_owned(), "bin:.".to_owned())]),
            files: BTreeMap::from([("test.html".to_owned(), PAGE.as_bytes().to_vec())]),
            pending: Vec::new(),
        }
    }
}

/// Where the output of a line goes.
enum Destination {
    Client,
    File(String),
    /// To the line this many lines later, with or without errors.
    Later(usize, bool),
}

impl Shell {
    /// Runs one line; `None` ends the visit.
    pub(crate) fn run(&mut self, line: &str) -> Option<Output> {
        if line.is_empty() {
            return Some(Output::default());
        }
        if line == "exit" {
            return None;
        }
        let input = self.input_for_this_line();
        let (line, destination) = destination(line);
        let mut output = Output {
            stdout: input,
            ..Output::default()
        };
        for command in line.split(" | ") {
            output = self.command(command, output);
        }
        match destination {
            Destination::Client => {}
            Destination::File(name) => {
                let content = std::mem::take(&mut output.stdout);
                self.files.insert(name, content);
            }
            Destination::Later(lines, with_errors) => {
                let mut content = std::mem::take(&mut output.stdout);
                if with_errors {
                    content.append(&mut output.stderr);
                }
                self.pending.push((lines, content));
            }
        }
        Some(output)
    }

    /// What earlier lines have left for this one; all other counts go down.
    fn input_for_this_line(&mut self) -> Vec<u8> {
        for (lines, _) in &mut self.pending {
            *lines -= 1;
        }
        let is_due = |(lines, _): &(usize, Vec<u8>)| *lines == 0;
        let (due, later) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(is_due);
        self.pending = later;
        let due: Vec<(usize, Vec<u8>)> = due;
        due.into_iter().flat_map(|(_, content)| content).collect()
    }

    /// One command; the stdout of the one before it is its input.
    fn command(&mut self, command: &str, before: Output) -> Output {
        let words: Vec<&str> = command.split_whitespace().collect();
        let mut output = Output {
            stdout: Vec::new(),
            stderr: before.stderr,
            pause: before.pause,
        };
        let input = before.stdout;
        match *words.as_slice() {
            ["ls"] => {
                let names = self.files.keys().map(|name| format!("{name}\n"));
                output.stdout = format!("bin/\n{}", names.collect::<String>()).into_bytes();
            }
            ["cat"] | ["noop"] => output.stdout = input,
            ["cat", name] => match self.files.get(name) {
                Some(content) => output.stdout = content.clone(),
                None => {
                    let complaint = format!("cat: {name}: No such file or directory\n");
                    output.stderr.extend(complaint.bytes());
                }
            },
            ["number"] => output.stdout = number(&input),
            ["number", name] => {
                let content = self.files.get(name).cloned().unwrap_or_default();
                output.stdout = number(&content);
            }
            ["removetag"] => output.stdout = without_tags(&input),
            ["removetag", name] | ["removetag0", name] | ["delayedremovetag", name] => {
                let content = self.files.get(name).cloned().unwrap_or_default();
                output.stdout = without_tags(&content);
                if words.first() == Some(&"removetag0") {
                    let complaint = format!("Error: illegal tag \"!{name}\"\n");
                    output.stderr.extend(complaint.bytes());
                }
                if words.first() == Some(&"delayedremovetag") {
                    output.pause = Duration::from_secs(1);
                }
            }
            ["printenv", name] => {
                if let Some(value) = self.environment.get(name) {
                    output.stdout = format!("{value}\n").into_bytes();
                }
            }
            ["setenv", name, value] => {
                self.environment.insert(name.to_owned(), value.to_owned());
            }
            _ => {
                let word = words.first().unwrap_or(&"");
                let complaint = format!("Unknown command: [{word}].\n");
                output.stderr.extend(complaint.bytes());
            }
        }
        output
    }
}

/// Takes `> FILE`, `|N` or `!N` off the end of a line.
fn destination(line: &str) -> (&str, Destination) {
    if let Some((front, name)) = line.rsplit_once(" > ") {
        return (front, Destination::File(name.trim().to_owned()));
    }
    if let Some((front, last)) = line.rsplit_once(' ') {
        for (mark, with_errors) in [('|', false), ('!', true)] {
            let count = last.strip_prefix(mark).and_then(|count| count.parse().ok());
            if let Some(lines @ 1..) = count {
                return (front, Destination::Later(lines, with_errors));
            }
        }
    }
    (line, Destination::Client)
}

/// Each line with its number in front.
fn number(text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let numbered = lines.enumerate().flat_map(|(index, line)| {
        let number = format!("{:>4} ", index + 1).into_bytes();
        [number, line.to_vec()].concat()
    });
    numbered.collect()
}

/// Leaves out everything from `<` to `>`.
fn without_tags(text: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let mut kept = Vec::new();
    for &byte in text {
        match byte {
            b'<' => inside = true,
            b'>' if inside => inside = false,
            _ if inside => {}
            byte => kept.push(byte),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs lines in one shell: what the last one prints, errors first.
    fn last(lines: &[&str]) -> String {
        let mut shell = Shell::default();
        let mut text = Vec::new();
        for line in lines {
            let output = shell.run(line).expect("no exit");
            text = [output.stderr, output.stdout].concat();
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn commands_and_pipes() {
        for (lines, printed) in [
            (&["ls"][..], "bin/\ntest.html\n"),
            (
                &["cat test.html | removetag | number | noop > x", "ls"],
                "bin/\ntest.html\nx\n",
            ),
            (&["printenv PATH"], "bin:.\n"),
            (&["setenv A b", "printenv A"], "b\n"),
            (&["printenv NOTHING"], ""),
            (&["nonsense here"], "Unknown command: [nonsense].\n"),
            (
                &["cat nothing"],
                "cat: nothing: No such file or directory\n",
            ),
            (&["ls |1", "number"], "   1 bin/\n   2 test.html\n"),
            (
                &["ls |2", "printenv PATH", "number"],
                "   1 bin/\n   2 test.html\n",
            ),
            (
                &["ls |2", "ls |1", "cat"],
                "bin/\ntest.html\nbin/\ntest.html\n",
            ),
            (&["nonsense |1", "number"], ""),
            (
                &["nonsense !1", "number"],
                "   1 Unknown command: [nonsense].\n",
            ),
            (&["", "ls |1", "", "number"], "   1 bin/\n   2 test.html\n"),
        ] {
            assert_eq!(last(lines), printed, "{lines:?}");
        }
        assert!(Shell::default().run("exit").is_none());
    }

    #[test]
    fn tags_go_and_the_delayed_ones_take_a_second_a_line() {
        let output = Shell::default().run("delayedremovetag test.html").unwrap();
        assert_eq!(output.pause, Duration::from_secs(1));
        assert!(!output.stdout.contains(&b'<'));
        assert!(last(&["removetag0 test.html"]).starts_with("Error: illegal tag"));
    }
}
