//! What was asked, without its secrets.

use super::Service;
use crate::wire::Message;

/// Headers whose values are secret.
const SECRET_HEADERS: [&str; 3] = ["authorization", "x-amz-security-token", "x-aws-ec2-metadata-token"];
/// Fields of forms and of JSON bodies whose values are secret.
const SECRET_FIELDS: [&str; 6] =
    ["WebIdentityToken", "client_assertion", "client_secret", "access_token", "refresh_token", "subject_token"];
/// What stands for a secret.
const HIDDEN: &str = "***";

/// A request to a service.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service.
    pub service: Service,
    /// Method.
    pub method: String,
    /// Path without its query, as sent.
    pub path: String,
    /// Query, as sent.
    pub query: String,
    /// Headers with lower-case names; secret ones are `***`.
    pub headers: Vec<(String, String)>,
    /// Fields of a form or of a JSON object of strings; secret ones are `***`.
    pub fields: Vec<(String, String)>,
    /// The signature it brought, good or not.
    pub signed: Option<Signed>,
    /// Who it was, once proved.
    pub who: Option<String>,
    /// Status of the answer.
    pub status: u16,
}

/// What a signature says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The access key's ID.
    pub key_id: String,
    /// The region.
    pub region: String,
    /// The service.
    pub service: String,
}

impl Call {
    pub(super) fn new(service: Service, message: &Message) -> Call {
        let hide = |secret: &[&str], name: &str, value: &str| {
            let value = if secret.contains(&name) { HIDDEN } else { value };
            (name.to_owned(), value.to_owned())
        };
        let mut fields = message.form();
        if let Ok(object) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&message.body) {
            fields.extend(object.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))));
        }
        Call {
            service,
            method: message.method.clone(),
            path: message.path.clone(),
            query: message.query.clone(),
            headers: message.headers.iter().map(|(name, value)| hide(&SECRET_HEADERS, name, value)).collect(),
            fields: fields.iter().map(|(name, value)| hide(&SECRET_FIELDS, name, value)).collect(),
            signed: None,
            who: None,
            status: 0,
        }
    }

    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A query parameter, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
    }
}
