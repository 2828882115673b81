//! Absent peers: requests that need one are answered in bounded time.

use std::time::{Duration, Instant};

use super::{Two, Way, register};

const ELSEWHERE: &str = "/clients?tag=team&domain=b.example";

#[actix_web::test]
async fn a_peer_that_is_away_is_a_problem_until_it_is_back() {
    let mut two = Two::new().await;
    two.a.federation().circuit_open_ms = 3000;
    let (a, b) = two.start().await;
    register(&b, &["carol"]).await;
    a.get(ELSEWHERE).await.success(200);

    // Four failures open the circuit; a request fails twice.
    two.to_b.lead(Way::Closed).await;
    for _ in 0..2 {
        let since = Instant::now();
        a.get(ELSEWHERE).await.problem(502, "peer-unreachable", "b.example cannot be reached");
        assert!(since.elapsed() < Duration::from_secs(3));
    }
    two.to_b.lead(Way::To(b.federation_address())).await;
    // However well the peer is again, it is left alone for a while.
    a.get(ELSEWHERE).await.problem(502, "peer-unreachable", "is tried again in");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    a.get(ELSEWHERE).await.success(200);
    a.get(ELSEWHERE).await.success(200);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_peer_that_never_answers_is_not_waited_for() {
    let mut two = Two::new().await;
    two.a.federation().connect_timeout_ms = 60_000;
    two.a.federation().request_timeout_ms = 1500;
    let (a, b) = two.start().await;
    two.to_b.lead(Way::Silent).await;
    let since = Instant::now();
    a.get(ELSEWHERE).await.problem(504, "peer-timeout", "within 1500 ms");
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(1400) && waited < Duration::from_secs(5), "{waited:?}");
    // Requests that have nothing to do with it are answered meanwhile.
    let (slow, fast) = tokio::join!(a.get(ELSEWHERE), async {
        let since = Instant::now();
        a.get("/clients?tag=team&domain=a.example").await.success(200);
        since.elapsed()
    });
    slow.problem(504, "peer-timeout", "");
    assert!(fast < Duration::from_millis(1400), "{fast:?}");
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_peer_is_asked_only_so_much_at_once() {
    let mut two = Two::new().await;
    two.a.federation().peer_requests_in_flight_max = 1;
    two.a.federation().request_timeout_ms = 1500;
    let (a, b) = two.start().await;
    two.to_b.lead(Way::Silent).await;
    let (one, other) = tokio::join!(a.get(ELSEWHERE), a.get(ELSEWHERE));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [429, 504]);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_connection_that_was_cut_is_made_again() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    register(&b, &["carol"]).await;
    for _ in 0..5 {
        a.get(ELSEWHERE).await.success(200);
        two.to_b.lead(Way::Closed).await;
        two.to_b.lead(Way::To(b.federation_address())).await;
    }
    a.stop().await;
    b.stop().await;
}
