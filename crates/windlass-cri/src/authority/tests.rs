//! Streams as clients send them, whole and cut everywhere.

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

/// SETTINGS without any setting.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// RST_STREAM.
const RESET: u8 = 3;
const END_STREAM: u8 = 1;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// `GET http://<authority>/`, with what comes before and after it in the frame.
fn request(flags: u8, before: &[u8], authority: &str, after: &[u8]) -> Vec<u8> {
    let length = u8::try_from(authority.len()).expect("a short authority");
    let block = [&[0x82, 0x86, 0x84, 0x41, length], authority.as_bytes()].concat();
    let headers = frame(HEADERS, flags | END_HEADERS | END_STREAM, &[before, &block, after].concat());
    [PREFACE, SETTINGS, &headers].concat()
}

/// A kind of frame that the server answers on stream 1.
async fn answer(stream: &mut DuplexStream) -> u8 {
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        stream.read_exact(&mut head).await.expect("a frame");
        let [l2, l1, l0, kind, _, _, _, _, stream_id] = head;
        let length = usize::from(l2) << 16 | usize::from(l1) << 8 | usize::from(l0);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.expect("its payload");
        if stream_id == 1 {
            return kind;
        }
    }
}

/// Serves one connection in the background.
fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let router = Router::new().route("/", get(|| async { "here" }));
    tokio::spawn(async move {
        let service = TowerToHyperService::new(router);
        // It ends with an error when the client goes away.
        let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    });
}

#[tokio::test]
async fn a_request_with_a_path_as_authority_is_served() {
    let padded = &[2][..];
    let priority = &[0, 0, 0, 0, 16][..];
    let table: [(u8, &[u8], &[u8]); 3] = [(0, &[], &[]), (PADDED, padded, &[0, 0]), (PRIORITY, priority, &[])];
    for (flags, before, after) in table {
        let bytes = request(flags, before, "/run/windlass/windlass.sock", after);
        let (mut client, server) = tokio::io::duplex(1 << 16);
        serve(AnyAuthority::new(server));
        client.write_all(&bytes).await.expect("it reads");
        assert_eq!(answer(&mut client).await, HEADERS, "flags {flags}");
        // Without us the server below does not take it, which is why we are here.
        let (mut client, server) = tokio::io::duplex(1 << 16);
        serve(server);
        client.write_all(&bytes).await.expect("it reads");
        assert_eq!(answer(&mut client).await, RESET, "flags {flags}");
    }
}

/// Everything that comes out, when these pieces go in.
async fn through(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(1);
    let mut filtered = AnyAuthority::new(server);
    let mut out = Vec::new();
    let write = async {
        for piece in pieces {
            client.write_all(piece).await.expect("it reads");
        }
        drop(client);
    };
    let (_written, read) = tokio::join!(write, filtered.read_to_end(&mut out));
    read.expect("an end");
    out
}

#[tokio::test]
async fn every_way_of_cutting_the_stream_gives_the_same() {
    let data = frame(0, 0, b"0123456789");
    let bytes = [&request(0, &[], "/a/path", &[])[..], &data, SETTINGS].concat();
    let want = [&request(0, &[], "u", &[])[..], &data, SETTINGS].concat();
    for cut in 0..bytes.len() {
        let (one, two) = bytes.split_at(cut);
        assert_eq!(through(&[one, two]).await, want, "cut at {cut}");
    }
    // An end anywhere: what came before it is passed on.
    for end in 0..PREFACE.len() + SETTINGS.len() + 5 {
        assert_eq!(through(&[&bytes[..end]]).await, bytes[..end], "end at {end}");
    }
}

#[tokio::test]
async fn what_is_not_http2_passes_as_it_is() {
    let frames = |frame: Vec<u8>| [PREFACE, SETTINGS, &frame].concat();
    let field = [&[0x41, 2][..], b"/a"].concat();
    let long = vec![0x82; FRAME_BYTES_MAX + 1];
    for bytes in [
        b"GET /livez HTTP/1.1\r\nHost: /any\r\n\r\n".to_vec(),
        b"PRI * HTTP/1.1\r\n\r\n".to_vec(),
        // A block that goes on, one that is too long, one whose padding is longer than itself, one that is none.
        frames(frame(HEADERS, END_STREAM, &field)),
        frames(frame(HEADERS, END_HEADERS, &[&field[..], &long].concat())),
        frames(frame(HEADERS, END_HEADERS | PADDED, &[&[200][..], &field].concat())),
        frames(frame(HEADERS, END_HEADERS | PADDED, &[])),
        frames(frame(HEADERS, END_HEADERS, &[0x41, 200, 1])),
    ] {
        assert_eq!(through(&[&bytes]).await, bytes, "{bytes:?}");
    }
}
