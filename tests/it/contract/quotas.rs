//! Quotas of an application.

use mimi_gateway::{
    api::{key_packages::KeyPackageUploadBody, problem::ProblemKind},
    config::TokenAccess,
    token::Token,
};
use serde_json::{Value, json};

use crate::{
    mls_support::{MlsClient, kept_in, refusal},
    support::{Reply, Request, TestGateway},
};

fn register(gateway: &TestGateway, handle: &str) -> Request {
    let client = json!({ "clientHandle": handle }).to_string();
    Request::new("POST", &gateway.path("/clients")).token(&gateway.writer).json(&client)
}

fn check_exceeded(reply: &Reply, quota: &str, limit: u64) {
    let problem = reply.problem(422, "quota-exceeded", &limit.to_string());
    assert_eq!((&problem["quota"], &problem["limit"]), (&json!(quota), &json!(limit)));
}

/// What the operator sees of the application's quotas.
async fn quotas(gateway: &TestGateway, operator: &Token) -> Value {
    let list = Request::new("GET", "/operator/v1/applications").token(operator);
    let list = gateway.operate(list).await.success(200);
    let applications = list["applications"].as_array().unwrap();
    applications.iter().find(|found| found["id"] == json!(gateway.app)).unwrap()["quotas"].clone()
}

#[actix_web::test]
async fn an_application_has_no_more_than_its_quotas() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = kept_in(&directory);
    let operator = Token::generate().unwrap();
    setup.watched_by(&[(&operator, TokenAccess::Read)]);
    let settings = &mut setup.config.applications[0].quotas;
    (settings.clients_max, settings.groups_max, settings.key_packages_max) = (Some(2), Some(1), Some(3));
    let gateway = setup.start().await;
    let alice = MlsClient::register(&gateway, "alice").await;
    let bob = MlsClient::register(&gateway, "bob").await;
    check_exceeded(&gateway.send(register(&gateway, "carol")).await, "clients", 2);
    // The other application has quotas of its own, here none.
    let other = Request::new("POST", &format!("/apps/{}/clients", gateway.other_app));
    let other = other.token(&gateway.other_writer).json(&json!({ "clientHandle": "carol" }).to_string());
    gateway.send(other).await.success(201);

    alice.upload_key_packages(2).await;
    let two = || KeyPackageUploadBody {
        key_packages: vec![bob.key_package(), bob.key_package()],
        ..KeyPackageUploadBody::default()
    };
    let problem = refusal(bob.upload(&two()).await);
    assert_eq!(problem.kind(), Some(ProblemKind::QuotaExceeded));
    assert_eq!((&problem.members["quota"], &problem.members["limit"]), (&json!("keyPackages"), &json!(3)));
    assert_eq!(bob.key_queue().await.key_packages_in_pool, 0, "nothing of it was stored");
    bob.upload_key_packages(1).await;

    let mut at_alice = alice.create_group().await;
    let problem = refusal(bob.api.create_group(&bob.make_group().1).await);
    assert_eq!(
        (problem.kind(), &problem.members["quota"]),
        (Some(ProblemKind::QuotaExceeded), &json!("groups"))
    );
    at_alice.invite(&[&bob]).await;
    let seen = quotas(&gateway, &operator).await;
    assert_eq!(seen["clients"], json!({ "used": 2, "max": 2 }));
    assert_eq!(seen["groups"], json!({ "used": 1, "max": 1 }));
    // The package of the invitation was used.
    assert_eq!(seen["keyPackages"], json!({ "used": 2, "max": 3 }));
    let bytes = seen["storedBytes"]["used"].as_u64().unwrap();
    assert!(bytes > 1000 && seen["storedBytes"].get("max").is_none(), "{seen}");

    // After a restart it is the same, with a new quota.
    gateway.stop().await;
    setup.config.applications[0].quotas.stored_bytes_max = Some(bytes);
    let gateway = setup.start().await;
    at_alice.reconnect(&gateway);
    check_exceeded(&gateway.send(register(&gateway, "carol")).await, "clients", 2);
    let commit = at_alice.make_update();
    let problem = refusal(at_alice.upload(&commit).await);
    assert_eq!(
        (problem.kind(), &problem.members["quota"]),
        (Some(ProblemKind::QuotaExceeded), &json!("storedBytes"))
    );
    at_alice.assert_gateway_agrees().await;
    // What is deleted makes room again.
    let path = gateway.path(&format!("/clients/{}", bob.id));
    gateway.send(Request::new("DELETE", &path).token(&gateway.writer)).await.success(204);
    gateway.send(register(&gateway, "carol")).await.success(201);
    gateway.stop().await;
    setup.config.applications[0].quotas.stored_bytes_max = None;
    let gateway = setup.start().await;
    at_alice.reconnect(&gateway);
    at_alice.commit(&commit).await;
    gateway.stop().await;
}
