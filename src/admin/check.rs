//! `--check`: the rules as the server understands them, with warnings.

use std::fmt::Write;

use crate::rules::Rules;

/// The report on the rules of the file at `path`: a line for each rule, the number of rules,
/// and these remarks on them, which begin with the path.
pub fn check(path: &str, rules: &Rules, remarks: &[String]) -> String {
    let mut report = String::new();
    for rule in rules.iter() {
        let _ = writeln!(report, "{path}:{}: {rule}", rule.line());
    }
    let _ = writeln!(
        report,
        "{path}: {rules}; the first rule that matches decides, a request without a match is denied"
    );
    for remark in remarks {
        let _ = writeln!(report, "{remark}");
    }
    if let Some(warning) = rules.private_networks_by_name() {
        let _ = writeln!(report, "{path}: {warning}");
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::rules::{WeekTime, parse};

    fn rules(text: &str) -> Rules {
        parse(text.as_bytes()).expect("valid rules")
    }

    #[test]
    fn check_prints_the_rules_with_warnings() {
        let report = report_of("# comment\npermit c 140.113. # NCTU\ndeny b a.org 1-9,20\n");
        assert_eq!(
            report,
            "f:2: permit c - - 140.113.0.0/16 -\n\
             f:3: deny   b - - a.org 1-9,20\n\
             f: 2 rules; the first rule that matches decides, a request without a match is denied\n\
             f: warning: line 3 denies a name, but not a request for its address; deny the address too\n"
        );
        assert!(report_of("").contains("every request is denied"));
        assert!(
            report_of("permit - -").contains("line 1 permits any client to reach any destination")
        );
        assert!(!report_of("permit - -").contains("local time"));
        let by_user = report_of("permit c - user=a time=8:00-9:00\npermit b - user=b\n");
        let shown = "f:1: permit c - - - - user=a time=mon-sun/08:00-09:00\n";
        assert!(by_user.starts_with(shown), "{by_user}");
        assert!(by_user.contains("line 1 (and 1 more) permits every client that claims"));
        let any_host = report_of("permit c 10. user=a ident\ndeny c - user=b\n");
        assert!(any_host.contains("line 1 trusts the identd of every machine"));
        assert!(any_host.contains("line 2 denies users, but a client can claim"));
        let one_network = report_of("permit c 10. - - - user=a ident\n");
        assert!(!one_network.contains("warning"), "{one_network}");
        assert!(by_user.contains("the local time; the clock shows mon/00:00"));
    }

    fn report_of(text: &str) -> String {
        let (rules, clients) = (rules(text), Settings::default().client_kinds(false));
        let remarks = rules.remarks(WeekTime::MONDAY, clients).into_iter();
        let remarks: Vec<String> = remarks.map(|it| format!("f: {it}")).collect();
        check("f", &rules, &remarks)
    }
}
