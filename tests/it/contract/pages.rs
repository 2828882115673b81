//! Pages without a token: probes, the description of the API, and the explanations of problems.

use mimi_gateway::api::problem::ProblemKind;

use crate::support::{Reply, Request, TestGateway};

async fn open(gateway: &TestGateway, path: &str) -> Reply {
    gateway.send(Request::new("GET", path)).await
}

/// Opens a page as a browser does.
async fn browse(gateway: &TestGateway, path: &str) -> Reply {
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    gateway.send(Request::new("GET", path).header("Accept", accept)).await
}

#[actix_web::test]
async fn a_running_gateway_is_up_and_ready() {
    let gateway = TestGateway::start().await;
    assert_eq!(open(&gateway, "/healthz").await.success(200)["status"], "up");
    assert_eq!(open(&gateway, "/readyz").await.success(200)["status"], "ready");
    gateway.stop().await;
}

#[actix_web::test]
async fn the_api_describes_itself() {
    let gateway = TestGateway::start().await;
    let document = open(&gateway, "/openapi.json").await.success(200);
    assert_eq!(document["openapi"], "3.1.0");
    let register = &document["paths"]["/apps/{appId}/clients"]["post"];
    assert_eq!(
        register["requestBody"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/NewClient"
    );
    let new_client = &document["components"]["schemas"]["NewClient"];
    assert_eq!(new_client["required"], serde_json::json!(["clientHandle"]), "{new_client}");
    assert_eq!(new_client["additionalProperties"], false, "{new_client}");
    gateway.stop().await;
}

#[actix_web::test]
async fn the_docs_come_from_the_binary() {
    let gateway = TestGateway::start().await;
    for path in ["/docs", "/docs/"] {
        let page = open(&gateway, path).await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").is_some_and(|media_type| media_type.starts_with("text/html")));
        let html = page.text();
        assert!(!html.contains("://"), "it fetches nothing from elsewhere: {html}");
        assert!(html.contains("name=\"viewport\"") && html.contains("gateway.css"), "{html}");
        // Every file that it names is here.
        for name in html
            .split(['"'])
            .filter(|part| part.ends_with(".js") || part.ends_with(".css") || part.ends_with(".png"))
        {
            let file = open(&gateway, &format!("/docs/{}", name.trim_start_matches("./"))).await;
            assert_eq!(file.status, 200, "{name}");
            assert!(!file.body.is_empty(), "{name}");
        }
        assert!(
            page.header("content-security-policy")
                .is_some_and(|policy| policy.starts_with("default-src 'self'"))
        );
    }
    let initializer = open(&gateway, "/docs/swagger-initializer.js").await.text();
    assert!(initializer.contains("/openapi.json") && !initializer.contains("://"), "{initializer}");
    gateway.stop().await;
}

#[actix_web::test]
async fn every_type_of_problem_has_its_page() {
    let gateway = TestGateway::start().await;
    let list = browse(&gateway, "/problems").await;
    assert_eq!(list.status, 200);
    assert_eq!(browse(&gateway, "/problems/").await.text(), list.text());
    for kind in ProblemKind::ALL {
        let slug = kind.about().slug;
        let page = browse(&gateway, &kind.type_uri()).await;
        assert_eq!(page.status, 200, "{slug}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{slug}");
        assert!(page.text().contains(slug) && page.text().contains(kind.about().title), "{slug}");
        assert!(page.text().contains("href=\"/problems\""), "{slug}");
        for part in [format!("href=\"#{slug}\""), format!("id=\"{slug}\"")] {
            assert!(list.text().contains(&part), "{part}");
        }

        // A terminal is told in text.
        for accept in ["text/plain", "*/*", "application/json"] {
            let plain = gateway.send(Request::new("GET", &kind.type_uri()).header("Accept", accept)).await;
            assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"), "{slug}");
            assert!(plain.text().contains(kind.about().remedy), "{slug}");
        }
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn the_start_page_leads_to_pages_that_exist() {
    let gateway = TestGateway::start().await;
    let page = browse(&gateway, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = page.text();
    let linked: Vec<&str> =
        html.split("<a href=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
    assert!(linked.contains(&"/docs") && linked.contains(&"/problems"), "{html}");
    let text = open(&gateway, "/").await;
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    for path in linked {
        assert_eq!(open(&gateway, path).await.status, 200, "{path}");
        assert!(text.text().contains(path), "{path}");
    }
    let icon = open(&gateway, "/favicon.ico").await;
    assert_eq!((icon.status, icon.header("content-type")), (200, Some("image/svg+xml")));
    gateway.stop().await;
}
