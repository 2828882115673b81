//! TLS on the internal listener.

use mimi_gateway::{api::clients::NewClientBody, client::GatewayClient};

use crate::support::{Setup, peers::GatewayPki};

#[actix_web::test]
async fn the_internal_listener_speaks_tls_with_a_certificate() {
    let pki = GatewayPki::new();
    let files = pki.settings(&["localhost"]);
    let mut setup = Setup::new();
    setup.config.internal.certificate = Some(files.certificate);
    setup.config.internal.private_key = Some(files.private_key);
    let gateway = setup.start().await;
    let port = gateway.address().port();
    assert_eq!(gateway.base_url(), format!("https://127.0.0.1:{port}"));

    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(pki.caller(None))
        .resolve("localhost", gateway.address())
        .no_proxy()
        .build()
        .unwrap();
    let answer = http.get(format!("https://localhost:{port}/healthz")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_11));
    let client = GatewayClient::new(format!("http://localhost:{port}"), gateway.app, gateway.writer.clone());
    let new = NewClientBody { client_handle: "alice".parse().unwrap(), tags: Vec::new(), domain: None };
    client.unwrap().over(http.clone()).register_client(&new).await.unwrap_err();
    let client = GatewayClient::new(gateway.base_url(), gateway.app, gateway.writer.clone());
    // A client that does not know the CA rejects the certificate; a machine without any CA cannot even ask.
    if let Ok(client) = client {
        client.register_client(&new).await.unwrap_err();
    }
    gateway.stop().await;
}
