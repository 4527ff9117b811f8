//! The rule vectors of the API server's validation of Secrets.

mod support;

use serde_json::{Value, json};
use windlass_core::secret::Secret;
use windlass_core::secretcheck::{SecretData, validate};

#[test]
fn secret_validation() {
    support::run("secret-validation.json", |case| {
        let data: SecretData = case["in"]["data"]
            .as_object()
            .expect("a map of data")
            .iter()
            .map(|(key, value)| (key.clone(), Secret::new(value.as_str().expect("a text").as_bytes().to_vec())))
            .collect();
        let errors = validate(case["in"]["type"].as_str().expect("a type"), &data);
        assert_eq!(errors.is_empty(), case["out"]["valid"] == true, "{case}");
        let shown: Vec<Value> = errors.iter().map(|e| json!({"type": e.kind.as_str(), "field": e.field})).collect();
        assert_eq!(json!(shown), case["out"]["errors"], "{case}");
    });
}
