//! The CRI under its old name: kubelets before 1.26 ask `runtime.v1alpha2`, whose image messages are the same.
//!
//! Invariant: `the_old_name_becomes_the_new_one`.

use http::{Request, Uri};

const OLD: &str = "/runtime.v1alpha2.";
const NEW: &str = "/runtime.v1.";

/// Marks a request that came under the old name; the one answer that names the version differs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OldApi;

/// Gives a request the new name.
pub(crate) fn rewrite<B>(mut request: Request<B>) -> Request<B> {
    let renamed = request.uri().path().strip_prefix(OLD).map(|rest| format!("{NEW}{rest}"));
    if let Some(uri) = renamed.and_then(|path| Uri::try_from(path).ok()) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(OldApi);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_name_becomes_the_new_one() {
        let table = [
            ("http://localhost/runtime.v1alpha2.ImageService/PullImage", "/runtime.v1.ImageService/PullImage", true),
            ("/runtime.v1alpha2.RuntimeService/Version", "/runtime.v1.RuntimeService/Version", true),
            ("/runtime.v1.ImageService/PullImage", "/runtime.v1.ImageService/PullImage", false),
            ("/other/runtime.v1alpha2.X", "/other/runtime.v1alpha2.X", false),
        ];
        for (path, want, old) in table {
            let request = rewrite(Request::builder().uri(path).body(()).unwrap());
            assert_eq!(request.uri().path(), want);
            assert_eq!(request.extensions().get::<OldApi>().is_some(), old, "{path}");
        }
    }
}
