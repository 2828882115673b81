//! Groups shared by several domains, over real connections that fail and gateways that are killed: every accepted entry
//! reaches every gateway, in one order and once.
//!
//! `MIMI_FEDERATION_ROUNDS=200` plays this many rounds of trouble of each kind.

mod figures;
mod restored;
mod trouble;
pub(crate) mod world;
