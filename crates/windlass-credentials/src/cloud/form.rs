//! Bodies of the type `application/x-www-form-urlencoded`, and the percent encoding that signatures want.
//!
//! Invariant: `only_unreserved_characters_stay`.

use windlass_core::secret::Secret;

/// The media type of a form.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `text`; all bytes but the unreserved ones of RFC 3986 are encoded.
pub(crate) fn push_encoded(to: &mut String, text: &[u8]) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            to.push(char::from(*byte));
        } else {
            to.push('%');
            to.push(char::from(HEX[usize::from(byte >> 4)]));
            to.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The fields as a body, in their order.
pub(crate) fn body(fields: &[(&str, &str)]) -> Secret<Vec<u8>> {
    // Room for every byte encoded: a body that grew would leave copies of its secrets behind.
    let most: usize = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut text = String::with_capacity(most);
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        push_encoded(&mut text, name.as_bytes());
        text.push('=');
        push_encoded(&mut text, value.as_bytes());
    }
    Secret::new(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        let body = body(&[("Action", "Get It"), ("Tök&n", "a=b+c~d-e._%")]);
        let want = "Action=Get%20It&T%C3%B6k%26n=a%3Db%2Bc~d-e._%25";
        assert_eq!(String::from_utf8_lossy(body.expose()), want);
    }
}
