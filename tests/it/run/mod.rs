//! `threadsocks run`: real programs, judged by the messages of the server.

mod calls;
mod file_transfer;
mod names;
mod permissions;
mod processes;
mod programs;
mod servers;
