//! The labs with a patch: the files, the model that finds the bug, and the test that belongs to it.

use std::path::{Path, PathBuf};

use crate::patch::Patch;

/// A bug of lab L2.
pub(crate) struct Bug {
    pub(crate) name: &'static str,
    /// The model that finds it, as `tests/model/main.rs` names it.
    pub(crate) model: &'static str,
    /// The arguments of `cargo test` for the test that belongs to it: the target, and a part of
    /// the name.
    pub(crate) test: (&'static [&'static str], &'static str),
}

pub(crate) const BUGS: [Bug; 6] = [
    Bug {
        name: "permit",
        model: "sessions::the_last_slot_is_given_once",
        test: (&["--lib"], "sync::semaphore"),
    },
    Bug {
        name: "notify",
        model: "relay_directions::the_last_data_are_delivered",
        test: (&["--test", "it"], "r17_the_last_bytes_of_a_remote"),
    },
    Bug {
        name: "half-close",
        model: "relay_directions::no_fin_is_invented",
        test: (&["--test", "it"], "r01_a_client_that_half_closes_first"),
    },
    Bug {
        name: "drop-under-lock",
        model: "sessions::the_wait_group_ends_after_all_reports",
        test: (&["--test", "it"], "r06_an_idle_session"),
    },
    Bug {
        name: "flag-order",
        model: "relay_directions::a_termination_sends_no_fin",
        test: (
            &["--test", "it"],
            "r26_r29_a_silent_session_that_is_terminated",
        ),
    },
    Bug {
        name: "join-order",
        model: "whole_server::it_stops",
        test: (&["--test", "it"], "o04_a_second_signal_terminates"),
    },
];

/// The folder of the project.
pub(crate) fn root() -> PathBuf {
    let labs = Path::new(env!("CARGO_MANIFEST_DIR"));
    labs.parent().unwrap_or(labs).to_owned()
}

/// The bug of this name.
pub(crate) fn bug(name: &str) -> Result<&'static Bug, String> {
    let found = BUGS.iter().find(|bug| bug.name == name);
    found.ok_or_else(|| format!("{name}: there is no such bug; \"labs/judge list\" lists them"))
}

/// The patch of a bug, or of the starting point of lab L3.
pub(crate) fn patch(name: &str) -> Result<Patch, String> {
    let file = match name {
        "L3" => "labs/start/L3.patch".to_owned(),
        name => format!("labs/bugs/{}.patch", bug(name)?.name),
    };
    Patch::read(&root().join(file))
}
