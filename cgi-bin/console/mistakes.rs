//! The mistakes of a form: which field the user must mend, and which rows can run.

use crate::failure::Failure;
use crate::query::{Query, ROWS, Row};
use crate::row::{self, Field, Policy};

/// A mistake, and the field that the user must mend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The id of the field.
    pub(crate) field: String,
    /// The field in words.
    pub(crate) place: String,
    pub(crate) failure: Failure,
}

/// The mistakes of a form, in the order of its fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistakes {
    pub(crate) all: Vec<Mistake>,
    /// The number of rows that cannot run.
    pub(crate) faulty_rows: usize,
    /// The numbers of the rows that can run, from 1.
    pub(crate) runnable_rows: Vec<usize>,
}

impl Mistakes {
    /// Finds the mistakes. An empty form has none.
    ///
    /// A mistake in a value for all rows is one mistake of its field, and not of each row.
    pub(crate) fn find(query: &Query, policy: &Policy) -> Mistakes {
        let mut mistakes = Mistakes::default();
        let mut in_rows = Vec::new();
        let shares_missing_file = used_rows(query).all(|row| row.file.is_empty());
        for (row, number) in query.rows.iter().zip(1..) {
            let field_errors = row::field_errors(query, row, policy);
            match field_errors.is_empty() {
                false => mistakes.faulty_rows += 1,
                true if !row.host.is_empty() => mistakes.runnable_rows.push(number),
                true => {}
            }
            for error in field_errors {
                let (key, name) = key_and_name(error.field);
                let is_shared = match error.field {
                    Field::Host | Field::Port => false,
                    Field::File if query.file.is_empty() => shares_missing_file,
                    Field::File => row.file.is_empty(),
                    Field::SocksHost => row.socks_host.is_empty() && row.socks_port.is_empty(),
                    Field::SocksPort => {
                        row.socks_port.is_empty()
                            && (row.socks_host.is_empty() || !query.socks_port.is_empty())
                    }
                };
                match is_shared {
                    true => mistakes.add(key, format!("All rows, {name}"), error.failure),
                    false => in_rows.push(Mistake {
                        field: format!("{key}{number}"),
                        place: format!("Shell {number}, {name}"),
                        failure: error.failure,
                    }),
                }
            }
        }
        // The order of the fields in the form.
        mistakes.all.sort_by_key(|mistake| mistake.field == "f");
        mistakes.all.append(&mut in_rows);
        mistakes.add_excess_shells(&query.excess_shells);
        if !query.is_empty() && !query.edit && used_rows(query).next().is_none() {
            let next_step = "Enter a host name or an IPv4 address in one row at least.";
            let failure = Failure::new("no row names a shell server", next_step);
            mistakes.add("h1", "Shell 1, shell server".to_owned(), failure);
        }
        mistakes
    }

    /// Adds the mistake of a field unless the field has one.
    fn add(&mut self, field: &str, place: String, failure: Failure) {
        if self.of(field).is_none() {
            self.all.push(Mistake {
                field: field.to_owned(),
                place,
                failure,
            });
        }
    }

    fn add_excess_shells(&mut self, excess: &[String]) {
        if !excess.is_empty() {
            let reason = format!(
                "the form has {ROWS} rows, so there is none for {}",
                excess.join(", ")
            );
            let next_step = "Remove them here, or empty as many rows.";
            let failure = Failure::new(reason, next_step);
            self.add("shells", "List of shells".to_owned(), failure);
        }
    }

    /// The mistake of the field with this id.
    pub(crate) fn of(&self, field: &str) -> Option<&Mistake> {
        self.all.iter().find(|mistake| mistake.field == field)
    }

    /// Reports whether this field is the first with a mistake.
    pub(crate) fn begin_at(&self, field: &str) -> bool {
        self.all
            .first()
            .is_some_and(|mistake| mistake.field == field)
    }

    /// The numbers of the rows that can run without the others. It is empty if the user must
    /// mend the form first.
    pub(crate) fn other_rows(&self) -> &[usize] {
        match self.faulty_rows > 0 && self.of("shells").is_none() {
            true => &self.runnable_rows,
            false => &[],
        }
    }
}

/// The rows that the user has begun to fill in.
fn used_rows(query: &Query) -> impl Iterator<Item = &Row> {
    query.rows.iter().filter(|row| row.is_used())
}

/// The key of a field in the query without the number of the row, and the field in words.
fn key_and_name(field: Field) -> (&'static str, &'static str) {
    match field {
        Field::Host => ("h", "shell server"),
        Field::Port => ("p", "port"),
        Field::File => ("f", "batch file"),
        Field::SocksHost => ("sh", "SOCKS server"),
        Field::SocksPort => ("sp", "SOCKS port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allow::AllowList;
    use crate::socks_logins::SocksLogins;

    /// The fields with mistakes, and the rows that can run without the others.
    fn mistakes(query: &str) -> (String, Vec<usize>) {
        let policy = Policy {
            allowed: AllowList::allow_all(),
            logins: SocksLogins::default(),
            direct: false,
        };
        // A typed batch needs no file on disk.
        let mistakes = Mistakes::find(&Query::parse(query.as_bytes()), &policy);
        let fields: Vec<&str> = mistakes.all.iter().map(|it| &*it.field).collect();
        (fields.join(" "), mistakes.other_rows().to_vec())
    }

    #[test]
    fn w32_a_mistake_of_a_value_for_all_rows_is_one_mistake() {
        let three = "h1=a&p1=1&h2=b&p2=2&h3=c&p3=3&batch=ls";
        for (query, fields, others) in [
            ("&sh=s&sp=1", "", &[][..]),
            ("&sh=s", "sp", &[]),
            ("&sp=1", "sh", &[]),
            ("", "sh sp", &[]),
            ("&sh=s&sp=x&sh2=t&sp2=1", "sp", &[2]),
            // A server of the row itself.
            ("&sh2=t", "sh sp sp2", &[]),
            ("&sh=s&sp=x&sh2=t", "sp", &[]),
            ("&sh=s&sp=1&sh2=t&sp2=x", "sp2", &[1, 3]),
            ("&sh=s&sp=1&p4=4", "h4", &[1, 2, 3]),
            ("&sh=s&sp=1&f=no-such-file", "f", &[]),
            ("&sh=s&sp=1&f3=no-such-file", "f3", &[1, 2]),
            ("&sh=s&sp=x&f=no-such-file&p1=", "sp f p1", &[]),
        ] {
            let three = match query.contains("p1=") {
                true => three.replace("p1=1&", ""),
                false => three.to_owned(),
            };
            let expected = (fields.to_owned(), others.to_vec());
            assert_eq!(mistakes(&format!("{three}{query}")), expected, "{query}");
        }
        // Of several rows, some have a file: the others lack theirs.
        assert_eq!(mistakes("h1=a&p1=1&h2=b&p2=1&sh=s&sp=1").0, "f");
        assert_eq!(mistakes("h1=a&p1=1&h2=b&p2=1&f2=x&sh=s&sp=1").0, "f1 f2");
    }

    #[test]
    fn w32_a_form_without_a_shell_is_a_mistake_unless_it_is_edited() {
        for (query, fields) in [
            ("", ""),
            ("sh=s", "h1"),
            ("sh=s&edit=1", ""),
            ("sh1=s", "h1"),
            ("format=text", ""),
        ] {
            assert_eq!(mistakes(query).0, fields, "{query}");
        }
    }

    #[test]
    fn w33_shells_without_a_row_are_a_mistake_and_nothing_can_run() {
        let query = "shells=a:1+b:1+c:1+d:1+e:x+f:1&sh=s&sp=1&batch=ls";
        assert_eq!(mistakes(query), ("p5 shells".to_owned(), vec![]));
    }
}
