//! `RuntimeService`, as far as a daemon of images has one: its version, and that it runs no containers.
//!
//! `crictl version`, `crictl info` and critest ask both on the image endpoint; every other call is `UNIMPLEMENTED`,
//! because the service is described without it. A kubelet must never take this for a runtime, so both conditions are
//! false.

use tonic::{Request, Response, Status};
use windlass_proto::cri::v1;
use windlass_proto::cri::v1::runtime_service_server::RuntimeService;

use crate::old_api::OldApi;

/// The kubelet's own API version, a constant by custom: kubernetes `kubeRuntimeAPIVersion`.
const KUBE_API_VERSION: &str = "0.1.0";
const RUNTIME_NAME: &str = "windlass";

/// Answers for the runtime that is not here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RuntimeApi;

#[tonic::async_trait]
impl RuntimeService for RuntimeApi {
    async fn version(&self, request: Request<v1::VersionRequest>) -> Result<Response<v1::VersionResponse>, Status> {
        let is_old = request.extensions().get::<OldApi>().is_some();
        Ok(Response::new(v1::VersionResponse {
            version: KUBE_API_VERSION.to_owned(),
            runtime_name: RUNTIME_NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: if is_old { "v1alpha2" } else { "v1" }.to_owned(),
        }))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let condition = |kind: &str| v1::RuntimeCondition {
            r#type: kind.to_owned(),
            status: false,
            reason: "ImageServiceOnly".to_owned(),
            message: "windlass serves images only; containers are with the runtime endpoint".to_owned(),
        };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        let status = Some(v1::RuntimeStatus { conditions });
        Ok(Response::new(v1::StatusResponse { status, info: std::collections::HashMap::new() }))
    }
}
