//! The present activity of the gateway as a stream, for operators.
//!
//! | file | |
//! |---|---|
//! | `sampler.rs` | a sample each second while somebody reads |
//! | `rates.rs` | rates and quantiles from counters |
//! | `busiest.rs` | the groups with the most commits |

mod busiest;
mod rates;
mod sampler;

use std::{rc::Rc, sync::Arc};

use actix_web::web::Bytes;
use tokio::{sync::watch, time::timeout};

pub(crate) use self::sampler::Sampler;
use super::{
    callers::ComputeTurn,
    edge::Edge,
    event_body::{Block, EventBody, WriteBlocks},
    events::{SILENCE_MAX, too_many},
    operator::Operators,
    problem::Problem,
    route::{Answer, Call, Handle},
};
use crate::api::activity::{ActivitySample, WatchActivity};

impl Handle<Operators> for WatchActivity {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<ActivitySample>, Problem> {
        let share = call.turn.stream().map_err(too_many)?;
        let is_head = call.fields.is_head;
        let samples = call.edge.authority().sampler.samples(&call.edge);
        let writer = SampleWriter { edge: call.edge, samples, turn: call.turn };
        Ok(Answer::Events(EventBody::new(writer, is_head), share))
    }
}

/// Writes samples for one reader. A reader that is slow misses those that were taken meanwhile.
struct SampleWriter {
    edge: Arc<Edge<Operators>>,
    samples: watch::Receiver<Bytes>,
    turn: Rc<ComputeTurn>,
}

impl WriteBlocks for SampleWriter {
    async fn next(&mut self) -> Option<Block> {
        loop {
            let changed = timeout(SILENCE_MAX, self.samples.changed()).await;
            if self.turn.is_revoked() {
                return None;
            }
            match changed {
                Err(_) => return Some(Block::from([Bytes::from_static(b":\n\n")])),
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
            }
            // It is empty while the first one is taken, and at the end.
            let sample = self.samples.borrow_and_update().clone();
            if !sample.is_empty() {
                return Some(Block::from([sample]));
            }
            if self.edge.gateway.has_ended_streams() {
                return None;
            }
        }
    }
}
