// Deliberate faults. `--cfg netpoller_fault="NAME"` breaks one line, to see that the proofs notice;
// `tests/deliberate_faults.py` does so with each in turn. Without that cfg nothing of it is compiled.

/// Whether this build has the fault of that name. A name that Cargo.toml does not list is a warning.
macro_rules! fault {
    ($name:literal) => {
        cfg!(netpoller_fault = $name)
    };
}
