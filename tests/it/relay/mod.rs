//! Both directions of a session: half-close, reset, termination, bulk data, urgent bytes.

mod bulk;
mod half_close;
mod killed;
mod termination;
mod urgent;
