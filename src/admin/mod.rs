//! The tasks of the program beside the server: `--check`, `--explain`, `--new-user` and `--probe`.

pub mod check;
pub mod edit_file;
pub mod explain;
pub mod new_user;
pub mod probe;
