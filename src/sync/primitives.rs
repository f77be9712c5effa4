//! The standard library's primitives that threads share or wait for, and a thread's name.
//!
//! The modules that the models run take them from here. `tests/model` replaces this file
//! by shuttle's primitives: then a scheduler decides at each lock and each atomic which
//! thread continues.

use std::ffi::CStr;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
pub(crate) use std::thread;
/// Only the check of the lock order uses it.
#[cfg(debug_assertions)]
pub(crate) use std::thread_local;

/// Sets the name of the calling thread.
#[cfg(target_os = "linux")]
pub(super) fn name_thread(name: &CStr) {
    // prctl(2) fails only for an invalid pointer.
    let _ = nix::sys::prctl::set_name(name);
}

/// On other systems the thread keeps the name `worker`.
#[cfg(not(target_os = "linux"))]
pub(super) fn name_thread(_: &CStr) {}
