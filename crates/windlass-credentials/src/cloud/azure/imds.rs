//! The identity of the machine, from the metadata server of Azure's virtual machines.
//!
//! Asked past every proxy. Source of truth: Azure's "How to use managed identities on a virtual machine", which says what
//! is to be asked again.

use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use windlass_core::httpurl::HttpUrl;
use windlass_core::secret::Secret;
use windlass_distribution::web::{Web, WebAnswer, WebRequest, WebRoute};

use super::choice::ManagedId;
use super::entra;
use crate::cloud::asking::{ANSWER_BYTES, Service};
use crate::cloud::oauth::refusal;
use crate::cloud::retry::{Deadline, Retries, passing};
use crate::cloud::{CloudError, endpoint, form};

const TOKEN: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=";
const METADATA: HeaderName = HeaderName::from_static("metadata");

/// One question.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// All tries: the server is away for up to 70 s when it is updated, but a kubelet waits for 60 s only.
const LIMIT: Duration = Duration::from_secs(40);
const RETRIES: Retries =
    Retries { tries: 6, first_wait: Duration::from_secs(2), longest_wait: Duration::from_secs(25) };

/// A token of the machine's identity, for registries.
pub(super) async fn token(web: &Web, base: &HttpUrl, id: Option<&ManagedId>) -> Result<Secret<String>, CloudError> {
    let service = Service {
        web,
        name: format!("the metadata server at {}", base.authority()),
        retries: RETRIES,
        deadline: Deadline::after(LIMIT, Instant::now()),
        hint: "is this a machine of Azure's, and may this process reach its metadata server?".to_owned(),
    };
    let request = WebRequest {
        method: Method::GET,
        url: endpoint::under("the metadata server", base, &tail(id))?,
        headers: HeaderMap::from_iter([(METADATA, HeaderValue::from_static("true"))]),
        body: Secret::new(Vec::new()),
        route: WebRoute::Direct,
        limit: REQUEST_LIMIT,
        bytes_max: ANSWER_BYTES,
    };
    let answer = service.ask(|| Ok(request.clone()), is_passing).await?;
    if answer.status != StatusCode::OK {
        return Err(refusal(&service.name, &answer, &[], |_| hint(answer.status, id)));
    }
    entra::token_of(&service.name, &answer)
}

/// The server answers 404 and 410 while it is being updated.
fn is_passing(answer: &WebAnswer) -> bool {
    passing(answer.status) || matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

fn tail(id: Option<&ManagedId>) -> String {
    let mut tail = TOKEN.to_owned();
    form::push_encoded(&mut tail, entra::AUDIENCE.as_bytes());
    if let Some(id) = id {
        let (name, value) = match id {
            ManagedId::Client(value) => ("client_id", value),
            ManagedId::Resource(value) => ("msi_res_id", value),
        };
        tail.push('&');
        tail.push_str(name);
        tail.push('=');
        form::push_encoded(&mut tail, value.as_bytes());
    }
    tail
}

fn hint(status: StatusCode, id: Option<&ManagedId>) -> String {
    match (status, id) {
        (StatusCode::BAD_REQUEST, None) => {
            "assign an identity to the machine; where it has several, name one by userAssignedIdentityID".to_owned()
        }
        (StatusCode::BAD_REQUEST, Some(_)) => {
            "assign the identity that userAssignedIdentityID or AZURE_CLIENT_ID names to the machine".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_named_in_the_query() {
        let base =
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcontainerregistry.azure.net";
        assert_eq!(tail(None), base);
        assert_eq!(tail(Some(&ManagedId::Client("a-1".to_owned()))), format!("{base}&client_id=a-1"));
        let resource = Some(ManagedId::Resource("/subscriptions/s".to_owned()));
        assert_eq!(tail(resource.as_ref()), format!("{base}&msi_res_id=%2Fsubscriptions%2Fs"));
    }
}
