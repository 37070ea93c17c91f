// Deliberate faults. `--cfg netpoller_fault="NAME"` breaks one line, to see that the proofs notice; with
// "any" for a name, the line that NETPOLLER_FAULT names in the environment is broken, so that
// `tests/deliberate_faults.py` needs one build for all. Without that cfg nothing of it is compiled.

/// Whether this build has the fault of that name. A name that Cargo.toml does not list is a warning.
macro_rules! fault {
    ($name:literal) => {
        cfg!(netpoller_fault = $name)
            || cfg!(netpoller_fault = "any")
                && std::env::var_os("NETPOLLER_FAULT").is_some_and(|name| name == $name)
    };
}
