//! stdout without the buffer that the standard library has before it.

use std::io::{self, Write};

use nix::unistd;

/// The logger writes whole messages, and must know how far it came: what a
/// buffer keeps back could neither be counted nor ended.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(unistd::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
