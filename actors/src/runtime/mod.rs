//! Runtime of the actors: the registry, which activates the owner of a group or key queue when it is needed, and the
//! supervisor, which has them write snapshots and passivates them.

mod active;
mod registry;
mod supervisor;

pub use self::active::AwakeActors;
pub(crate) use self::{
    registry::{Directory, Registry},
    supervisor::{KNOWN_TIME, Periods, Stop, Supervisor},
};
