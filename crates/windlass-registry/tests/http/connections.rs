//! What happens at the socket: clients that go away, that wait, and shutting down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use windlass_core::digest::Digest;

use crate::support::{Client, start};

/// Writes these bytes to the registry and reads until it closes or until `until` was read.
fn raw(addr: std::net::SocketAddr, request: &str, until: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut got = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&got).ends_with(until) && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        got.push(byte[0]);
    }
    (stream, String::from_utf8_lossy(&got).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_leaves_the_upload_at_its_true_offset() {
    let fixture = start(|_| {}).await;
    let client = Client::new(&fixture);
    let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let addr = fixture.registry.addr();
    let request = format!("PATCH {at} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n0123456789");
    let mut stream = TcpStream::connect(addr).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    drop(stream);
    // The registry learns of the end when it reads; until then the upload is in use.
    let state = loop {
        let state = client.get(&at).await;
        if state.status != 409 && state.header("range") != "0-0" {
            break state;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(state.header("range"), "0-9");
    let digest = Digest::sha256(b"0123456789abc");
    assert_eq!(client.send("PUT", &format!("{at}?digest={digest}"), &[], "abc").await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_at_a_time_writes_to_an_upload() {
    let fixture = start(|_| {}).await;
    let client = Client::new(&fixture);
    let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let addr = fixture.registry.addr();
    let request = format!("PATCH {at} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    // "100 Continue" says that the registry is reading the body.
    let held = tokio::task::spawn_blocking(move || raw(addr, &request, "\r\n\r\n")).await.expect("joined");
    assert!(held.1.starts_with("HTTP/1.1 100"), "{}", held.1);
    assert_eq!(client.send("PATCH", &at, &[], "x").await.status, 409);
    assert_eq!(client.get(&at).await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_without_bytes_is_given_up() {
    let fixture = start(|config| config.limits.idle = Duration::from_millis(200)).await;
    let client = Client::new(&fixture);
    let at = client.send("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let addr = fixture.registry.addr();
    let request = format!("PATCH {at} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    let (_stream, answer) = tokio::task::spawn_blocking(move || raw(addr, &request, "}")).await.expect("joined");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(client.get(&at).await.header("range"), "0-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_finishes_what_is_in_work() {
    let fixture = start(|_| {}).await;
    let client = Client::new(&fixture);
    let bytes: &'static [u8] = Vec::leak(vec![7; 8 << 20]);
    let digest = client.push_blob("a", bytes).await;
    let addr = fixture.registry.addr();
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    let (mut stream, head) =
        tokio::task::spawn_blocking(move || raw(addr, &request, "\r\n\r\n")).await.expect("joined");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let reading = tokio::task::spawn_blocking(move || {
        let mut body = Vec::new();
        stream.read_to_end(&mut body).map(|_| body.len())
    });
    fixture.registry.shutdown().await;
    assert_eq!(reading.await.expect("joined").ok(), Some(8 << 20));
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_does_not_wait_for_ever() {
    let fixture = start(|config| config.limits.drain = Duration::from_millis(200)).await;
    let client = Client::new(&fixture);
    let bytes: &'static [u8] = Vec::leak(vec![7; 64 << 20]);
    let digest = client.push_blob("a", bytes).await;
    let addr = fixture.registry.addr();
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    // This client never reads on.
    let (_stream, head) = tokio::task::spawn_blocking(move || raw(addr, &request, "\r\n\r\n")).await.expect("joined");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    tokio::time::timeout(Duration::from_secs(10), fixture.registry.shutdown()).await.expect("in time");
}
