//! Failures of a tool, with the step in which they happened.

use std::{fmt, io};

use crate::{client::RequestError, serve::StartError};

/// The reason why a tool did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway refused a request that must succeed.
    #[error("{step}: {source}")]
    Gateway {
        /// The step.
        step: &'static str,
        /// The answer.
        source: RequestError,
    },
    /// A library, for MLS, certificates or plots, refused.
    #[error("{step}: {reason}")]
    Library {
        /// The step.
        step: &'static str,
        /// The library's error.
        reason: String,
    },
    /// The operating system gave no file, thread or socket.
    #[error("{what}: {source}")]
    System {
        /// The step, or a path.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// The gateway under load does not answer, or does not let the tool in.
    #[error("{0}")]
    Unusable(String),
    /// A signal ended the tool before it had figures.
    #[error("it was interrupted before there were figures")]
    Interrupted,
    /// A promise was broken, by the gateway or within the tool.
    #[error("{0}")]
    Broken(String),
}

impl ToolError {
    /// The system's error about this file, thread or socket.
    pub(super) fn system(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what: what.to_string(), source }
    }

    /// The error of a missing part of a message or client.
    pub(super) fn missing(what: &str) -> Self {
        Self::Broken(format!("{what} was expected and is not there"))
    }

    /// A task of the tool that ended early.
    pub(super) fn panicked(error: tokio::task::JoinError) -> Self {
        Self::Broken(format!("a part of this tool ended early: {error}"))
    }
}

/// Names the step in which a request or the system failed.
pub(super) trait During<T> {
    fn during(self, step: &'static str) -> Result<T, ToolError>;
}

impl<T> During<T> for Result<T, RequestError> {
    fn during(self, step: &'static str) -> Result<T, ToolError> {
        self.map_err(|source| ToolError::Gateway { step, source })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: &'static str) -> Result<T, ToolError> {
        self.map_err(ToolError::system(step))
    }
}

/// As [`During`], for the many errors of libraries.
pub(super) trait DuringLibrary<T> {
    fn during_library(self, step: &'static str) -> Result<T, ToolError>;
}

impl<T, E: fmt::Display> DuringLibrary<T> for Result<T, E> {
    fn during_library(self, step: &'static str) -> Result<T, ToolError> {
        self.map_err(|error| ToolError::Library { step, reason: error.to_string() })
    }
}
