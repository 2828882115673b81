//! The number of connections that the limit on open files allows.

use crate::connections::Connections;

/// Files that are not connections, at least: the store's, the log, connections to peers.
const OTHERS_MIN: usize = 64;
/// Files that are not connections, if many are allowed.
const OTHERS_MAX: usize = 1024;
/// A listener with fewer connections is not worth starting.
const CONNECTIONS_MIN: usize = 16;

/// The operating system allows too few open files to serve clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {allowed} files, and needs {needed} to serve clients: raise the limit (`ulimit -n`, or \
     LimitNOFILE= in a systemd unit)"
)]
pub struct FewFiles {
    /// The number allowed.
    pub allowed: usize,
    /// The least number needed.
    pub needed: usize,
}

/// The number of files that this process may have open; `None` if the operating system does not tell.
pub(crate) fn allowed() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The number of connections that each listener can have, up to the wanted number.
///
/// # Errors
/// [`FewFiles`] if a listener could not even have a few.
pub(crate) fn fitting(allowed: Option<usize>, wanted: &[usize]) -> Result<Vec<usize>, FewFiles> {
    let Some(allowed) = allowed else { return Ok(wanted.to_vec()) };
    let beyond = |max: usize| Connections::accepted_max(max).saturating_sub(max);
    let others = (allowed / 4).clamp(OTHERS_MIN, OTHERS_MAX);
    let available = allowed.saturating_sub(others);
    let least: usize = wanted.iter().map(|max| beyond(CONNECTIONS_MIN) + CONNECTIONS_MIN.min(*max)).sum();
    if available < least {
        return Err(FewFiles { allowed, needed: least + OTHERS_MIN });
    }
    let all: usize = wanted.iter().map(|max| Connections::accepted_max(*max)).sum();
    if all <= available {
        return Ok(wanted.to_vec());
    }
    // Each gives up the same proportion of its wanted connections beyond the minimum.
    let spare = available - least;
    let rest: usize = all - least;
    let part = |max: usize| {
        let least = CONNECTIONS_MIN.min(max);
        let more = (max - least) as u128 * spare as u128 / (rest.max(1) as u128);
        least + usize::try_from(more).unwrap_or(0)
    };
    Ok(wanted.iter().map(|max| part(*max)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: usize, wanted: &[usize], expected: Option<&[usize]>) {
        let fitting = fitting(Some(allowed), wanted);
        assert_eq!(fitting.as_deref().ok(), expected, "{allowed} {wanted:?}");
        if let Ok(fitting) = fitting {
            let files: usize = fitting.iter().map(|max| Connections::accepted_max(*max)).sum();
            assert!(files + OTHERS_MIN <= allowed, "{files} of {allowed}");
            assert!(fitting.iter().zip(wanted).all(|(fitting, wanted)| fitting <= wanted));
        }
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        check(20_000, &[10_000], Some(&[10_000]));
        check(20_000, &[10_000, 1000], Some(&[10_000, 1000]));
        check(1024, &[10_000], Some(&[697]));
        check(1024, &[10_000, 1000], Some(&[563, 70]));
        check(1024, &[8], Some(&[8]));
        check(144, &[10_000], Some(&[16]));
        for allowed in [0, 24, 32, 64, 143] {
            check(allowed, &[10_000], None);
        }
        check(223, &[10_000, 1000], None);
        assert_eq!(fitting(None, &[7, 9]), Ok(vec![7, 9]));
    }

    #[test]
    fn this_process_may_have_files_open() {
        if cfg!(target_os = "linux") {
            // Cargo itself would not run with fewer.
            assert!(allowed().is_some_and(|allowed| allowed >= 64));
        }
    }
}
