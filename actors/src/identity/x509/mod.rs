//! The draft's *X.509 Identity Provider*: certificate chains and whom they name.

mod chain;
mod trust;

pub use self::{
    chain::{CertificateRule, ChainError, MAX_CERTIFICATES},
    trust::{TrustError, TrustStore},
};
