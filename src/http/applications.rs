//! *Applications*.

use super::{
    problem::Problem,
    route::{Answer, Call, Handle},
};
use crate::api::applications::{ApplicationConfigurations, ListApplications};

impl Handle for ListApplications {
    async fn handle(call: Call<Self>) -> Result<Answer<ApplicationConfigurations>, Problem> {
        Ok(Answer::Ok(ApplicationConfigurations(call.edge.public_applications.to_vec())))
    }
}
