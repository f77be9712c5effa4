//! L1: does the order of steps that the student has written break the program?

use std::fs;

use crate::mend::Verdict;

/// The steps of two threads, and what their order decides.
struct Puzzle {
    bug: &'static str,
    steps: &'static [&'static str],
    /// What cannot happen before something else has: the later step, then the earlier ones, of
    /// which one is enough.
    waits: &'static [(&'static str, &'static [&'static str])],
    /// Each of these lists must stand in the order in this sequence.
    broken: &'static [&'static [&'static str]],
    says: &'static str,
}

const PUZZLES: [Puzzle; 6] = [
    Puzzle {
        bug: "permit",
        steps: &["a1", "a2", "b1", "b2"],
        waits: &[],
        broken: &[&["a1", "b2"], &["b1", "a2"]],
        says: "two sessions have the one slot",
    },
    Puzzle {
        bug: "notify",
        steps: &["a1", "a2", "a3", "b1"],
        waits: &[],
        broken: &[&["a1", "b1", "a2"]],
        says: "b sleeps, and no thread notifies it",
    },
    Puzzle {
        bug: "half-close",
        steps: &["a1", "a2", "a3", "b1", "r1"],
        waits: &[("r1", &["a2"]), ("b1", &["a3", "r1"])],
        broken: &[&["a3", "b1", "r1"]],
        says: "b takes the interruption for EOF, and the answer is lost",
    },
    Puzzle {
        bug: "drop-under-lock",
        steps: &["a1", "a2", "a3", "a4", "b1"],
        waits: &[],
        broken: &[&["a2", "b1", "a3"]],
        says: "a drops the last Arc, and waits for the lock that it holds",
    },
    Puzzle {
        bug: "flag-order",
        steps: &["a1", "a2", "b1", "b2"],
        waits: &[("b1", &["a1"])],
        broken: &[&["b2", "a2"]],
        says: "b takes the interruption for the EOF of the client, and sends EOF to the remote",
    },
    Puzzle {
        bug: "join-order",
        steps: &["a1", "a2", "a3", "b1", "b2"],
        waits: &[("a3", &["b2"])],
        broken: &[&["b1", "a1"], &["a2", "b2"]],
        says: "no thread terminates the session that b has added",
    },
];

/// Judges the order of steps in this file.
pub(crate) fn judge(bug: &str, file: &str) -> Result<Verdict, String> {
    let found = PUZZLES.iter().find(|it| it.bug == bug);
    let puzzle = found.ok_or_else(|| format!("{bug}: L1 has no such bug"))?;
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let order: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    if let Err(reason) = puzzle.check(&order) {
        println!("this order cannot happen: {reason}");
        return Ok(Verdict::Failed);
    }
    if puzzle.broken.iter().all(|steps| in_sequence(&order, steps)) {
        println!("this order breaks it: {}", puzzle.says);
        return Ok(Verdict::Passed);
    }
    println!("in this order the program works");
    Ok(Verdict::Failed)
}

impl Puzzle {
    /// Has each step its place, after those that it needs?
    fn check(&self, order: &[&str]) -> Result<(), String> {
        let place = |step: &str| order.iter().position(|it| *it == step);
        for step in order {
            if !self.steps.contains(step) {
                return Err(format!("{step} is no step"));
            }
            if order.iter().filter(|it| *it == step).count() > 1 {
                return Err(format!("{step} occurs twice"));
            }
        }
        for step in self.steps {
            if place(step).is_none() {
                return Err(format!("{step} is missing"));
            }
        }
        // The steps of one thread, which begin with its letter, happen in their order.
        for pair in self.steps.windows(2) {
            if pair[0][..1] == pair[1][..1] && place(pair[0]) > place(pair[1]) {
                return Err(format!(
                    "{} comes after {} in the same thread",
                    pair[1], pair[0]
                ));
            }
        }
        for (step, earlier) in self.waits {
            if earlier.iter().all(|it| place(it) > place(step)) {
                return Err(format!("{step} waits for {}", earlier.join(" or ")));
            }
        }
        Ok(())
    }
}

/// Do these steps occur in this sequence, with any others between?
fn in_sequence(order: &[&str], steps: &[&str]) -> bool {
    let mut order = order.iter();
    steps.iter().all(|step| order.any(|it| it == step))
}
