//! Groups that members of several domains share, over real connections that fail and gateways that are killed: what is
//! accepted is everywhere in the end, in one order and once.
//!
//! `MIMI_FEDERATION_ROUNDS=200` plays so many rounds of trouble of each kind.

mod trouble;
mod world;
