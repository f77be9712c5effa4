//! What an operator asks of the program beside serving: `--check`, `--explain` and `--new-user`.

pub mod check;
pub mod explain;
pub mod new_user;
