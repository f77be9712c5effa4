//! The shell of one session: it turns a line into output, without any process or file.
//!
//! A [`Shell`] is plain data and does no I/O, so tests can run it without a socket.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The first bytes of a session, before the first prompt.
pub(crate) const BANNER: &str = "\
****************************************
** Welcome to the information server. **
****************************************
";

/// The content of `test.html`, the only file at the start. It contains characters
/// that a web page must escape.
const TEST_HTML: &str = "<!test.html>\n<TITLE>Test</TITLE>\n<BODY>This is a <b>test</b> program\n\
                    for \"shells\" & <i>consoles</i>.\n</BODY>\n</script>\\n\n";

/// The output of one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The pause before each line of the output.
    pub(crate) pause: Duration,
}

/// The state of one session. Only the thread of the session accesses it.
#[derive(Debug)]
pub(crate) struct Shell {
    environment: HashMap<String, String>,
    files: BTreeMap<String, Vec<u8>>,
    /// Numbered pipes: how many lines until the bytes become input, and the bytes.
    numbered_pipes: Vec<(usize, Vec<u8>)>,
}

impl Default for Shell {
    fn default() -> Shell {
        Shell {
            environment: HashMap::from([("PATH".to_owned(), "bin:.".to_owned())]),
            files: BTreeMap::from([("test.html".to_owned(), TEST_HTML.as_bytes().to_vec())]),
            numbered_pipes: Vec::new(),
        }
    }
}

/// The place to which a line writes its output.
enum OutputTarget {
    Client,
    File(String),
    /// A numbered pipe: the input of the line this many lines later.
    NumberedPipe {
        lines: usize,
        with_errors: bool,
    },
}

impl Shell {
    /// Runs one line. `None` means `exit`: the session ends.
    pub(crate) fn run(&mut self, line: &str) -> Option<Output> {
        if line.is_empty() {
            return Some(Output::default());
        }
        if line == "exit" {
            return None;
        }
        let input = self.take_due_input();
        let (line, target) = split_target(line);
        let mut output = Output {
            stdout: input,
            ..Output::default()
        };
        for command in line.split(" | ") {
            output = self.run_command(command, output);
        }
        match target {
            OutputTarget::Client => {}
            OutputTarget::File(name) => {
                let content = std::mem::take(&mut output.stdout);
                self.files.insert(name, content);
            }
            OutputTarget::NumberedPipe { lines, with_errors } => {
                let mut content = std::mem::take(&mut output.stdout);
                if with_errors {
                    content.append(&mut output.stderr);
                }
                self.numbered_pipes.push((lines, content));
            }
        }
        Some(output)
    }

    /// Removes and returns the input that earlier lines sent to this line. The
    /// numbered pipes that remain are one line closer to their target.
    fn take_due_input(&mut self) -> Vec<u8> {
        for (lines, _) in &mut self.numbered_pipes {
            *lines -= 1;
        }
        let is_due = |(lines, _): &(usize, Vec<u8>)| *lines == 0;
        let (due, later) = std::mem::take(&mut self.numbered_pipes)
            .into_iter()
            .partition(is_due);
        self.numbered_pipes = later;
        let due: Vec<(usize, Vec<u8>)> = due;
        due.into_iter().flat_map(|(_, content)| content).collect()
    }

    /// Runs one command of a pipeline. The stdout of the previous command is its
    /// input; stderr and the pause accumulate.
    fn run_command(&mut self, command: &str, previous: Output) -> Output {
        let words: Vec<&str> = command.split_whitespace().collect();
        let mut output = Output {
            stdout: Vec::new(),
            stderr: previous.stderr,
            pause: previous.pause,
        };
        let input = previous.stdout;
        match *words.as_slice() {
            ["ls"] => {
                let names = self.files.keys().map(|name| format!("{name}\n"));
                output.stdout = format!("bin/\n{}", names.collect::<String>()).into_bytes();
            }
            ["cat"] | ["noop"] => output.stdout = input,
            ["cat", name] => match self.files.get(name) {
                Some(content) => output.stdout = content.clone(),
                None => {
                    let message = format!("cat: {name}: No such file or directory\n");
                    output.stderr.extend(message.bytes());
                }
            },
            ["number"] => output.stdout = number_lines(&input),
            ["number", name] => {
                let content = self.files.get(name).cloned().unwrap_or_default();
                output.stdout = number_lines(&content);
            }
            ["removetag"] => output.stdout = remove_tags(&input),
            ["removetag", name] | ["removetag0", name] | ["delayedremovetag", name] => {
                let content = self.files.get(name).cloned().unwrap_or_default();
                output.stdout = remove_tags(&content);
                if words.first() == Some(&"removetag0") {
                    let message = format!("Error: illegal tag \"!{name}\"\n");
                    output.stderr.extend(message.bytes());
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
                let message = format!("Unknown command: [{word}].\n");
                output.stderr.extend(message.bytes());
            }
        }
        output
    }
}

/// Splits `> FILE`, `|N` or `!N` off the end of a line.
fn split_target(line: &str) -> (&str, OutputTarget) {
    if let Some((front, name)) = line.rsplit_once(" > ") {
        return (front, OutputTarget::File(name.trim().to_owned()));
    }
    if let Some((front, last)) = line.rsplit_once(' ') {
        for (mark, with_errors) in [('|', false), ('!', true)] {
            let count = last.strip_prefix(mark).and_then(|count| count.parse().ok());
            if let Some(lines @ 1..) = count {
                return (front, OutputTarget::NumberedPipe { lines, with_errors });
            }
        }
    }
    (line, OutputTarget::Client)
}

/// Puts the line number, four columns wide, before each line.
fn number_lines(text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let numbered = lines.enumerate().flat_map(|(index, line)| {
        let number = format!("{:>4} ", index + 1).into_bytes();
        [number, line.to_vec()].concat()
    });
    numbered.collect()
}

/// Removes everything from `<` to `>`.
fn remove_tags(text: &[u8]) -> Vec<u8> {
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

    /// Runs the lines in one shell, and returns the output of the last line: stderr,
    /// then stdout.
    fn last_output(lines: &[&str]) -> String {
        let mut shell = Shell::default();
        let mut text = Vec::new();
        for line in lines {
            let output = shell.run(line).expect("the line is not `exit`");
            text = [output.stderr, output.stdout].concat();
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn commands_and_pipes_print_their_output() {
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
            assert_eq!(last_output(lines), printed, "{lines:?}");
        }
        assert!(Shell::default().run("exit").is_none());
    }

    #[test]
    fn removetag_removes_tags_and_delayedremovetag_pauses_a_second_per_line() {
        let output = Shell::default().run("delayedremovetag test.html").unwrap();
        assert_eq!(output.pause, Duration::from_secs(1));
        assert!(!output.stdout.contains(&b'<'));
        assert!(last_output(&["removetag0 test.html"]).starts_with("Error: illegal tag"));
    }
}
