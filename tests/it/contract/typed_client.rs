//! The typed client against the gateway, over HTTP/1.1.

use actors::ClientHandle;
use mimi_gateway::{
    api::{
        Limit,
        clients::{ClientChangeBody, GroupsOfClientQuery, NewClientBody, TagQuery},
        groups::EpochRange,
        joining::WelcomeQuery,
        key_packages::{KeyPackageQuery, KeyPackageUploadBody, NewKeyQueueBody},
        problem::ProblemKind,
        text::HandleText,
    },
    client::{GatewayClient, RequestError},
    token::Token,
};

use crate::support::TestGateway;

fn handle(text: &str) -> ClientHandle {
    text.parse::<HandleText>().unwrap().0
}

fn new_client(text: &str, tags: &[&str]) -> NewClientBody {
    NewClientBody {
        client_handle: HandleText(handle(text)),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        domain: None,
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, RequestError>, kind: ProblemKind) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Some(kind), "{error}");
}

async fn tell_a_story(client: &GatewayClient) {
    let public = client.applications().await.unwrap().0;
    assert_eq!(public.iter().map(|application| application.id).collect::<Vec<_>>(), [client.app()]);

    let alice = client.register_client(&new_client("alice/phone é", &["a&b=c d"])).await.unwrap().client_id;
    let error = client.register_client(&new_client("alice/phone é", &[])).await.unwrap_err();
    let RequestError::Problem(problem) = &error else { panic!("{error}") };
    assert_eq!(problem.kind(), Some(ProblemKind::ClientHandleTaken));
    assert_eq!(problem.members["clientId"], alice.to_string());
    assert_eq!((problem.status, problem.slug()), (409, "client-handle-taken"));

    let query = TagQuery {
        tag: Some("a&b=c d".to_owned()),
        domain: None,
        limit: Limit::try_from(1).unwrap(),
        cursor: None,
    };
    let found = client.find_clients(&query).await.unwrap();
    assert_eq!((found.identities[0].client_id, &found.next_cursor), (alice, &None));
    let change = ClientChangeBody { tags_to_add: vec!["new".to_owned()], ..ClientChangeBody::default() };
    let changed = client.change_client(alice, &change).await.unwrap();
    assert_eq!(changed.tags, ["a&b=c d", "new"]);
    assert_eq!(client.client(alice).await.unwrap(), changed);

    let attributes = NewKeyQueueBody { protocol_version: 1, cipher_suite: 1, app_label: "a b".to_owned() };
    let queue = client.create_key_queue(alice, &attributes).await.unwrap().key_queue_id;
    assert_eq!(client.key_queues(alice).await.unwrap().queues[0].key_queue_id, queue);
    let counts = client.upload_key_packages(alice, queue, &KeyPackageUploadBody::default()).await.unwrap();
    assert_eq!(counts.key_packages_in_pool, 0);
    let mut wanted = KeyPackageQuery::new(1, 1, "bob");
    wanted.app_label = "a b".to_owned();
    refused(client.retrieve_key_package(alice, &wanted).await, ProblemKind::NoKeyPackage);
    client.delete_key_queue(alice, queue).await.unwrap();

    for text in ["alice/phone é", "b64:_w", "b64:YjY0Og", "b64:Lg", "b64:Li4"] {
        assert_eq!(
            client.groups_of_client(&handle(text), &GroupsOfClientQuery::default()).await.unwrap().groups,
            []
        );
        assert_eq!(client.welcomes(&handle(text), &WelcomeQuery::default()).await.unwrap().join_infos, []);
        client.acknowledge_welcome(&handle(text), None, actors::DeliveryId(7)).await.unwrap();
    }
    let group = actors::GroupId::new([0, 1, 0xff]).unwrap();
    refused(client.group(&group).await, ProblemKind::UnknownGroup);
    refused(client.proposals(&group).await, ProblemKind::UnknownGroup);
    refused(client.group_info(&group).await, ProblemKind::UnknownGroup);
    let range = EpochRange::from(actors::Epoch(1));
    refused(client.control_messages(&group, &range).await, ProblemKind::UnknownGroup);
    client.delete_client(alice).await.unwrap();
    refused(client.client(alice).await, ProblemKind::UnknownClient);
}

#[actix_web::test]
async fn over_http_1_1() {
    let gateway = TestGateway::start().await;
    let client = GatewayClient::new(gateway.base_url(), gateway.app, gateway.writer.clone()).unwrap();
    tell_a_story(&client).await;
    let stranger = GatewayClient::new(gateway.base_url(), gateway.app, Token::new("x")).unwrap();
    refused(stranger.client(actors::ClientId::random()).await, ProblemKind::NotAuthenticated);
    assert!(!format!("{client:?}").contains(gateway.writer.reveal()), "a token is not printed");
    gateway.stop().await;
}

#[actix_web::test]
async fn nobody_there_is_no_problem_document() {
    let gateway = TestGateway::start().await;
    let client = GatewayClient::new(gateway.base_url(), gateway.app, gateway.writer.clone()).unwrap();
    gateway.stop().await;
    let error = client.client(actors::ClientId::random()).await.unwrap_err();
    assert!(matches!(error, RequestError::Transport(_)), "{error}");
}
