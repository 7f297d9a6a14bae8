//! What a crash leaves behind: no image of a memory that holds passwords, tokens and tenants' data.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Keeps this process, and what it starts, from writing core dumps. The hard limit stays, so that an
/// operator can allow one while it runs (`prlimit --core=unlimited: --pid PID`).
///
/// The process stays traceable (`PR_SET_DUMPABLE`): whoever runs as its user can read its configuration and
/// its keyrings in any case, and debuggers and profilers go on working.
pub fn disable() {
    // A limit may always be lowered.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_lowered_and_can_be_raised_again() {
        let (_, before) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        disable();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, before)));
    }
}
