//! Requests and answers, as a client reports them.

use std::{fmt, sync::Arc};

use crate::api::Method;

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The method.
    pub method: Method,
    /// The path with the query.
    pub target: &'a str,
    /// The JSON of the request, if it has a body.
    pub request: Option<&'a [u8]>,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub answer: &'a [u8],
}

/// A function that is told of each exchange.
#[derive(Clone)]
pub(super) struct Observer(Arc<dyn Fn(&Exchange<'_>) + Send + Sync>);

impl Observer {
    pub(super) fn new(report: impl Fn(&Exchange<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    pub(super) fn report(&self, exchange: &Exchange<'_>) {
        (self.0)(exchange);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}
