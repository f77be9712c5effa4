//! What an operator asks for beside serving: `--check`, `--explain` and `--new-user`.

pub mod explain;
pub mod new_user;
