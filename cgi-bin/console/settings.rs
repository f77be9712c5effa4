//! The settings of the administrator, from the environment of the CGI program.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::allow::AllowList;
use crate::kept_runs::KeptRuns;
use crate::output::log_error;
use crate::own_names::OwnNames;
use crate::row::Policy;
use crate::socks_logins::SocksLogins;

/// Time limit of a page without `CONSOLE_LIMIT`: a shell that never sends a prompt
/// must not keep this process running for ever.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The settings of the administrator, from the environment.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) time_limit: Duration,
    pub(crate) own_names: OwnNames,
    /// The folder of the one-time tokens.
    pub(crate) token_folder: PathBuf,
    /// The kept runs, if runs are kept.
    pub(crate) kept_runs: Option<KeptRuns>,
}

impl Settings {
    /// Reads the variables `CONSOLE_...`. Errors go to stderr, which is the
    /// web server's error log. An invalid allow list denies everything (fail
    /// closed).
    pub(crate) fn from_environment() -> Settings {
        let allowed = match env::var("CONSOLE_ALLOW") {
            Err(env::VarError::NotPresent) => AllowList::allow_all(),
            list => AllowList::parse(&list.unwrap_or_else(|_| "not UTF-8".to_owned()))
                .unwrap_or_else(|entry| {
                    log_error(&format!(
                        "CONSOLE_ALLOW: \"{entry}\" is not HOST:PORTS; nothing is allowed"
                    ));
                    AllowList::deny_all()
                }),
        };
        let time_limit = match env::var("CONSOLE_LIMIT") {
            Err(env::VarError::NotPresent) => DEFAULT_TIME_LIMIT,
            text => humantime::parse_duration(text.as_deref().unwrap_or_default()).unwrap_or_else(
                |error| {
                    log_error(&format!("CONSOLE_LIMIT: {error}; it stays at 10 minutes"));
                    DEFAULT_TIME_LIMIT
                },
            ),
        };
        let own_names = match env::var("CONSOLE_HOST") {
            Err(env::VarError::NotPresent) => OwnNames::default(),
            list => OwnNames::parse(&list.unwrap_or_else(|_| "not UTF-8".to_owned()))
                .unwrap_or_else(|entry| {
                    log_error(&format!(
                        "CONSOLE_HOST: \"{entry}\" is no host name; no name is permitted"
                    ));
                    OwnNames::default()
                }),
        };
        let logins =
            env::var_os("CONSOLE_SOCKS_LOGINS").map_or_else(SocksLogins::default, |path| {
                SocksLogins::read(Path::new(&path)).unwrap_or_else(|error| {
                    let path = path.display();
                    log_error(&format!(
                        "CONSOLE_SOCKS_LOGINS: {path}: {error}; no login is used"
                    ));
                    SocksLogins::default()
                })
            });
        let direct = match env::var("CONSOLE_DIRECT").as_deref() {
            Err(env::VarError::NotPresent) | Ok("" | "0") => false,
            Ok("1") => true,
            _ => {
                log_error("CONSOLE_DIRECT: neither 0 nor 1; it stays at 0");
                false
            }
        };
        let folder = env::var_os("CONSOLE_RUNS").filter(|folder| !folder.is_empty());
        let folder = folder.map(PathBuf::from);
        Settings {
            policy: Policy {
                allowed,
                logins,
                direct,
            },
            own_names,
            time_limit,
            token_folder: folder.clone().unwrap_or_else(env::temp_dir),
            kept_runs: folder.map(KeptRuns::new),
        }
    }
}
