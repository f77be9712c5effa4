//! Authentication: the users file, password hashes, and a limit on failed logins.
//!
//! [`Users`] is the content of the users file, and [`UsersFile`] follows the file. The
//! [`Authenticator`] checks a login against it. [`users_file_line`] makes a line of the file.

mod authenticator;
mod error;
mod hash_turns;
mod password_hash;
mod rate_limit;
mod users_file;

pub use authenticator::Authenticator;
pub use error::AuthError;
pub(crate) use rate_limit::{LoginKey, LoginKeys, LoginRateLimiter};
pub use users_file::{MAX_USER_NAME, Users, UsersFile, is_user_name, users_file_line, with_line};
