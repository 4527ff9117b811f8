//! How Amazon's services say no, in JSON or XML, and what an operator does about it.
//!
//! Invariants: `refusals_are_read_in_both_languages`, `words_never_repeat_what_was_signed`.

use http::StatusCode;
use windlass_distribution::web::WebAnswer;

use crate::cloud::CloudError;
use crate::cloud::asking::words;

/// Longest error code.
const CODE_BYTES: usize = 64;

/// A service's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The status.
    pub(super) status: StatusCode,
    /// The word for it, e.g. `AccessDeniedException`; empty where none is said.
    pub(super) code: String,
    message: String,
}

impl Refusal {
    /// Reads any answer that is no success.
    pub(super) fn read(answer: &WebAnswer) -> Refusal {
        let text = String::from_utf8_lossy(answer.body.expose());
        let (code, message) = json(&text).or_else(|| xml(&text)).unwrap_or_default();
        // `com.amazonaws.ecr#ServerException`, and `ServerException:http://...` of older services.
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().trim();
        let plain =
            code.len() <= CODE_BYTES && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
        Refusal { status: answer.status, code: if plain { code.to_owned() } else { String::new() }, message }
    }

    /// Whether the service only wants fewer questions.
    pub(super) fn is_throttling(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
            || matches!(
                self.code.as_str(),
                "Throttling"
                    | "ThrottlingException"
                    | "ThrottledException"
                    | "RequestThrottled"
                    | "RequestThrottledException"
                    | "TooManyRequestsException"
                    | "RequestLimitExceeded"
                    | "LimitExceededException"
                    | "SlowDown"
            )
    }

    /// Whether the next answer may be another one.
    pub(super) fn is_passing(&self) -> bool {
        let word =
            matches!(self.code.as_str(), "IDPCommunicationError" | "IDPCommunicationErrorException" | "RequestTimeout");
        self.status.is_server_error() || self.is_throttling() || word
    }

    /// Whether it is about the time of the signature, or may be.
    pub(super) fn may_be_skew(&self) -> bool {
        matches!(
            self.code.as_str(),
            "InvalidSignatureException"
                | "SignatureDoesNotMatch"
                | "RequestExpired"
                | "RequestTimeTooSkewed"
                | "RequestInTheFuture"
                | "InvalidSignature"
                | "AuthFailure"
        )
    }

    /// The error. `hint` knows the codes of one service; `secrets` never show.
    pub(super) fn error(&self, service: &str, secrets: &[&str], hint: impl Fn(&str) -> String) -> CloudError {
        let (service, words) = (service.to_owned(), self.words(secrets));
        if self.is_throttling() {
            CloudError::Busy { service, words }
        } else if self.status.is_server_error() {
            CloudError::Failing { service, words }
        } else {
            CloudError::Refused { service, words, hint: hint(&self.code) }
        }
    }

    /// The code and the message. Messages about signatures go on with what was signed, the session token in it.
    fn words(&self, secrets: &[&str]) -> String {
        let first = self.message.lines().next().unwrap_or_default();
        let mut said = first.split("The Canonical String").next().unwrap_or_default().trim().to_owned();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            said = said.replace(secret, "***");
        }
        match (self.code.as_str(), said.as_str()) {
            ("", "") if self.status.is_redirection() => {
                format!("HTTP {}, a redirect, which is not followed", self.status.as_u16())
            }
            ("", "") => format!("HTTP {}", self.status.as_u16()),
            ("", said) => words(&format!("HTTP {}, {said}", self.status.as_u16())),
            (code, "") => code.to_owned(),
            (code, said) => words(&format!("{code}, {said}")),
        }
    }
}

fn json(text: &str) -> Option<(String, String)> {
    let body: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let first = |names: &[&str]| names.iter().find_map(|name| body.get(*name)?.as_str()).unwrap_or_default().to_owned();
    Some((first(&["__type", "code", "Code"]), first(&["message", "Message"])))
}

fn xml(text: &str) -> Option<(String, String)> {
    let code = element(text, "Code")?;
    Some((code, element(text, "Message").unwrap_or_default()))
}

/// The text of the first element of this name, if it has nothing but text.
pub(super) fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    if text.contains('<') {
        return None;
    }
    let known = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(known.iter().fold(text.trim().to_owned(), |text, (entity, plain)| text.replace(entity, plain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;
    use windlass_core::secret::Secret;

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(body in "(<Code>|</Code>|<Message>|</Message>|\"__type\":|[{}\"#:&;]|.){0,40}") {
            let refusal = read(400, &body);
            let shown = refusal.error("ECR", &["a"], |_| String::new()).to_string();
            prop_assert!(shown.len() < 1000 && !shown.contains('\n'));
        }
    }

    fn read(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::read(&WebAnswer { status, headers: HeaderMap::new(), body: Secret::new(body.as_bytes().to_vec()) })
    }

    #[test]
    fn refusals_are_read_in_both_languages() {
        let sts = "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                   <Message>Not &lt;you&gt; &amp;lt;</Message></Error></ErrorResponse>";
        let table = [
            (400, r#"{"__type":"AccessDeniedException","Message":"no"}"#, "AccessDeniedException", "no"),
            (400, r#"{"__type":"com.amazonaws.ecr#ServerException","message":"no"}"#, "ServerException", "no"),
            (400, r#"{"__type":"X:http://internal.amazon.com/x"}"#, "X", ""),
            (403, sts, "AccessDenied", "Not <you> &lt;"),
            (403, "<html>no</html>", "", ""),
            (403, r#"{"__type":"canary canary"}"#, "", ""),
            (403, "", "", ""),
        ];
        for (status, body, code, message) in table {
            let refusal = read(status, body);
            assert_eq!((refusal.code.as_str(), refusal.message.as_str()), (code, message), "{body}");
        }
    }

    #[test]
    fn words_never_repeat_what_was_signed() {
        let body = r#"{"__type":"InvalidSignatureException","message":"It does not match canary-key.\n\nThe Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:canary-token'"}"#;
        let error = read(403, body).error("ECR", &["canary-key"], |code| code.to_owned());
        assert_eq!(error.to_string(), "ECR refused: InvalidSignatureException, It does not match ***.");
        assert_eq!(error.hint(), "InvalidSignatureException");
        let busy = read(400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        assert!(matches!(busy.error("ECR", &[], |_| String::new()), CloudError::Busy { .. }));
        let failing = read(500, "").error("ECR", &[], |_| String::new());
        assert_eq!(failing.to_string(), "ECR fails: HTTP 500");
        let elsewhere = read(307, "<html>").error("ECR", &[], |_| String::new());
        assert_eq!(elsewhere.to_string(), "ECR refused: HTTP 307, a redirect, which is not followed");
    }

    #[test]
    fn elements_have_text_only() {
        assert_eq!(element("<A><B>x</B></A>", "A"), None);
        assert_eq!(element("<A><B> x </B></A>", "B").as_deref(), Some("x"));
        assert_eq!(element("<A>x", "A"), None);
    }
}
