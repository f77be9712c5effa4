//! The tasks of the program beside the server: `--check`, `--explain` and `--new-user`.

pub mod check;
pub mod explain;
pub mod new_user;
