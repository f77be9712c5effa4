//! Both directions of a session: half-close, termination, large transfers.

mod bulk;
mod half_close;
mod termination;
