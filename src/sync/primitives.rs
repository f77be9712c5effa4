//! The standard library's primitives that threads share or wait for.
//!
//! The modules that the models run take them from here. `tests/model` replaces this file
//! by shuttle's primitives: then a scheduler decides at each lock and each atomic which
//! thread continues.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
pub(crate) use std::thread;
/// Only the check of the lock order uses it.
#[cfg(debug_assertions)]
pub(crate) use std::thread_local;
