//! Both directions of a session: half-close, reset, termination, bulk data.

mod bulk;
mod half_close;
mod termination;
