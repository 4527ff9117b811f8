//! What a program is asked: one JSON object on its standard input.

use std::collections::BTreeMap;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The group of requests and answers.
pub const EXEC_GROUP: &str = "credentialprovider.kubelet.k8s.io";

/// A version of the protocol. All three look the same, but the newest one may carry a service account's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExecVersion {
    /// Of 2020.
    V1Alpha1,
    /// Of 2022.
    V1Beta1,
    /// Stable.
    V1,
}

impl ExecVersion {
    /// Every version, oldest first.
    pub const ALL: [ExecVersion; 3] = [ExecVersion::V1Alpha1, ExecVersion::V1Beta1, ExecVersion::V1];

    /// The `apiVersion` as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExecVersion::V1Alpha1 => "credentialprovider.kubelet.k8s.io/v1alpha1",
            ExecVersion::V1Beta1 => "credentialprovider.kubelet.k8s.io/v1beta1",
            ExecVersion::V1 => "credentialprovider.kubelet.k8s.io/v1",
        }
    }

    /// The version of an `apiVersion`, written exactly so.
    pub fn parse(text: &str) -> Option<ExecVersion> {
        ExecVersion::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

/// The body of a request. `account` is the token of a service account and the annotations to pass on; the two older
/// versions have no place for it.
pub fn request_body(
    version: ExecVersion,
    image: &str,
    account: Option<(&Secret<String>, &BTreeMap<String, String>)>,
) -> Zeroizing<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        kind: &'a str,
        api_version: &'a str,
        image: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        service_account_token: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        service_account_annotations: Option<&'a BTreeMap<String, String>>,
    }
    let account = account.filter(|_| version == ExecVersion::V1);
    let body = Body {
        kind: "CredentialProviderRequest",
        api_version: version.as_str(),
        image,
        service_account_token: account.map(|(token, _)| token.expose().as_str()),
        service_account_annotations: account.map(|(_, annotations)| annotations).filter(|found| !found.is_empty()),
    };
    // Room at once, so that growing leaves no copies of the token behind.
    let room =
        512 + image.len() + account.map_or(0, |(token, notes)| 2 * token.expose().len() + annotation_bytes(notes));
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *bytes, &body).expect("texts and maps of texts always become JSON");
    bytes
}

fn annotation_bytes(annotations: &BTreeMap<String, String>) -> usize {
    annotations.iter().map(|(name, value)| 2 * (name.len() + value.len()) + 8).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_look_as_the_kubelet_writes_them() {
        let ask = |version, account| {
            String::from_utf8(request_body(version, "reg.example/app", account).to_vec()).expect("JSON is text")
        };
        let plain = r#"{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1alpha1","image":"reg.example/app"}"#;
        assert_eq!(ask(ExecVersion::V1Alpha1, None), plain);
        let (token, annotations) = (Secret::from("JWT"), BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        let full = r#"{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"reg.example/app","serviceAccountToken":"JWT","serviceAccountAnnotations":{"k":"v"}}"#;
        assert_eq!(ask(ExecVersion::V1, Some((&token, &annotations))), full);
        assert_eq!(ask(ExecVersion::V1Alpha1, Some((&token, &annotations))), plain, "no place for a token");
    }
}
