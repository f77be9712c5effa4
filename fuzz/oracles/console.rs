//! The source files of the console, included by path because a program has no library.
//!
//! The files import each other as `crate::NAME`. A crate that includes the oracles
//! therefore imports all of these names into its root.

#![allow(
    dead_code,
    reason = "the oracles call only some functions of each file"
)]

#[path = "../../cgi-bin/console/allow.rs"]
pub(crate) mod allow;
#[path = "../../cgi-bin/console/batch.rs"]
pub(crate) mod batch;
#[path = "../../cgi-bin/console/bulk.rs"]
pub(crate) mod bulk;
#[path = "../../cgi-bin/console/connect.rs"]
pub(crate) mod connect;
#[path = "../../cgi-bin/console/failure.rs"]
pub(crate) mod failure;
#[path = "../../cgi-bin/console/folder.rs"]
pub(crate) mod folder;
#[path = "../../cgi-bin/console/html.rs"]
pub(crate) mod html;
#[path = "../../cgi-bin/console/page.rs"]
pub(crate) mod page;
#[path = "../../cgi-bin/console/prompt.rs"]
pub(crate) mod prompt;
#[path = "../../cgi-bin/console/query.rs"]
pub(crate) mod query;
#[path = "../../cgi-bin/console/row.rs"]
pub(crate) mod row;
#[path = "../../cgi-bin/console/run.rs"]
pub(crate) mod run;
#[path = "../../cgi-bin/console/shell.rs"]
pub(crate) mod shell;
#[path = "../../cgi-bin/console/socks_logins.rs"]
pub(crate) mod socks_logins;
#[path = "../../cgi-bin/console/status.rs"]
pub(crate) mod status;
#[path = "../../cgi-bin/console/telnet.rs"]
pub(crate) mod telnet;
#[path = "../../cgi-bin/console/terminal.rs"]
pub(crate) mod terminal;
#[path = "../../cgi-bin/console/text.rs"]
pub(crate) mod text;
