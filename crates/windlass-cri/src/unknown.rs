//! The answer to calls of services that are not here.

use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tonic::Status;

/// A fallback for a router: gRPC gets its own `UNIMPLEMENTED`, everybody else 404.
pub async fn unknown_service(headers: HeaderMap) -> Response {
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return Status::unimplemented("unknown service").into_http::<axum::body::Body>().into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}
