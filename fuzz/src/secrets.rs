//! Finds secrets in printed text.

/// Shorter secrets occur in honest text by chance.
const TELLING_BYTES: usize = 6;

/// Asserts that none of `secrets` shows in `printed`, unless it is part of a text that may be shown (a registry's key
/// can equal a password).
pub fn assert_hidden<'a>(printed: &str, secrets: impl IntoIterator<Item = &'a str>, shown: &[&str]) {
    for secret in secrets.into_iter().filter(|secret| secret.len() >= TELLING_BYTES) {
        let escaped = secret.escape_debug().to_string();
        for form in [secret, escaped.as_str()] {
            let harmless =
                shown.iter().any(|text| text.contains(form) || text.escape_debug().to_string().contains(form));
            assert!(harmless || STRUCTURE.contains(form) || !printed.contains(form), "{form:?} shows in {printed}");
        }
    }
}

/// What `Debug` prints of the shapes themselves; a secret that is part of it tells nothing.
const STRUCTURE: &str = "Document { entries: [Entry { key: credential: Basic { username: password: IdentityToken { token: \
    RegistryToken { email: rejected: [Rejected { why: NotAnObject FieldType { field: \"username\" \"password\" \"auth\" \
    \"email\" \"identitytoken\" \"registrytoken\" Base64 NoColon NotUtf8 notes: [Note Entry { what: Document( LegacyLayout \
    NewLayout ByteOrderMark HttpHeaders BlanksAroundAuth NulBytes cred_helpers: {} creds_store: None Some( *** is not a \
    string the entry is not an object auth is not base64 of user:password auth decodes to a text without a colon between \
    user and password the user name or password is not UTF-8 cannot be used the document is not JSON object empty larger \
    than nested deeper levels the fault is in line column is not an object of the right kind auths \
    Ring { entries: {} }[] Ring { entries: {} }[Skipped { origin: Given, key: \"\", why: \"\" }, Skipped { \
    [Candidate { credential: Basic { username: \"\", password: ***, origin: Given, key: \"\", hash: \"\" }, Candidate { \
    the entries stand at the top level, as in .dockercfg, so none is used: put them under \"auths\", or use the type \
    kubernetes.io/dockercfg put them under \\\"auths\\\", or use the type the entries stand under \"auths\", as in \
    config.json, so none is used: use the type kubernetes.io/dockerconfigjson the entries stand under \\\"auths\\\", as in \
    it begins with a byte order mark: a kubelet would refuse this secret HttpHeaders are never sent a kubelet ignores \
    identitytoken a kubelet ignores registrytoken there are blanks around auth: a kubelet would refuse this secret the \
    password ends in NUL bytes, which a kubelet would send the key is not a registry host with an optional path";
