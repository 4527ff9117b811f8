//! How services that speak OAuth say no: `{"error":"...","error_description":"..."}`, or in plain words.
//!
//! Invariants: `refusals_tell_what_the_service_says`, `words_never_repeat_a_secret`.

use http::StatusCode;
use serde::Deserialize;
use windlass_distribution::web::WebAnswer;

use super::CloudError;
use super::asking::words;

/// Longest error word.
const CODE_BYTES: usize = 64;

#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The error for an answer that is no success. `secrets` never show; `hint` knows what the service's words mean.
pub(crate) fn refusal(
    service: &str,
    answer: &WebAnswer,
    secrets: &[&str],
    hint: impl Fn(&str) -> String,
) -> CloudError {
    let text = String::from_utf8_lossy(answer.body.expose());
    let status = answer.status;
    let mut said = match serde_json::from_str::<Said>(&text) {
        Ok(said) if !said.error.is_empty() && said.error.len() <= CODE_BYTES => {
            // What follows the first line are numbers for the service's own people.
            let first = said.error_description.lines().next().unwrap_or_default();
            format!("{} {first}", said.error)
        }
        // Pages for people tell nothing here.
        _ if text.trim_start().starts_with('<') => String::new(),
        _ => text.lines().next().unwrap_or_default().to_owned(),
    };
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        said = said.replace(secret, "***");
    }
    let hint = hint(&said);
    let words = words(&format!("HTTP {} {said}", status.as_u16()));
    let service = service.to_owned();
    if status == StatusCode::TOO_MANY_REQUESTS {
        CloudError::Busy { service, words }
    } else if status.is_server_error() {
        CloudError::Failing { service, words }
    } else {
        CloudError::Refused { service, words, hint }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use windlass_core::secret::Secret;

    use super::*;

    fn refused(status: u16, body: &str) -> CloudError {
        let body = Secret::new(body.as_bytes().to_vec());
        let answer = WebAnswer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body };
        refusal("it", &answer, &["canary"], str::to_owned)
    }

    #[test]
    fn refusals_tell_what_the_service_says() {
        let aad = r#"{"error":"invalid_client","error_description":"AADSTS70021: No match.\r\nTrace ID: 1","error_codes":[70021]}"#;
        let table = [
            (401, aad, "it refused: HTTP 401 invalid_client AADSTS70021: No match."),
            (400, r#"{"error":{"code":1}}"#, r#"it refused: HTTP 400 {"error":{"code":1}}"#),
            (404, "<html>no", "it refused: HTTP 404"),
            (403, "no\nway", "it refused: HTTP 403 no"),
            (429, "", "it is busy: HTTP 429"),
            (503, "<html>", "it fails: HTTP 503"),
            (302, "", "it refused: HTTP 302"),
        ];
        for (status, body, want) in table {
            assert_eq!(refused(status, body).to_string().trim_end(), want);
        }
    }

    #[test]
    fn words_never_repeat_a_secret() {
        let long = "x".repeat(10_000);
        for body in ["canary", r#"{"error":"e","error_description":"token canary is bad"}"#, &long] {
            let error = refused(400, body);
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("canary"), "{error}");
            assert!(error.to_string().len() < 500);
        }
    }
}
