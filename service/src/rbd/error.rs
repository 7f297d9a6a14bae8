//! What went wrong, where, and what that means for the caller.

use std::io;

/// An operation on a cluster, pool, image, snapshot or object that failed.
///
/// The text names the operation, the object (`pool/image@snapshot`) and the system's reason. It
/// never contains a setting or a key.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {operation} {object}: {reason}")]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    object: String,
    reason: String,
    hint: Option<String>,
}

/// What an [`Error`] means for whoever has to decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pool, image, snapshot or object does not exist (ENOENT).
    NotFound,
    /// The configuration file or the user's key that a connection needs does not exist.
    Unconfigured,
    /// It exists already (EEXIST).
    AlreadyExists,
    /// Another client holds it: a watcher, a lock, a protected snapshot (EBUSY).
    Busy,
    /// Somebody else changed it in the middle, as one who removes the same image does (ESTALE).
    Stale,
    /// An image cannot be removed while it has snapshots (ENOTEMPTY).
    HasSnapshots,
    /// The cluster or the pool is full, or its quota is reached (ENOSPC, EDQUOT).
    NoSpace,
    /// The cephx user lacks a capability, or its key is wrong or missing (EPERM, EACCES).
    Permission,
    /// A write to an image that was opened for reading, or at a snapshot (EROFS).
    ReadOnly,
    /// The cluster did not answer in the time that was set (ETIMEDOUT, ENOTCONN and the like).
    Unreachable,
    /// This client was fenced off by the cluster, or is being shut down (ESHUTDOWN).
    Shutdown,
    /// A name, offset or option that cannot be right (EINVAL, ENAMETOOLONG, ERANGE).
    InvalidArgument,
    /// An object is larger than the caller is willing to read.
    TooLarge,
    /// This cluster or this librbd cannot do it (EOPNOTSUPP, ENOSYS).
    Unsupported,
    /// Anything else.
    Io,
}

impl ErrorKind {
    /// The kind that belongs to a positive errno value.
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOENT => Self::NotFound,
            libc::EEXIST => Self::AlreadyExists,
            libc::EBUSY => Self::Busy,
            libc::ESTALE => Self::Stale,
            libc::ENOTEMPTY => Self::HasSnapshots,
            libc::ENOSPC | libc::EDQUOT => Self::NoSpace,
            libc::EPERM | libc::EACCES => Self::Permission,
            libc::EROFS => Self::ReadOnly,
            libc::ETIMEDOUT
            | libc::ENOTCONN
            | libc::ECONNREFUSED
            | libc::ECONNRESET
            | libc::ECONNABORTED
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::ENETUNREACH
            | libc::ENETDOWN => Self::Unreachable,
            libc::ESHUTDOWN => Self::Shutdown,
            libc::EINVAL | libc::ENAMETOOLONG | libc::ERANGE | libc::EDOM => Self::InvalidArgument,
            libc::EFBIG => Self::TooLarge,
            libc::EOPNOTSUPP | libc::ENOSYS => Self::Unsupported,
            _ => Self::Io,
        }
    }
}

impl Error {
    /// The error behind a negative return value of librados or librbd.
    pub(crate) fn from_code(operation: &'static str, object: &str, code: i64) -> Self {
        let errno = i32::try_from(code.unsigned_abs()).unwrap_or(libc::EIO);
        let kind = ErrorKind::from_errno(errno);
        let reason = match kind {
            // The system's words are about sockets.
            ErrorKind::Shutdown => "this client is on the cluster's blocklist".to_owned(),
            _ => io::Error::from_raw_os_error(errno).to_string(),
        };
        Self {
            kind,
            operation,
            object: object.to_owned(),
            reason,
            hint: None,
        }
    }

    /// An error that this room found by itself.
    pub(super) fn new(
        kind: ErrorKind,
        operation: &'static str,
        object: &str,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            object: object.to_owned(),
            reason: reason.into(),
            hint: None,
        }
    }

    /// The same while connecting, where something else is missing than what the caller names.
    pub(super) fn while_connecting(mut self) -> Self {
        if self.kind == ErrorKind::NotFound {
            self.kind = ErrorKind::Unconfigured;
        }
        self
    }

    /// The same with who lacks a permission, where one is missing.
    pub(super) fn of_user(mut self, user: &str) -> Self {
        if self.kind == ErrorKind::Permission {
            self.reason = format!("{} for client.{user}", self.reason);
        }
        self
    }

    /// The same with something that helps to find the cause.
    pub(super) fn hinting(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// What helps to find the cause and is only for those who run the service: the text of the error
    /// itself may be shown to users, this names files of the host.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What the error means.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done, as a verb: `open`, `read`, `create snapshot of`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

/// Turns a return value of librados or librbd into a result; positive values are data.
pub(super) fn check(
    operation: &'static str,
    object: &str,
    code: libc::c_int,
) -> super::Result<i32> {
    if code < 0 {
        Err(Error::from_code(operation, object, i64::from(code)))
    } else {
        Ok(code)
    }
}

/// A name as C wants it; refuses an empty one and one with a NUL byte.
pub(super) fn c_name(operation: &'static str, name: &str) -> super::Result<std::ffi::CString> {
    let refused = |reason: &str| {
        Error::new(
            ErrorKind::InvalidArgument,
            operation,
            &name.escape_debug().to_string(),
            reason,
        )
    };
    if name.is_empty() {
        return Err(refused("the name is empty"));
    }
    std::ffi::CString::new(name).map_err(|_| refused("the name contains a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_operation_object_and_reason() {
        let error = Error::from_code("open", "backups/volume-1@snap", -2);
        assert_eq!(
            error.to_string(),
            "cannot open backups/volume-1@snap: No such file or directory (os error 2)"
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn errno_decides_the_kind() {
        for (errno, kind) in [
            (libc::EDQUOT, ErrorKind::NoSpace),
            (libc::EACCES, ErrorKind::Permission),
            (libc::ESHUTDOWN, ErrorKind::Shutdown),
            (libc::ETIMEDOUT, ErrorKind::Unreachable),
            (libc::ENOTEMPTY, ErrorKind::HasSnapshots),
            (libc::EIO, ErrorKind::Io),
        ] {
            assert_eq!(ErrorKind::from_errno(errno), kind);
        }
    }

    #[test]
    fn absurd_codes_are_plain_input_output_errors() {
        let error = Error::from_code("read", "p/i", i64::MIN);
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn names_that_c_cannot_carry_are_refused() {
        for name in ["", "a\0b"] {
            let error = c_name("open", name).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!error.to_string().contains('\0'));
        }
    }
}
