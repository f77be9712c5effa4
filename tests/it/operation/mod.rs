//! Start, stop, output, and real client programs.

mod machine_limits;
mod output;
mod real_clients;
mod start_and_stop;
