//! Scripts by which bash, zsh and fish complete the options, made from the table of options.

use std::fmt::Write;

use super::action::Shell;
use super::option_table::{self, OptionRow};

/// The script for this shell.
pub fn completion(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// What a shell offers after an option.
enum Values {
    /// The option has no value.
    None,
    /// Any text: nothing can be offered.
    Any,
    File,
    Words(Vec<&'static str>),
}

fn values(option: &OptionRow) -> Values {
    let Some(placeholder) = option.argument.placeholder() else {
        return Values::None;
    };
    if placeholder == "FILE" {
        return Values::File;
    }
    let is_word = |word: &&str| !word.chars().any(|char| char.is_ascii_uppercase());
    let words: Vec<&str> = match placeholder.contains('|') {
        true => placeholder.split('|').filter(is_word).collect(),
        false => Vec::new(),
    };
    match words.is_empty() {
        true => Values::Any,
        false => Values::Words(words),
    }
}

/// The names of an option, as they are written.
fn names(option: &OptionRow) -> Vec<String> {
    let short = option.short.map(|letter| format!("-{letter}"));
    let long = format!("--{}", option.long);
    short.into_iter().chain([long]).collect()
}

/// The first clause of the explanation, for a list of options.
fn first_clause(option: &OptionRow) -> &'static str {
    let ends = [";", ":", " [", ", for example"];
    let end = ends.iter().filter_map(|end| option.about.find(end)).min();
    let clause = end.and_then(|end| option.about.get(..end));
    clause.unwrap_or(option.about)
}

const BASH_START: &str = "\
# Completion of threadsocks for bash.
_threadsocks() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    # bash splits --option=value into three words.
    if [ \"$current\" = = ]; then
        current=
    elif [ \"$before\" = = ]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $before in
";

fn bash() -> String {
    let mut script = BASH_START.to_owned();
    let mut all = Vec::new();
    for option in option_table::all() {
        let action = match values(option) {
            Values::None => None,
            Values::Any => Some("COMPREPLY=()".to_owned()),
            Values::File => Some(
                "compopt -o filenames\n        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")"
                    .to_owned(),
            ),
            Values::Words(words) => Some(bash_words(&words.join(" "))),
        };
        let names = names(option);
        if let Some(action) = action {
            let _ = writeln!(
                script,
                "    {})\n        {action}\n        return ;;",
                names.join("|")
            );
        }
        all.extend(names);
    }
    let _ = writeln!(
        script,
        "    esac\n    {}\n}}\ncomplete -F _threadsocks threadsocks",
        bash_words(&all.join(" "))
    );
    script
}

/// The command that offers those of these words that begin with the current one.
fn bash_words(words: &str) -> String {
    format!("mapfile -t COMPREPLY < <(compgen -W \"{words}\" -- \"$current\")")
}

fn zsh() -> String {
    let mut script = "#compdef threadsocks\n# Completion of threadsocks for zsh.\n".to_owned();
    script.push_str("_arguments -s \\\n");
    for option in option_table::all() {
        let about = first_clause(option)
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace('\'', "'\\''");
        let value = match values(option) {
            Values::None => String::new(),
            Values::Any => format!(":{}: ", zsh_message(option)),
            Values::File => ":FILE:_files".to_owned(),
            Values::Words(words) => format!(":{}:({})", zsh_message(option), words.join(" ")),
        };
        // "=": the value follows as the next word or after an equals sign; "+": as the next
        // word or directly.
        let (long, short) = match value.is_empty() {
            true => ("", ""),
            false => ("=", "+"),
        };
        if let Some(letter) = option.short {
            let _ = writeln!(script, "    '*-{letter}{short}[{about}]{value}' \\");
        }
        let _ = writeln!(script, "    '*--{}{long}[{about}]{value}' \\", option.long);
    }
    script.push_str("    ':PORT: '\n");
    script
}

/// The placeholder of an option, as the message before its values.
fn zsh_message(option: &OptionRow) -> String {
    let placeholder = option.argument.placeholder().unwrap_or_default();
    placeholder.replace(':', "\\:")
}

fn fish() -> String {
    let mut script =
        "# Completion of threadsocks for fish.\ncomplete -c threadsocks -f\n".to_owned();
    for option in option_table::all() {
        let short = option
            .short
            .map_or(String::new(), |letter| format!(" -s {letter}"));
        // -x: a value and no files; -r -F: a value that is a file.
        let value = match values(option) {
            Values::None => String::new(),
            Values::Any => " -x".to_owned(),
            Values::File => " -r -F".to_owned(),
            Values::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        };
        let about = first_clause(option).replace('\'', "\\'");
        let long = option.long;
        let _ = writeln!(
            script,
            "complete -c threadsocks{short} -l {long}{value} -d '{about}'"
        );
    }
    script
}
