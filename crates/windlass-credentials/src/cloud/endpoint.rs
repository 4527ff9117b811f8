//! Which URLs may be asked: those that an operator names in a variable or a flag, and those of the clouds themselves.
//!
//! Plain http goes to loopback and to the addresses of metadata servers only: everything that is asked carries a secret
//! or brings one.
//!
//! Invariant: `plain_http_stays_on_the_machine`.

use windlass_core::httpurl::{HttpUrl, UrlScheme};

use super::CloudError;

/// Reads a URL that `what` (a variable or a flag) gave. `plain` are hosts that may be asked by plain http beside loopback.
///
/// # Errors
/// [`CloudError::Settings`] names `what`.
pub(crate) fn read(what: &str, text: &str, plain: &[&str]) -> Result<HttpUrl, CloudError> {
    let refuse = |problem: String| CloudError::Settings { what: what.to_owned(), problem };
    let url = HttpUrl::parse(text.trim()).map_err(|error| refuse(format!("cannot be used: {error}")))?;
    match url.origin().scheme {
        UrlScheme::Https => Ok(url),
        UrlScheme::Http if url.origin().host().is_loopback() => Ok(url),
        UrlScheme::Http if plain.contains(&url.origin().name.as_str()) => Ok(url),
        UrlScheme::Http => Err(refuse("must be an https URL: plain http is for loopback only".to_owned())),
    }
}

/// A URL with more path and query. `tail` begins with a slash and is added to the path of `base`.
///
/// # Errors
/// [`CloudError::Settings`] names `what`.
pub(crate) fn under(what: &str, base: &HttpUrl, tail: &str) -> Result<HttpUrl, CloudError> {
    let path = format!("{}{}{tail}", base.origin(), base.path().trim_end_matches('/'));
    let refuse = |error| CloudError::Settings { what: what.to_owned(), problem: format!("cannot be used: {error}") };
    HttpUrl::parse(&path).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_the_machine() {
        let metadata = ["169.254.169.254", "[fd00:ec2::254]"];
        let table = [
            ("https://vpce-1.ecr.example/", true),
            ("http://127.0.0.1:4566", true),
            ("http://localhost:4566", true),
            ("http://[::1]:1/x", true),
            ("http://169.254.169.254", true),
            ("http://[fd00:ec2::254]/", true),
            ("http://169.254.169.253", false),
            ("http://vpce-1.ecr.example/", false),
            ("http://localhost.example/", false),
            ("ftp://127.0.0.1", false),
            ("127.0.0.1:4566", false),
            ("", false),
        ];
        for (text, want) in table {
            assert_eq!(read("X_ENDPOINT", text, &metadata).is_ok(), want, "{text}");
        }
        let error = read("X_ENDPOINT", "http://user:canary@h/", &[]).unwrap_err().to_string();
        assert!(error.starts_with("X_ENDPOINT ") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn paths_are_added() {
        let base = read("X", "http://127.0.0.1:1/prefix/", &[]).unwrap();
        let url = under("X", &base, "/latest/api?x=1").unwrap();
        assert_eq!(url.to_request_uri(), "http://127.0.0.1:1/prefix/latest/api?x=1");
    }
}
