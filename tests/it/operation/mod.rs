//! Start, stop, output, and real client programs.

mod command_line;
mod haproxy;
mod json_log;
mod listen_address;
mod login_lines;
mod machine_limits;
mod memory_limits;
mod metrics;
mod observed;
mod output;
mod real_clients;
mod scale_out;
mod start_and_stop;
mod status;
mod systemd;
mod trace;
mod unheard_clients;
