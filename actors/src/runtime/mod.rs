//! Runtime of the actors: the registry, which activates the owner of a group or key queue when it is needed, and the
//! supervisor, which has them write snapshots, passivates them, and has data deleted.

mod active;
mod erasure;
mod registry;
mod revocation;
mod space;
mod supervisor;

pub use self::active::AwakeActors;
pub(crate) use self::{
    registry::{Directory, Registry},
    supervisor::{KNOWN_TIME, Periods, Stop, Supervisor},
};
